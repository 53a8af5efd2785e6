//! `bellows rm`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Remove an app and end its copies
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows rm` is not built yet"))
}
