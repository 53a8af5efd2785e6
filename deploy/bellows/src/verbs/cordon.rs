//! `bellows cordon`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Give a node no more replicas
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows cordon` is not built yet"))
}
