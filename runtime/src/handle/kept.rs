//! What a slot keeps of the image of its last container, which most often is the next one's as well: its tree with owners shifted, and a root made ahead.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::kernel::mount;
use crate::launch::Root;
use crate::spec::ContainerSpec;

/// What a container's root is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    image: Directory,
    scratch_bytes: u64,
}

impl Wanted {
    /// As things are: where an image was removed another may be now.
    pub fn by(spec: &ContainerSpec) -> io::Result<Self> {
        let image = rustix::fs::stat(&spec.root)?.into();
        Ok(Self { image, scratch_bytes: spec.limits.scratch_bytes })
    }
}

/// Not its path: no other directory has this number as long as somebody keeps this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Directory {
    device: u64,
    number: u64,
}

impl From<rustix::fs::Stat> for Directory {
    fn from(found: rustix::fs::Stat) -> Self {
        Self { device: found.st_dev, number: found.st_ino }
    }
}

/// Of one image.
#[derive(Debug)]
pub struct Kept {
    /// By its last container.
    wanted: Wanted,
    /// Attached nowhere, owners shifted, read-only.
    tree: OwnedFd,
    /// With the size of its writable layer.
    root: Option<(u64, Root)>,
}

impl Kept {
    /// Of the image at `path`, with owners shifted as by `userns`.
    pub fn of(path: &Path, userns: BorrowedFd<'_>, wanted: Wanted) -> io::Result<Self> {
        let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
        let tree = mount::copy_of(rustix::fs::CWD, &text)?;
        mount::shift_owners(tree.as_fd(), userns).map_err(|error| unshiftable(path, error))?;
        let wanted = Wanted { image: rustix::fs::fstat(&tree)?.into(), ..wanted };
        Ok(Self { wanted, tree, root: None })
    }

    /// Whether it is of this image.
    pub fn is_of(&self, wanted: Wanted) -> bool {
        self.wanted.image == wanted.image
    }

    /// For another container of the same image.
    pub fn again(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    /// Whether it has a root for this.
    pub fn is_ready_for(&self, wanted: Wanted) -> bool {
        self.is_of(wanted) && self.root.as_ref().is_some_and(|(size, _)| *size == wanted.scratch_bytes)
    }

    /// The image's tree.
    pub fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// The root, for one container and no other.
    pub fn take_root(&mut self) -> Option<Root> {
        self.root.take_if(|(size, _)| *size == self.wanted.scratch_bytes).map(|(_, root)| root)
    }

    /// Makes one as the last, in time that nobody waits for. If it cannot be made, the next launch finds out and tells.
    pub fn make_root(&mut self, first_id: u32, devices: BorrowedFd<'_>) {
        if self.is_ready_for(self.wanted) {
            return;
        }
        match Root::ahead(self.wanted.scratch_bytes, first_id, self.tree.as_fd(), devices) {
            Ok(root) => self.root = Some((self.wanted.scratch_bytes, root)),
            Err(error) => tracing::debug!(%error, "cannot make a root ahead"),
        }
    }
}

/// The kernel only says that it is an invalid argument.
fn unshiftable(root: &Path, error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let kind = mount::file_system_of(root).unwrap_or_else(|| "unknown".to_owned());
    let text =
        format!("this kernel cannot shift owners on its file system ({kind}); keep images on ext4, xfs or btrfs");
    io::Error::new(error.kind(), text)
}
