//! `bellows explain`.

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

/// Why is it as it is?
#[derive(Args, Debug)]
pub struct Arguments {}

/// Not built yet.
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("`bellows explain` is not built yet"))
}
