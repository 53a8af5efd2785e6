//! Where runtimes are measured: a folder that goes with the run, a tiny image, a cgroup of its own.

use std::path::{Path, PathBuf};

use bellows_runtime::handle::Ipv4Subnet;
use bellows_runtime::{RuntimeConfig, bench};
use tempfile::TempDir;

use crate::execution;
use crate::failure::Failure;

/// Removed when dropped.
pub fn folder() -> Result<TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix("bellows-bench-").tempdir();
    folder.map_err(|error| Failure::failed(format!("making a folder to measure in: {error}")))
}

/// One program without any library.
pub fn tiny_image(folder: &Path) -> Result<PathBuf, Failure> {
    bench::tiny_image(folder).map_err(|error| Failure::failed(format!("making an image to measure: {error}")))
}

/// Of a runtime whose containers have addresses in `range`, a constant of each measurement.
pub fn config(folder: &Path, range: &str) -> RuntimeConfig {
    let subnet: Ipv4Subnet = range.parse().expect("a constant subnet");
    let cgroup = format!("bellows-bench-{}", std::process::id());
    RuntimeConfig::new(folder.join("runtime"), cgroup, subnet, execution::launcher())
}
