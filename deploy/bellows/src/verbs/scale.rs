//! `bellows scale`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Say how many copies of an app you want
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows scale` is not built yet"))
}
