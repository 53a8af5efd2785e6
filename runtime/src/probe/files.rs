//! File systems and mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::{FsOpenFlags, MountAttrFlags, fsopen};

use super::{Tried, optional, required, yes};
use crate::kernel::mount::{self, Setting};
use crate::kernel::namespace;
use crate::launch::{detached_layers, device_layer};

/// What is mounted in every container.
const FILE_SYSTEMS: [&str; 6] = ["overlay", "tmpfs", "proc", "sysfs", "devpts", "mqueue"];

pub fn rows(images: &Path) -> Vec<Tried> {
    vec![
        (
            required(
                "mount API (fsopen, fsmount, move_mount)",
                "file systems that are attached nowhere but in the container",
                "Linux 5.12 or newer; in a container, run it privileged",
            ),
            yes(tmpfs()),
        ),
        (
            required(
                "file systems overlay, tmpfs, proc, sysfs, devpts, mqueue",
                "the container's root and what belongs in it",
                "modprobe overlay; a kernel built with CONFIG_OVERLAY_FS, CONFIG_POSIX_MQUEUE, CONFIG_DEVPTS_FS",
            ),
            file_systems(),
        ),
        (
            required(
                "id-mapped mounts where images are",
                "one tree of an image for all containers",
                "keep images on ext4, xfs or btrfs (--store)",
            ),
            shifted_images(images),
        ),
        (
            optional(
                "id-mapped tmpfs",
                "one device layer for all containers",
                "each container gets device nodes of its own: 0.1 ms more per start (Linux 6.3 and later have it)",
            ),
            yes(shifted_tmpfs()),
        ),
        (
            optional(
                "overlay over detached trees (lowerdir+)",
                "roots that are made of what is attached nowhere",
                "layers are attached for a moment in the launcher's own mount namespace: 0.2 ms more per start (Linux 6.15 and later have it)",
            ),
            yes(detached_layers()),
        ),
        (
            optional(
                "copies of detached trees",
                "sharing one device layer and one /sys",
                "each slot makes its own: 50 us and 20 KiB more (Linux 6.15 and later have it)",
            ),
            tmpfs().and_then(|tree| yes(mount::copy_of(tree.as_fd(), c""))),
        ),
        (
            optional(
                "/proc of another PID namespace (pidns=)",
                "containers that begin in a mount namespace that holds nothing",
                "each container lets go of its launcher's tree: 50 us more per start (Linux 6.17 and later have it)",
            ),
            yes(foreign_proc()),
        ),
    ]
}

fn foreign_proc() -> io::Result<OwnedFd> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    mount::proc_of(namespace::pids_of(own.as_fd())?.as_fd())
}

fn tmpfs() -> io::Result<OwnedFd> {
    mount::detached("tmpfs", &[Setting::Text("size", "64k")], MountAttrFlags::empty())
}

/// Opening asks for the module where it is one.
fn file_systems() -> io::Result<String> {
    FILE_SYSTEMS.iter().try_for_each(|name| match fsopen(*name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::other(format!("{name}: {error}"))),
    })?;
    Ok("yes".to_owned())
}

fn shifted_tmpfs() -> io::Result<OwnedFd> {
    let userns = namespace::user_mapping(0x3000_0000)?;
    let tree = device_layer()?;
    mount::shift_owners(tree.as_fd(), userns.as_fd())?;
    Ok(tree)
}

fn shifted_images(images: &Path) -> io::Result<String> {
    let there = images.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let kind = mount::file_system_of(there).unwrap_or_else(|| "unknown".to_owned());
    let path = CString::new(there.as_os_str().as_bytes())?;
    let userns = namespace::user_mapping(0x3000_0000)?;
    let tree = mount::copy_of(rustix::fs::CWD, &path)?;
    match mount::shift_owners(tree.as_fd(), userns.as_fd()) {
        Ok(()) => Ok(kind),
        Err(error) => Err(io::Error::other(format!("{} is on {kind}: {error}", there.display()))),
    }
}
