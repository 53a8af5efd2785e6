//! `bellows dev`: a whole cluster on one machine.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// A whole cluster on this machine: controller and agents, no setting needed
#[derive(Args, Debug)]
pub struct Arguments {}

/// Runs until Ctrl-C.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows dev` is not built yet"))
}
