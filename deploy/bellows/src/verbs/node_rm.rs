//! `bellows node rm`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Forget a node that left for good
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows node rm` is not built yet"))
}
