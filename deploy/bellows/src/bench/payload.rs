//! The programs that are measured: small, and the same for everybody in one run.

use std::path::{Path, PathBuf};

use bellows_runtime::image::build::{BuildConfig, executable_with_libraries};
use bellows_runtime::image::{Digest, Store};

/// An image with one tool at this path and nothing else: busybox where it is installed, the machine's own tool with its libraries
/// elsewhere.
pub fn image(store: &Store, name: &str, tool: &Path) -> bellows_runtime::image::Result<Digest> {
    let mut files = executable_with_libraries(&program(tool))?;
    if let Some(own) = files.first_mut() {
        own.path = tool.to_owned();
    }
    store.build(name, &files, &BuildConfig::default())
}

/// Which program that tool is on this machine.
pub fn program(tool: &Path) -> PathBuf {
    let candidates = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| tool.to_owned())
}
