//! A container's root before it is anybody's: a writable layer over an image and the devices. Made by the launcher for a launch, or ahead of it by the runtime,
//! for a slot whose next container is most likely of the same image.
//!
//! To make one and to take it down is a quarter of what a short container costs. Most of those write nothing: a root that its container has left as it found
//! it can be another one's of the same tenant. The kernel tells: whatever changes a directory sets its time of change, which nobody can set back; [`Seal`]
//! keeps that of the two there are. The three files are looked at, and written anew.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::devices;
use super::layers::Layers;
use super::scratch;
use crate::steps::ETC_FILES;

/// Where a launch has its root from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// The launcher makes it.
    Launch,
    /// It was made ahead, for this container alone.
    Given,
    /// It was made ahead, and may serve another container when this one is gone: this one gets a copy of the overlay's tree.
    Lent,
    /// Another container has had it before. Its writable layer's own tree went where that one's mounts went: it can be written to, and be attached no more.
    LentAgain,
}

/// The tree of the overlay is attached nowhere.
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
            write_etc_file(&make_etc_file(&scratch, first_id, name)?, &[])?;
        }
        resemble(&scratch, image, &[ETC, TOP])?;
        let tree = Layers::Detached.overlay_of(Some(devices), image, &scratch)?;
        for path in NEEDED {
            rustix::fs::statat(&tree, path, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(Self { scratch, tree })
    }
}

/// What tells whether a container has changed its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// When the directories of the writable layer were changed, and when they were read.
    changed: [Time; 2],
    read: [Time; 2],
    /// Free blocks and inodes of the writable layer: what nobody sees any more may still be there.
    room: (u64, u64),
}

/// Seconds and nanoseconds.
type Time = (i64, u64);

impl Seal {
    /// Of a root that no container has had.
    pub fn of(root: &Root) -> io::Result<Self> {
        let (changed, read) = Self::times(&root.scratch)?;
        Ok(Self { changed, read, room: Self::room(&root.scratch)? })
    }

    fn room(scratch: &OwnedFd) -> io::Result<(u64, u64)> {
        let room = rustix::fs::fstatvfs(scratch)?;
        Ok((room.f_bfree, room.f_ffree))
    }

    fn times(scratch: &OwnedFd) -> io::Result<([Time; 2], [Time; 2])> {
        let [top, etc] = [TOP, ETC].map(|(dir, _)| rustix::fs::statat(scratch, dir, AtFlags::SYMLINK_NOFOLLOW));
        let (top, etc) = (top?, etc?);
        Ok((
            [&top, &etc].map(|found| (found.st_ctime, found.st_ctime_nsec)),
            [&top, &etc].map(|found| (found.st_atime, found.st_atime_nsec)),
        ))
    }

    /// Whether the container that had the root is gone without a change to it; then it is made ready for the next one, and this is its seal from now on.
    /// Files of `/etc` are written anew for each, so what was written to them does not count.
    pub fn renew(mut self, scratch: &OwnedFd, first_id: u32, image: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let (changed, read) = Self::times(scratch)?;
        if changed != self.changed {
            return Ok(None);
        }
        for name in ETC_FILES {
            let file = open_etc_file(scratch, name)?;
            let found = rustix::fs::fstat(&file)?;
            let expected = (libc::S_IFREG | ETC_FILE_MODE, first_id, first_id, 1);
            if (found.st_mode, found.st_uid, found.st_gid, found.st_nlink) != expected
                || rustix::fs::flistxattr_query(&file)? > 0
                || !rustix::fs::ioctl_getflags(&file)?.is_empty()
            {
                return Ok(None);
            }
            let is_blank = found.st_size == 0 && found.st_mtime == 0 && found.st_atime == 0;
            if !is_blank {
                rustix::fs::ftruncate(&file, 0)?;
                write_etc_file(&file, &[])?;
            }
        }
        if Self::room(scratch)? != self.room {
            return Ok(None);
        }
        if read != self.read {
            resemble(scratch, image, &[ETC, TOP])?;
            (self.changed, self.read) = Self::times(scratch)?;
        }
        Ok(Some(self))
    }
}

/// Whether this kernel's times of change differ for changes that follow one another at once (Linux 6.13); before, they are those of its timer.
pub fn tells_changes() -> io::Result<bool> {
    let scratch = scratch::make(64 << 10)?;
    let time =
        || rustix::fs::statat(&scratch, TOP.0, AtFlags::SYMLINK_NOFOLLOW).map(|at| (at.st_ctime, at.st_ctime_nsec));
    for _ in 0..16 {
        let before = time()?;
        rustix::fs::utimensat(&scratch, TOP.0, &devices::ALWAYS, AtFlags::SYMLINK_NOFOLLOW)?;
        if time()? == before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is mounted on, or shown elsewhere: an overlay that has looked for it once finds it sooner. And what is in several layers, the writable one among
/// them: when that is first looked for, the overlay writes down where it is from, which would look like a change of the container's.
const NEEDED: [&CStr; 6] = [c"etc", c"proc", c"sys", c"dev/null", c"dev/pts", c"dev/mqueue"];

/// A directory of the writable layer, and the image's that it hides.
type Pair = (&'static CStr, &'static CStr);
/// The directory of the files that every container gets.
pub const ETC: Pair = (c"upper/etc", c"etc");
/// The root itself.
pub const TOP: Pair = (c"upper", c".");

const ETC_FILE_MODE: u32 = 0o644;

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

/// One that is there, below an overlay that exists already: what is read and asked of it there is what it is here.
pub fn open_etc_file(scratch: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    open(scratch, name, OFlags::empty())
}

fn open(scratch: &OwnedFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let path = [ETC.0.to_bytes(), b"/", name.to_bytes_with_nul()].concat();
    let path = CStr::from_bytes_with_nul(&path).map_err(io::Error::other)?;
    let flags = flags | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(scratch, path, flags, Mode::from_raw_mode(ETC_FILE_MODE))?)
}

/// Its content, with the date of what is made and not the image's.
pub fn write_etc_file(file: &OwnedFd, content: &[u8]) -> io::Result<()> {
    if !content.is_empty() {
        rustix::io::write(file, content)?;
    }
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
