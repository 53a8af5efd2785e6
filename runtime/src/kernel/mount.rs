//! The mount API by descriptors: file systems and trees that are attached nowhere until a container attaches them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

/// One option of a file system.
#[derive(Debug)]
pub enum Setting<'a> {
    /// `key=value`.
    Text(&'a str, &'a str),
    /// `key` = descriptor.
    Fd(&'a str, BorrowedFd<'a>),
}

/// Makes a file system that is attached nowhere.
pub fn detached(kind: &str, settings: &[Setting<'_>], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = settings.iter().try_for_each(|setting| match setting {
        Setting::Text(key, value) => fsconfig_set_string(context.as_fd(), *key, *value),
        Setting::Fd(key, fd) => fsconfig_set_fd(context.as_fd(), *key, fd),
    });
    configured.and_then(|()| fsconfig_create(context.as_fd())).map_err(|e| explained(context.as_fd(), e.into()))?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A read-only sysfs that shows the calling thread's network, attached nowhere.
pub fn sysfs() -> io::Result<OwnedFd> {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    detached("sysfs", &[], safe | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A proc file system of another PID namespace, attached nowhere (Linux 6.17).
pub fn proc_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    detached("proc", &[Setting::Fd("pidns", namespace)], safe)
}

/// The kernel's own words about a refused file system, where it has any, in place of a bare number.
fn explained(context: BorrowedFd<'_>, error: io::Error) -> io::Error {
    let mut text = [0_u8; 512];
    match rustix::io::read(context, &mut text) {
        Ok(n) if n > 2 => {
            let said = String::from_utf8_lossy(&text[2..n]).trim().to_owned();
            io::Error::new(error.kind(), format!("{error}: {said}"))
        }
        _ => error,
    }
}

/// The name of the file system at `path`, of the mount that lies nearest above it.
pub fn file_system_of(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        Some((before.split(' ').nth(4)?, after.split(' ').next()?))
    });
    // Of two at one place the later one covers the other.
    let above = mounts.filter(|(place, _)| path.starts_with(place));
    above.max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind.to_owned())
}

/// A private copy of the tree at `path` (not of mounts below it), attached nowhere.
pub fn copy_of(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(dir, path, flags)?)
}

/// `struct mount_attr` of mount_setattr.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Shifts the owners of everything in a detached tree by the mapping of a user namespace, and makes it read-only.
pub fn shift_owners(tree: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let set = libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY;
    change(tree, MountAttr { set, clear: 0, propagation: 0, userns: userns.as_raw_fd() as u64 })
}

/// Takes "read-only" from a detached tree.
pub fn make_writable(tree: BorrowedFd<'_>) -> io::Result<()> {
    change(tree, MountAttr { set: 0, clear: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns: 0 })
}

fn change(tree: BorrowedFd<'_>, attr: MountAttr) -> io::Result<()> {
    // SAFETY: the path is a C string and attr has the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a detached tree of the host's becomes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// MOUNT_ATTR_* that are set.
    pub set: u64,
    /// MOUNT_ATTR_* that are taken away.
    pub clear: u64,
    /// MS_SHARED, MS_PRIVATE, ... or 0.
    pub propagation: u64,
    /// Whose mapping shifts the owners.
    pub userns: Option<BorrowedFd<'a>>,
}

/// A private copy of the host's tree at `path`, with all that is mounted below it if wanted, attached nowhere.
pub fn tree_of(path: &std::path::Path, recursive: bool) -> io::Result<OwnedFd> {
    let deep = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(rustix::fs::CWD, path, flags | deep)?)
}

/// Changes the top of a detached tree, or all of it.
pub fn alter(tree: BorrowedFd<'_>, recursive: bool, change: Change<'_>) -> io::Result<()> {
    let idmap = if change.userns.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 };
    let attr = MountAttr {
        set: change.set | idmap,
        clear: change.clear,
        propagation: change.propagation,
        userns: change.userns.map_or(0, |userns| userns.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and attr has the size that is given.
    let result = unsafe {
        let size = size_of::<MountAttr>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
