//! `bellows sim chaos`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Seeds of faults in virtual time
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows sim chaos` is not built yet"))
}
