//! `bellows image ls`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// List images
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows image ls` is not built yet"))
}
