//! What this kernel offers, found by trying, never by comparing versions. Nothing that is tried outlives its try.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::MountAttrFlags;

use crate::handle::Feature;
use crate::kernel::mount::{self, Setting};
use crate::kernel::{cgroup, namespace};
use crate::launch::{detached_layers, device_layer};

/// What is tried.
type Try = fn() -> io::Result<String>;

struct Row {
    feature: &'static str,
    needed_for: &'static str,
    without: &'static str,
    required: bool,
    attempt: Try,
}

const ROWS: [Row; 10] = [
    Row {
        feature: "user namespaces",
        needed_for: "root inside is nobody outside",
        without: "no container starts",
        required: true,
        attempt: || namespace::user_mapping(0x3000_0000).map(|_| "yes".to_owned()),
    },
    Row {
        feature: "cgroup controllers cpu, memory, pids",
        needed_for: "limits and counters",
        without: "no container starts",
        required: true,
        attempt: controllers,
    },
    Row {
        feature: "mount API (fsopen, fsmount, move_mount)",
        needed_for: "file systems that are attached nowhere but in the container",
        without: "no container starts",
        required: true,
        attempt: || tmpfs().map(|_| "yes".to_owned()),
    },
    Row {
        feature: "id-mapped tmpfs",
        needed_for: "one device layer for all containers",
        without: "each container gets device nodes of its own: 0.1 ms more per start (Linux 6.3 and later have it)",
        required: false,
        attempt: || shifted_tmpfs().map(|_| "yes".to_owned()),
    },
    Row {
        feature: "overlay over detached trees (lowerdir+)",
        needed_for: "roots that are made of what is attached nowhere",
        without: "layers are attached for a moment in the launcher's own mount namespace: 0.2 ms more per start (Linux 6.15 and later have it)",
        required: false,
        attempt: || detached_layers().map(|()| "yes".to_owned()),
    },
    Row {
        feature: "copies of detached trees",
        needed_for: "sharing one device layer",
        without: "each slot makes its own: 50 us and 20 KiB more",
        required: false,
        attempt: || mount::copy_of(tmpfs()?.as_fd(), c"").map(|_| "yes".to_owned()),
    },
    Row {
        feature: "seccomp filters",
        needed_for: "the system call allow-list",
        without: "no container starts",
        required: true,
        attempt: seccomp,
    },
    Row {
        feature: "pidfd",
        needed_for: "ends that are noticed, signals that never reach a stranger",
        without: "no container starts",
        required: true,
        attempt: pidfd,
    },
    Row {
        feature: "network namespaces and veth",
        needed_for: "an address of its own",
        without: "no container starts",
        required: true,
        attempt: || File::open("/proc/self/ns/net").map(|_| "namespaces; veth is tried at the first slot".to_owned()),
    },
    Row {
        feature: "pressure stall information",
        needed_for: "the node's pressure in reports",
        without: "reports say nothing of pressure",
        required: false,
        attempt: || std::fs::read_to_string("/proc/pressure/cpu").map(|_| "yes".to_owned()),
    },
];

/// The table: feature, found, needed for, without.
pub fn features() -> Vec<Feature> {
    let feature = |row: &Row| Feature {
        feature: row.feature.to_owned(),
        found: (row.attempt)().map_err(|error| error.to_string()),
        needed_for: row.needed_for.to_owned(),
        without: row.without.to_owned(),
        required: row.required,
    };
    ROWS.iter().map(feature).collect()
}

fn tmpfs() -> io::Result<std::os::fd::OwnedFd> {
    mount::detached("tmpfs", &[Setting::Text("size", "64k")], MountAttrFlags::empty())
}

fn shifted_tmpfs() -> io::Result<std::os::fd::OwnedFd> {
    let userns = namespace::user_mapping(0x3000_0000)?;
    let tree = device_layer()?;
    mount::shift_owners(tree.as_fd(), userns.as_fd())?;
    Ok(tree)
}

fn controllers() -> io::Result<String> {
    cgroup::found(Path::new("/sys/fs/cgroup")).map_err(io::Error::other)
}

fn seccomp() -> io::Result<String> {
    let allowed = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")?;
    Ok(allowed.trim().to_owned())
}

fn pidfd() -> io::Result<String> {
    let own = rustix::process::getpid();
    rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
    Ok("yes".to_owned())
}
