//! `bellows image rm`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Forget an image's name
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows image rm` is not built yet"))
}
