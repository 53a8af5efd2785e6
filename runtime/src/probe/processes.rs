//! Processes: namespaces, their creation and observation, what they may call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{Row, Tried, optional, required, yes};
use crate::kernel::{namespace, sys};

/// Each namespace but the user's, which is tried with a mapping: its flag, its row.
fn namespaces() -> [(i32, Row); 6] {
    let row = |feature, needed_for| {
        required(feature, needed_for, "a kernel built with it (CONFIG_NAMESPACES); in a container, run it privileged")
    };
    [
        (libc::CLONE_NEWNS, row("mount namespaces", "file systems of its own")),
        (libc::CLONE_NEWPID, row("PID namespaces", "seeing no process but its own")),
        (libc::CLONE_NEWNET, row("network namespaces", "an address of its own")),
        (libc::CLONE_NEWIPC, row("IPC namespaces", "shared memory and queues of its own")),
        (libc::CLONE_NEWUTS, row("UTS namespaces", "a host name of its own")),
        (libc::CLONE_NEWCGROUP, row("cgroup namespaces", "hiding whose neighbour it is")),
    ]
}

pub fn rows() -> Vec<Tried> {
    let users = required(
        "user namespaces",
        "root inside is nobody outside",
        "sysctl -w user.max_user_namespaces=65536; in a container, run it privileged",
    );
    let mut rows = vec![(users, yes(namespace::user_mapping(0x3000_0000)))];
    rows.extend(namespaces().map(|(flag, row)| (row, yes(sys::clone_and_end(flag as u32 as u64, None)))));
    rows.push((
        required("seccomp filters", "the list of allowed system calls", "a kernel built with CONFIG_SECCOMP_FILTER"),
        seccomp(),
    ));
    rows.push((
        required("pidfd", "ends that are noticed, signals that never reach a stranger", "Linux 5.3 or newer"),
        yes(own_pidfd()),
    ));
    rows.push((
        optional(
            "pidfds that are never used twice (pidfs)",
            "knowing a running container again after a restart",
            "the time of its start tells it from others: 15 us more per start (Linux 6.9 and later have it)",
        ),
        pidfs(),
    ));
    rows.push((
        optional(
            "joining all namespaces by pidfd",
            "executing programs in a running container",
            "exec is refused (Linux 5.8 and later have it)",
        ),
        join(),
    ));
    rows.push((required("close_range", "descriptors that no container inherits", "Linux 5.9 or newer"), close_range()));
    rows.push((
        optional(
            "pressure stall information",
            "the node's pressure in reports",
            "reports say nothing of pressure (boot with psi=1)",
        ),
        yes(std::fs::read_to_string("/proc/pressure/cpu")),
    ));
    rows
}

fn seccomp() -> io::Result<String> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")?;
    match actions.split_whitespace().any(|action| action == "errno") {
        true => Ok("yes".to_owned()),
        false => Err(io::Error::other(format!("no refusing with an error number, only {}", actions.trim()))),
    }
}

fn own_pidfd() -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?)
}

fn pidfs() -> io::Result<String> {
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    let system = rustix::fs::fstatfs(own_pidfd()?)?;
    if system.f_type == PID_FS_MAGIC { Ok("yes".to_owned()) } else { Err(io::Error::other("they share one inode")) }
}

/// Into the host name's namespace that this process is in already.
fn join() -> io::Result<String> {
    let own = own_pidfd()?;
    // SAFETY: a plain call; nothing changes.
    match unsafe { libc::syscall(libc::SYS_setns, own.as_fd().as_raw_fd(), libc::CLONE_NEWUTS) } {
        0 => Ok("yes".to_owned()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of descriptors that there cannot be.
fn close_range() -> io::Result<String> {
    // SAFETY: no descriptor has such a number.
    match unsafe { libc::syscall(libc::SYS_close_range, u32::MAX - 1, u32::MAX, 0) } {
        0 => Ok("yes".to_owned()),
        _ => Err(io::Error::last_os_error()),
    }
}
