//! What this kernel offers, found by trying, never by comparing versions. Nothing that is tried outlives its try.
//!
//! The table has a row for everything that the runtime uses and that some kernel, from Linux 6.1 on, or some surroundings do not give.

mod files;
mod groups;
mod network;
mod processes;

use std::io;
use std::path::Path;

use crate::handle::Feature;

/// What a row of the table says before anything was tried.
struct Row {
    feature: &'static str,
    needed_for: &'static str,
    without: &'static str,
    /// How to get it, where the runtime cannot do without.
    mend: Option<&'static str>,
}

/// A row and what its try gave.
type Tried = (Row, io::Result<String>);

/// The table: feature, found, needed for, without. `images` is where images are kept, or a folder above that will be.
pub fn features(images: &Path) -> Vec<Feature> {
    let tried = [processes::rows(), groups::rows(), files::rows(images), network::rows()];
    tried.into_iter().flatten().map(feature).collect()
}

fn feature((row, found): Tried) -> Feature {
    Feature {
        feature: row.feature.to_owned(),
        found: found.map_err(|error| error.to_string()),
        needed_for: row.needed_for.to_owned(),
        without: row.without.to_owned(),
        mend: row.mend.unwrap_or_default().to_owned(),
        required: row.mend.is_some(),
    }
}

/// Without it nothing works.
fn required(feature: &'static str, needed_for: &'static str, mend: &'static str) -> Row {
    Row { feature, needed_for, without: "no container starts", mend: Some(mend) }
}

/// Without it something works differently.
fn optional(feature: &'static str, needed_for: &'static str, without: &'static str) -> Row {
    Row { feature, needed_for, without, mend: None }
}

fn yes<T>(tried: io::Result<T>) -> io::Result<String> {
    tried.map(|_| "yes".to_owned())
}
