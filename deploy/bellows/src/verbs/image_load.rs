//! `bellows image load`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Bring an image into the cluster
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows image load` is not built yet"))
}
