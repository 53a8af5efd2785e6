//! `bellows token`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Make a token with which an agent may join
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows token` is not built yet"))
}
