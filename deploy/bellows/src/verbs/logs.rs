//! `bellows logs`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// What a replica wrote
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows logs` is not built yet"))
}
