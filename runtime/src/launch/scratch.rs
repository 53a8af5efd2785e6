//! The writable layer of a container before it is anybody's: a tmpfs of bounded size with the directories that an overlay wants.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;

use crate::kernel::mount::{self, Setting};

/// A fresh one, attached nowhere; all in it belongs to the host's root.
pub fn make(size_bytes: u64) -> io::Result<OwnedFd> {
    let size = size_bytes.to_string();
    // One inode for each page and a few for what every container has.
    let inodes = (size_bytes / 4096 + 64).to_string();
    let settings = [Setting::Text("mode", "0755"), Setting::Text("size", &size), Setting::Text("nr_inodes", &inodes)];
    let scratch =
        mount::detached("tmpfs", &settings, MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    for dir in [c"upper", c"work", c"upper/etc"] {
        rustix::fs::mkdirat(&scratch, dir, Mode::from_raw_mode(0o755))?;
    }
    Ok(scratch)
}

/// One made ahead, of the size that was last asked for: most often the next one's. No container has ever seen it.
#[derive(Debug, Default)]
pub struct Spare(RefCell<Option<(u64, OwnedFd)>>);

impl Spare {
    /// The one made ahead if its size is right, else one made now.
    pub fn take(&self, size_bytes: u64) -> io::Result<OwnedFd> {
        match self.0.take() {
            Some((size, scratch)) if size == size_bytes => Ok(scratch),
            other => {
                self.0.replace(other);
                make(size_bytes)
            }
        }
    }

    /// In idle time. If it cannot be made, the next launch finds out and tells.
    pub fn refill(&self, size_bytes: u64) {
        if self.0.borrow().as_ref().is_some_and(|(size, _)| *size == size_bytes) {
            return;
        }
        match make(size_bytes) {
            Ok(scratch) => drop(self.0.replace(Some((size_bytes, scratch)))),
            Err(error) => tracing::debug!(%error, "cannot make a writable layer ahead"),
        }
    }
}
