//! Trees of a bundle, opened by the launching process: what the container's user could not reach is reached, and nothing is looked up twice.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::MountAttrFlags;

use super::OciError;
use super::filesystem::{Part, Tree};
use super::mounts::Options;
use crate::kernel::mount::{self, Change, Setting};
use crate::kernel::namespace;

/// Opens one, attached nowhere.
pub fn open(tree: &Tree, rootfs: &Path) -> Result<OwnedFd, OciError> {
    match tree {
        Tree::Part(part) => open_part(part),
        Tree::Copy { place, options } => {
            let what = format!("make the tmpfs for {} with what the image has there", place.display());
            copy(rootfs, place, options).map_err(OciError::kernel(what))
        }
    }
}

/// Part of the host's tree with its attributes.
pub fn open_part(part: &Part) -> Result<OwnedFd, OciError> {
    let tree =
        mount::tree_of(&part.source, part.recursive).map_err(OciError::file("open the mount source", &part.source))?;
    let alter = |recursive, change| {
        mount::alter(tree.as_fd(), recursive, change).map_err(OciError::file("set the mount options of", &part.source))
    };
    let deep = part.propagation & libc::MS_REC != 0;
    let propagation = part.propagation & !libc::MS_REC;
    // A copy of a shared mount is shared with it as it stands.
    if propagation != libc::MS_SHARED {
        alter(deep, Change { propagation, ..Change::default() })?;
    }
    for ((set, clear), recursive) in [(part.top, false), (part.deep, true)] {
        if set | clear != 0 {
            alter(recursive, Change { set, clear, ..Change::default() })?;
        }
    }
    if let Some(([users, groups], recursive)) = &part.shifted {
        let userns = namespace::user_mapping_of([users, groups])
            .map_err(OciError::file("make the user namespace that shifts the owners of", &part.source))?;
        alter(*recursive, Change { userns: Some(userns.as_fd()), ..Change::default() })?;
    }
    Ok(tree)
}

fn copy(rootfs: &Path, place: &Path, options: &Options) -> io::Result<OwnedFd> {
    let pairs: Vec<(&str, &str)> = options.data.iter().map(|o| o.split_once('=').unwrap_or((o, ""))).collect();
    let settings: Vec<Setting<'_>> = pairs.iter().map(|(key, value)| Setting::Text(key, value)).collect();
    let (set, _) = options.tree_attributes();
    let writable = MountAttrFlags::from_bits_retain(set as u32) & !MountAttrFlags::MOUNT_ATTR_RDONLY;
    let tree = mount::detached("tmpfs", &settings, writable)?;
    let root = File::open(rootfs)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(&root, place, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(from) => {
            let named = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
            fill(Path::new(&named(&from)), Path::new(&named(&tree)))?;
        }
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    if set & libc::MOUNT_ATTR_RDONLY != 0 {
        mount::alter(tree.as_fd(), false, Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() })?;
    }
    Ok(tree)
}

/// Directories, files and links, with owners and permissions. Links are copied, never followed; devices and sockets stay behind.
fn fill(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let known = fs::symlink_metadata(&source)?;
        if known.is_dir() {
            fs::create_dir(&target)?;
            fill(&source, &target)?;
        } else if known.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if known.is_file() {
            fs::copy(&source, &target)?;
        } else {
            continue;
        }
        std::os::unix::fs::lchown(&target, Some(known.uid()), Some(known.gid()))?;
        if !known.is_symlink() {
            fs::set_permissions(&target, fs::Permissions::from_mode(known.mode() & 0o7777))?;
        }
    }
    Ok(())
}
