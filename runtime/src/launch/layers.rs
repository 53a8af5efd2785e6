//! How the layers of a container's root get into its overlay. The kernel decides; it is found out by trying, once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::{devices, scratch};
use crate::kernel::mount::{self, Setting};
use crate::kernel::namespace;

/// Where the launcher attaches the image for a moment.
const IMAGE: &str = "/image";
/// And the writable layer.
const WRITABLE: &str = "/writable";
/// Directories of the launcher's root that this needs.
pub const PLACES: [&str; 2] = ["image", "writable"];

/// How an overlay takes its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// By descriptors of trees that are attached nowhere (Linux 6.15). Trees are kept, and used again and again; one device layer serves all.
    Detached,
    /// By paths in the launcher's own mount namespace, where they are attached for as long as it takes to make the overlay. What was attached once cannot
    /// be again, so every launch has a copy of the image's tree of its own; and as a tmpfs cannot have its owners shifted everywhere (Linux 6.3), what
    /// the device layer would show is written into the writable layer.
    Attached,
}

impl Layers {
    /// What this kernel can. Whatever else goes wrong (no memory, no descriptors) says nothing of that.
    pub fn found() -> io::Result<Self> {
        match detached() {
            Ok(()) => Ok(Self::Detached),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {
                tracing::info!(%error, "layers are attached for each launch: this kernel takes none that are attached nowhere");
                Ok(Self::Attached)
            }
            Err(error) => Err(error),
        }
    }
}

/// Tries [`Layers::Detached`]; nothing is left of it.
pub fn detached() -> io::Result<()> {
    let userns = namespace::user_mapping(0x3000_0000)?;
    // Two, as an overlay refuses to have one layer twice.
    let (devices, image) = (devices::layer()?, devices::layer()?);
    for tree in [&devices, &image] {
        mount::shift_owners(tree.as_fd(), userns.as_fd())?;
    }
    let writable = scratch::make(64 << 10)?;
    Layers::Detached.overlay_of(Some(devices.as_fd()), image.as_fd(), &writable).map(drop)
}

impl Layers {
    /// The overlay of the device layer, if there is one, an image's tree and a writable layer, attached nowhere.
    pub fn overlay_of(
        self,
        devices: Option<BorrowedFd<'_>>,
        image: BorrowedFd<'_>,
        writable: &OwnedFd,
    ) -> io::Result<OwnedFd> {
        if self == Self::Attached {
            return overlay_attached(image, writable);
        }
        let open = |path: &str| rustix::fs::openat(writable, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let (upper, work) = (open("upper")?, open("work")?);
        let lower = devices.into_iter().chain([image]).map(|tree| ("lowerdir+", tree));
        let layers = lower.chain([("upperdir", upper.as_fd()), ("workdir", work.as_fd())]);
        overlay(layers.map(|(key, fd)| Setting::Fd(key, fd)).collect())
    }
}

/// The overlay has copies of its own of what it lies over: afterwards nothing needs to be attached.
fn overlay_attached(image: BorrowedFd<'_>, writable: &OwnedFd) -> io::Result<OwnedFd> {
    let _image = Attached::at(image, IMAGE)?;
    let _writable = Attached::at(writable.as_fd(), WRITABLE)?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    let layers = [("lowerdir", IMAGE), ("upperdir", &upper), ("workdir", &work)];
    overlay(layers.map(|(key, path)| Setting::Text(key, path)).into())
}

fn overlay(mut settings: Vec<Setting<'_>>) -> io::Result<OwnedFd> {
    settings.push(Setting::Text("redirect_dir", "on"));
    // Whatever this kernel was built to do by default: all that a container changes is below `upper`.
    settings.extend(["index", "metacopy", "nfs_export"].map(|key| Setting::Text(key, "off")));
    mount::detached("overlay", &settings, MountAttrFlags::empty())
}

/// A tree in its place, until dropped.
struct Attached(&'static str);

impl Attached {
    fn at(tree: BorrowedFd<'_>, place: &'static str) -> io::Result<Self> {
        move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(Self(place))
    }
}

impl Drop for Attached {
    /// What stays is covered by the next one, and copied into every container's mount namespace until it lets go of the host's tree.
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, UnmountFlags::DETACH) {
            tracing::warn!(%error, place = self.0, "a layer stays attached");
        }
    }
}
