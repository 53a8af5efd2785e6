//! `bellows agent`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Run an agent: replicas on this server
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows agent` is not built yet"))
}
