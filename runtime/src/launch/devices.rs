//! The device layer: a read-only tree with `/dev` and the mount points every container has, the uppermost lower layer of its overlay.
//!
//! Device nodes work through it, as the overlay is mounted by the host; so no container needs a `/dev` mount of its own, nor mknod.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fsetxattr, makedev,
    mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::kernel::mount::{self, Setting};

const DIRECTORIES: [(&str, u32); 8] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("dev/pts", 0o755),
    ("dev/shm", 0o1777),
    ("dev/mqueue", 0o1777),
    ("dev/bellows", 0o755),
    ("etc", 0o755),
];
/// Of these nothing of the image's is seen: the first two are mounted on, and `/dev` is the same under every image.
const OPAQUE: [&str; 3] = ["proc", "sys", "dev"];
const NODES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// What an app holds open for writing to say that it works. One in the tree of all is one of its own for each container: a named pipe is
/// its overlay's, which connects nobody beyond. Each init holds the reading end of its own, so that opening it never waits.
const MARK: &str = "dev/bellows/busy";

/// Makes the tree, attached nowhere.
pub fn layer() -> io::Result<OwnedFd> {
    let tree = mount::detached(
        "tmpfs",
        &[Setting::Text("mode", "0755"), Setting::Text("size", "64k")],
        MountAttrFlags::empty(),
    )?;
    fill(tree.as_fd())?;
    Ok(tree)
}

/// Makes everything in a directory, where some of its directories may be already. Umasks do not matter.
pub fn fill(dir: BorrowedFd<'_>) -> io::Result<()> {
    let chmod = |path: &str, mode: u32| chmodat(dir, path, Mode::from_raw_mode(mode), AtFlags::empty());
    for (path, mode) in DIRECTORIES {
        match mkdirat(dir, path, Mode::from_raw_mode(mode)) {
            Err(error) if error != Errno::EXIST => return Err(error.into()),
            _ => chmod(path, mode)?,
        }
    }
    for path in OPAQUE {
        let directory = openat(dir, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
    }
    for (path, major, minor) in NODES {
        mknodat(dir, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))?;
        chmod(path, 0o666)?;
    }
    mknodat(dir, MARK, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    chmod(MARK, 0o666)?;
    for (to, path) in LINKS {
        symlinkat(to, dir, path)?;
    }
    // Last: a directory's date is that of its last entry.
    paths().try_for_each(|path| Ok(utimensat(dir, path, &ALWAYS, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// Everything that [`fill`] makes.
fn paths() -> impl Iterator<Item = &'static str> {
    let directories = DIRECTORIES.into_iter().map(|(path, _)| path);
    let nodes = NODES.into_iter().map(|(path, ..)| path);
    directories.chain(nodes).chain([MARK]).chain(LINKS.into_iter().map(|(_, path)| path))
}

/// The date of what is made and not the image's: the same on every node at any time.
pub const ALWAYS: Timestamps = date(0, 0);

/// Last use and last change.
pub const fn date(seconds: i64, nanoseconds: i64) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: at, last_modification: at }
}

/// Gives everything that [`fill`] made to one user and its group.
pub fn give(dir: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    paths().try_for_each(|path| {
        chownat(dir, path, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    })
}

/// The tree with its owners shifted: a copy of the shared one where the kernel copies detached trees (6.15), else one of its own.
pub fn shifted(shared: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = match mount::copy_of(shared, c"") {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => layer()?,
        other => other?,
    };
    mount::shift_owners(copy.as_fd(), userns)?;
    Ok(copy)
}
