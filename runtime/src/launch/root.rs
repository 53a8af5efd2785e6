//! A container's root before it is anybody's: a writable layer over an image and the devices. Made by the launcher for a launch, or ahead of it by the runtime,
//! for a slot whose next container is most likely of the same image.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::devices;
use super::layers::Layers;
use super::scratch;
use crate::steps::ETC_FILES;

/// Both attached nowhere.
#[derive(Debug)]
pub struct Root {
    /// The writable layer's own tree, for what is to be written below the overlay.
    pub scratch: OwnedFd,
    /// The overlay.
    pub tree: OwnedFd,
}

impl Root {
    /// With [`Layers::Detached`], for the container whose root is the host's user `first_id`; `image` and `devices` have their owners shifted. No container has seen it.
    pub fn ahead(size_bytes: u64, first_id: u32, image: BorrowedFd<'_>, devices: BorrowedFd<'_>) -> io::Result<Self> {
        let scratch = scratch::make(size_bytes)?;
        give(&scratch, first_id)?;
        for name in ETC_FILES {
            make_etc_file(&scratch, first_id, name)?;
        }
        resemble(&scratch, image, &[ETC, TOP])?;
        let tree = Layers::Detached.overlay_of(Some(devices), image, &scratch)?;
        for path in NEEDED {
            rustix::fs::statat(&tree, path, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(Self { scratch, tree })
    }
}

/// What is mounted on, or shown elsewhere: an overlay that has looked for it once finds it sooner.
const NEEDED: [&CStr; 5] = [c"proc", c"sys", c"dev/null", c"dev/pts", c"dev/mqueue"];

/// A directory of the writable layer, and the image's that it hides.
type Pair = (&'static CStr, &'static CStr);
/// The directory of the files that every container gets.
pub const ETC: Pair = (c"upper/etc", c"etc");
/// The root itself.
pub const TOP: Pair = (c"upper", c".");

/// Its directories to the container's root.
pub fn give(scratch: &OwnedFd, first_id: u32) -> io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(first_id)), Some(Gid::from_raw(first_id)));
    for (dir, _) in [TOP, ETC] {
        rustix::fs::chownat(scratch, dir, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A file of `/etc`, empty, of the container's root.
pub fn make_etc_file(scratch: &OwnedFd, first_id: u32, name: &CStr) -> io::Result<OwnedFd> {
    let file = open(scratch, name, OFlags::CREATE | OFlags::EXCL)?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(first_id)), Some(Gid::from_raw(first_id)))?;
    Ok(file)
}

/// One that was made ahead. The overlay exists already; nobody has looked anything up in this directory of it.
pub fn open_etc_file(scratch: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    open(scratch, name, OFlags::empty())
}

fn open(scratch: &OwnedFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let path = [ETC.0.to_bytes(), b"/", name.to_bytes_with_nul()].concat();
    let path = CStr::from_bytes_with_nul(&path).map_err(io::Error::other)?;
    Ok(rustix::fs::openat(scratch, path, flags | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?)
}

/// Its content, with the date of what is made and not the image's.
pub fn write_etc_file(file: &OwnedFd, content: &[u8]) -> io::Result<()> {
    rustix::io::write(file, content)?;
    Ok(rustix::fs::futimens(file, &devices::ALWAYS)?)
}

/// The writable layer's own directories hide the image's: they get the same mode, owner and date.
pub fn resemble(scratch: &OwnedFd, image: BorrowedFd<'_>, pairs: &[Pair]) -> io::Result<()> {
    for (ours, theirs) in pairs {
        let date = match rustix::fs::statat(image.as_fd(), *theirs, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => {
                let (user, group) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
                rustix::fs::chownat(scratch, *ours, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::chmodat(scratch, *ours, Mode::from_raw_mode(found.st_mode), AtFlags::empty())?;
                devices::date(found.st_mtime, found.st_mtime_nsec as i64)
            }
            Ok(_) | Err(rustix::io::Errno::NOENT) => devices::ALWAYS,
            Err(error) => return Err(error.into()),
        };
        rustix::fs::utimensat(scratch, *ours, &date, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
