//! `bellows apply`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Declare apps from YAML files
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows apply` is not built yet"))
}
