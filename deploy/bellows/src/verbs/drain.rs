//! `bellows drain`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Move a node's replicas elsewhere
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows drain` is not built yet"))
}
