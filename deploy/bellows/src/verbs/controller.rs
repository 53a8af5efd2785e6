//! `bellows controller`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Run a controller
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows controller` is not built yet"))
}
