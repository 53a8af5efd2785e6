//! What verbs print: tables for people, JSON for programs.

mod table;
pub mod views;

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;

pub use table::Table;

/// One JSON document, readable.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(&error))?;
    line(&text)
}

/// One JSON document on one line, at once.
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(|error| Failure::from_error(&error))?)
}

/// One line, at once: a follower behind a pipe must not wait for a full buffer.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Bytes as they are, at once.
pub fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(data)?;
    Ok(out.flush()?)
}

/// May something move on the screen? Progress is on stderr, so that stdout stays clean.
pub fn progress_bar(json: bool) -> indicatif::ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        indicatif::ProgressBar::hidden()
    } else {
        indicatif::ProgressBar::new(0)
    }
}
