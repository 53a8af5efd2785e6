//! `bellows status`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// The cluster in a few lines
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows status` is not built yet"))
}
