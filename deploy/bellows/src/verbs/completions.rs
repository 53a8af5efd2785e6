//! `bellows completions`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Completions for a shell
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows completions` is not built yet"))
}
