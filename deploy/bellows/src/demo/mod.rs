//! The demo app: a small HTTP server that can be told to burn CPU, hold memory, hang and crash. Runs inside containers.

use clap::Args;

use crate::failure::Failure;

/// The demo app (hidden)
#[derive(Args, Debug)]
pub struct Arguments {}

/// Serves until told to end. Called before any thread or async runtime exists.
pub fn run(_arguments: Arguments) -> Result<(), Failure> {
    Err(Failure::failed("the demo app is not built yet"))
}
