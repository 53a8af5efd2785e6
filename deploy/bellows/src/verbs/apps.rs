//! `bellows apps`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// List apps
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows apps` is not built yet"))
}
