//! Mounts below the new root. Targets are resolved with the new root as `/` by the kernel itself (`RESOLVE_IN_ROOT`), so that a link in the image, or one
//! that is exchanged meanwhile, leads nowhere else (CVE-2021-30465); file systems are mounted on the descriptor found, never on a path.

use std::ffi::{CStr, CString};

use super::super::child::{Shared, at, call};
use super::is_directory;
use crate::oci::Target;

const EMPTY_FROM: usize = 4;
const EMPTY_TO: usize = 0x40;
const HERE: usize = libc::AT_FDCWD as isize as usize;

/// Where a target is, open as a path. The descriptor is closed with all others before the program runs.
fn find(path: &CStr) -> isize {
    open_in_root(path, libc::O_PATH | libc::O_CLOEXEC)
}

fn open_in_root(path: &CStr, flags: i32) -> isize {
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let how = How { flags: flags as u64, mode: 0, resolve: libc::RESOLVE_IN_ROOT };
    call(libc::SYS_openat2, [HERE, at(path), &raw const how as usize, size_of::<How>(), 0, 0])
}

/// The same, made where it is missing: a directory, or an empty file.
fn find_or_make(target: &Target, is_directory: bool) -> isize {
    let found = find(&target.path);
    if found != -(libc::ENOENT as isize) {
        return found;
    }
    let parent = parent(target);
    let Some((path, name)) = target.prefixes.last() else { return -(libc::EINVAL as isize) };
    if parent < 0 {
        return parent;
    }
    let made = make(parent, at(path).wrapping_add(*name), is_directory);
    call(libc::SYS_close, [parent as usize, 0, 0, 0, 0, 0]);
    if made < 0 { made } else { find(&target.path) }
}

fn make(parent: isize, name: usize, directory: bool) -> isize {
    if directory {
        return call(libc::SYS_mkdirat, [parent as usize, name, 0o755, 0, 0, 0]);
    }
    call(libc::SYS_mknodat, [parent as usize, name, (libc::S_IFREG | 0o644) as usize, 0, 0, 0])
}

/// Over the directory that the tree came from, as its mount namespace knows no other place; it is gone with the host's tree.
pub fn attach_root(shared: &Shared<'_>, path: &CString) -> isize {
    let root = shared.root as usize;
    match call(libc::SYS_move_mount, [root, at(c""), HERE, at(path), EMPTY_FROM, 0]) {
        0 => call(libc::SYS_fchdir, [root, 0, 0, 0, 0, 0]),
        error => error,
    }
}

/// A tree that is attached nowhere yet, on a directory or file as it is one itself: asked first, as the kernel waits for all CPUs when it takes back a mount
/// that did not fit.
pub fn attach(tree: i32, target: &Target) -> isize {
    attach_on(tree, find_or_make(target, is_directory(tree as usize, c".")))
}

/// One that is known to be a directory.
pub fn attach_directory(tree: i32, target: &Target) -> isize {
    attach_on(tree, find_or_make(target, true))
}

fn attach_on(tree: i32, place: isize) -> isize {
    if place < 0 {
        return place;
    }
    call(libc::SYS_move_mount, [tree as usize, at(c""), place as usize, at(c""), EMPTY_FROM | EMPTY_TO, 0])
}

/// Source, type, flags and data on a target.
pub fn mount(target: &Target, [source, kind, flags, data]: [usize; 4], propagation: u64) -> isize {
    let place = find_or_make(target, true);
    if place < 0 {
        return place;
    }
    let mounted = call(libc::SYS_mount, [source, at_descriptor(place, &mut [0; 32]), kind, flags, data, 0]);
    if mounted < 0 || propagation == 0 {
        return mounted;
    }
    // The descriptor is of what lies under the mount now.
    let top = find(&target.path);
    if top < 0 {
        return top;
    }
    call(libc::SYS_mount, [0, at_descriptor(top, &mut [0; 32]), 0, propagation as usize, 0, 0])
}

/// `/proc/self/fd/N`, of the host's `/proc`.
fn at_descriptor(fd: isize, room: &mut [u8; 32]) -> usize {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    for (to, from) in room.iter_mut().zip(PREFIX) {
        *to = *from;
    }
    let (mut digits, mut rest) = ([0_u8; 12], fd as usize);
    let mut count = 0_usize;
    loop {
        if let Some(digit) = digits.get_mut(count) {
            *digit = b'0' | (rest % 10) as u8;
        }
        count = count.wrapping_add(1);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (to, from) in room.iter_mut().skip(PREFIX.len()).zip(digits.iter().take(count).rev()) {
        *to = *from;
    }
    room.as_ptr() as usize
}

/// A node with exactly these permissions and owners, whatever the umask; one that is there already is what it is.
pub fn node(target: &Target, mode: u32, device: u64, [uid, gid]: [u32; 2]) -> isize {
    let parent = parent(target);
    let Some((path, name)) = target.prefixes.last() else { return -(libc::EINVAL as isize) };
    if parent < 0 {
        return parent;
    }
    let (parent, name) = (parent as usize, at(path).wrapping_add(*name));
    match call(libc::SYS_mknodat, [parent, name, mode as usize, device as usize, 0, 0]) {
        0 => {}
        error if error == -(libc::EEXIST as isize) => return 0,
        error => return error,
    }
    let owned =
        call(libc::SYS_fchownat, [parent, name, uid as usize, gid as usize, libc::AT_SYMLINK_NOFOLLOW as usize, 0]);
    let moded = call(libc::SYS_fchmodat, [parent, name, (mode & 0o7777) as usize, 0, 0, 0]);
    owned.min(moded)
}

/// A link, where nothing stands yet.
pub fn link(to: &CStr, target: &Target) -> isize {
    let parent = parent(target);
    let Some((path, name)) = target.prefixes.last() else { return -(libc::EINVAL as isize) };
    if parent < 0 {
        return parent;
    }
    match call(libc::SYS_symlinkat, [at(to), parent as usize, at(path).wrapping_add(*name), 0, 0, 0]) {
        error if error == -(libc::EEXIST as isize) => 0,
        other => other,
    }
}

/// The directory above, made where it is missing.
fn parent(target: &Target) -> isize {
    let above = target.prefixes.len().saturating_sub(1);
    let found = match target.prefixes.get(above.wrapping_sub(1)) {
        Some((above, _)) => find(above),
        None => return find(c"."),
    };
    if found != -(libc::ENOENT as isize) {
        return found;
    }
    let mut parent = find(c".");
    for (prefix, name) in target.prefixes.iter().take(above) {
        let mut next = find(prefix);
        if next == -(libc::ENOENT as isize) && parent >= 0 {
            let made = make(parent, at(prefix).wrapping_add(*name), true);
            next = if made < 0 { made } else { find(prefix) };
        }
        if next < 0 {
            return next;
        }
        parent = next;
    }
    parent
}

/// After the host's tree is gone: links in the image can lead to the image only. What is not there, or on the way to what is not there, needs no cover.
pub fn mask(path: &CStr) -> isize {
    // Asked first here too; but what it is counts, not what was answered.
    if is_directory(HERE, path) {
        return mask_directory(path);
    }
    match call(libc::SYS_mount, [at(c"/dev/null"), at(path), 0, libc::MS_BIND as usize, 0, 0]) {
        error if error == -(libc::ENOENT as isize) => 0,
        error if error == -(libc::ENOTDIR as isize) => mask_directory(path),
        other => other,
    }
}

/// Not a directory itself, or one on the way to it: the latter means that it is not there.
fn mask_directory(path: &CStr) -> isize {
    match call(libc::SYS_mount, [at(c"tmpfs"), at(path), at(c"tmpfs"), libc::MS_RDONLY as usize, at(c"size=0k"), 0]) {
        error if error == -(libc::ENOTDIR as isize) => 0,
        other => other,
    }
}

/// Over itself, so that only this place is changed.
pub fn protect(path: &CStr) -> isize {
    match call(libc::SYS_mount, [at(path), at(path), 0, (libc::MS_BIND | libc::MS_REC) as usize, 0, 0]) {
        0 => read_only(path, libc::AT_RECURSIVE as usize),
        error if error == -(libc::ENOENT as isize) || error == -(libc::ENOTDIR as isize) => 0,
        error => error,
    }
}

/// Adds "read-only" and takes nothing away.
pub fn read_only(path: &CStr, flags: usize) -> isize {
    let attributes = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
    call(libc::SYS_mount_setattr, [HERE, at(path), flags, &raw const attributes as usize, size_of_val(&attributes), 0])
}
