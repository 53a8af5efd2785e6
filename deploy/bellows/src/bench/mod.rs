//! `bellows bench`: how fast, measured here and now, as rows of {name, value, unit, reference?, ratio?}.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Measure this machine: rows of name, value, unit, reference, ratio
#[derive(Args, Debug)]
pub struct Arguments {}

/// Measures and prints. No async runtime exists.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows bench` is not built yet"))
}
