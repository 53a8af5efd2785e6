//! `bellows events`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// What happened, and why
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows events` is not built yet"))
}
