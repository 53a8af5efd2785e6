//! `bellows schema`.

use std::io::Write;

use clap::Args;

use crate::appfile::shape;
use crate::failure::Failure;
use crate::globals::Globals;

const AFTER: &str = "\
Example, for editors with a YAML language server:
  bellows schema > bellows-app.schema.json
  and in web.yaml:  # yaml-language-server: $schema=./bellows-app.schema.json";

/// The JSON Schema of app files
///
/// For editors and validators. `bellows apply` finds more: it also knows what contradicts itself.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {}

/// Prints it.
pub fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&shape::schema()).map_err(|error| Failure::from_error(&error))?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
