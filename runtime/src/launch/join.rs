//! Joining a container that runs: its namespaces all at once by its pidfd, its cgroups by descriptors that were opened before.
//!
//! Whoever joins is a fork of the launcher: it cannot be dumped, its memory belongs to the host's user namespace, and so nothing inside, whatever its
//! capabilities there, may trace it or look through its `/proc` entry. It keeps no descriptor but the ones it was given.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

/// Every namespace that a container has.
const ALL: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Enters every namespace of the process behind `pidfd` (children only are in its PID namespace) and becomes root there. The new root directory and
/// working directory are the container's. This process must be single-threaded. Kinds that are `shared` with the host are left out.
pub fn namespaces(pidfd: BorrowedFd<'_>, shared: i32) -> io::Result<()> {
    // SAFETY: plain calls on this single-threaded process, which uses no path, id or memory map of before.
    unsafe {
        checked(libc::syscall(libc::SYS_setns, pidfd.as_raw_fd(), ALL & !shared))?;
        checked(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        checked(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        checked(libc::syscall(libc::SYS_setresuid, 0, 0, 0))?;
        // A change of ids sets this to what the machine's administrator chose (fs.suid_dumpable).
        checked(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).into())?;
        libc::umask(0o022);
    }
    Ok(())
}

/// The files through which a process gets into the container's cgroups: opened on the host's side, as writing is judged by who opened them.
#[derive(Debug)]
pub struct Cgroups(Vec<File>);

impl Cgroups {
    /// From `cgroup.procs` files, or the one directory of a v2 group.
    pub fn of(fds: Vec<OwnedFd>, is_directory: bool) -> io::Result<Self> {
        if !is_directory {
            return Ok(Self(fds.into_iter().map(File::from).collect()));
        }
        let open = |dir: OwnedFd| {
            rustix::fs::openat(&dir, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
        };
        Ok(Self(fds.into_iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Puts a process, by its number as the host counts, into all of them.
    pub fn take(&self, pid: i32) -> io::Result<()> {
        let text = pid.to_string();
        self.0.iter().try_for_each(|mut procs| procs.write_all(text.as_bytes()))
    }
}

/// Closes every descriptor that is not in the list.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: this process is about to use the kept descriptors only; nothing that owned the others is used or dropped again.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
