//! `bellows schema`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// The JSON Schema of app files
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows schema` is not built yet"))
}
