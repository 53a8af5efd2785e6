//! `bellows uncordon`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Let a node take replicas again
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows uncordon` is not built yet"))
}
