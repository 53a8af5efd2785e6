//! `bellows nodes`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// List nodes
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows nodes` is not built yet"))
}
