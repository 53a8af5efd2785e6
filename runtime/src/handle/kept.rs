//! What a slot keeps of the image of its last container, which most often is the next one's as well: its tree with owners shifted, and a root, made ahead or
//! left as it was found.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::kernel::mount;
use crate::launch::{Origin, Root, Seal};
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

/// A root for a container.
#[derive(Debug)]
pub struct Made {
    pub root: Root,
    /// Where changes to it can be told.
    seal: Option<Seal>,
    /// Size of its writable layer.
    scratch_bytes: u64,
    /// Whose container has had it.
    tenant: Option<String>,
}

impl Made {
    /// As its launcher is told.
    pub fn origin(&self) -> Origin {
        match (&self.seal, &self.tenant) {
            (None, _) => Origin::Given,
            (Some(_), None) => Origin::Lent,
            (Some(_), Some(_)) => Origin::LentAgain,
        }
    }

    fn is_for(&self, wanted: Wanted, tenant: &str) -> bool {
        self.scratch_bytes == wanted.scratch_bytes && self.tenant.as_deref().is_none_or(|owner| owner == tenant)
    }

    /// One that was made ahead is the next container's alone. One that was used cannot be given away, as its writable layer can be attached no more.
    pub fn for_good(self) -> Self {
        if self.tenant.is_none() { Self { seal: None, ..self } } else { self }
    }

    /// While a container of `tenant` has it, if it may ever serve another.
    pub fn worn_by(self, tenant: &str) -> Option<Self> {
        self.seal.is_some().then(|| Self { tenant: Some(tenant.to_owned()), ..self })
    }
}

/// Of one image.
#[derive(Debug)]
pub struct Kept {
    /// By its last container.
    wanted: Wanted,
    /// Attached nowhere, owners shifted, read-only.
    tree: OwnedFd,
    root: Option<Made>,
    /// A container of this image has changed its root: most likely all do. So many roots are not lent.
    not_lent: u32,
}

/// After a root came back changed: then it is tried again.
const NOT_LENT: u32 = 100;

impl Kept {
    /// Of the image at `path`, with owners shifted as by `userns`.
    pub fn of(path: &Path, userns: BorrowedFd<'_>, wanted: Wanted) -> io::Result<Self> {
        let text = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
        let tree = mount::copy_of(rustix::fs::CWD, &text)?;
        mount::shift_owners(tree.as_fd(), userns).map_err(|error| unshiftable(path, error))?;
        let wanted = Wanted { image: rustix::fs::fstat(&tree)?.into(), ..wanted };
        Ok(Self { wanted, tree, root: None, not_lent: 0 })
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
    pub fn is_ready_for(&self, wanted: Wanted, tenant: &str) -> bool {
        self.is_of(wanted) && self.root.as_ref().is_some_and(|made| made.is_for(wanted, tenant))
    }

    /// The image's tree.
    pub fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// The root, for one container of `tenant`; or, beside nothing, one that nobody can use while that runs.
    pub fn take_root(&mut self, tenant: &str) -> (Option<Made>, Option<Made>) {
        match self.root.take() {
            Some(made) if made.is_for(self.wanted, tenant) => (Some(made), None),
            other => (None, other),
        }
    }

    /// Makes one as the last, for the same tenant's next container most likely, in time that nobody waits for. If it cannot be made, the next launch finds
    /// out and tells.
    pub fn make_root(&mut self, first_id: u32, devices: BorrowedFd<'_>, tenant: &str, sealed: bool) {
        if self.is_ready_for(self.wanted, tenant) {
            return;
        }
        let scratch_bytes = self.wanted.scratch_bytes;
        let made = Root::ahead(scratch_bytes, first_id, self.tree.as_fd(), devices).and_then(|root| {
            let may_come_back = sealed && self.not_lent == 0;
            let seal = may_come_back.then(|| Seal::of(&root)).transpose()?;
            Ok(Made { root, seal, scratch_bytes, tenant: None })
        });
        self.not_lent = self.not_lent.saturating_sub(1);
        match made {
            Ok(made) => self.root = Some(made),
            Err(error) => tracing::debug!(%error, "cannot make a root ahead"),
        }
    }

    /// Takes the root of the last container back if that has left it as it was. All its processes are gone.
    pub fn take_back(&mut self, worn: Made, first_id: u32) {
        let Some(seal) = worn.seal else { return };
        match seal.renew(&worn.root.scratch, first_id, self.tree.as_fd()) {
            Ok(Some(seal)) => self.root = Some(Made { seal: Some(seal), ..worn }),
            Ok(None) => self.not_lent = NOT_LENT,
            Err(error) => tracing::debug!(%error, "a root is not used again"),
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
