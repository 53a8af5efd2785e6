//! Network namespaces of threads: enter, come back; user namespaces that stand for an id mapping.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sys::{CloneArgs, clone3_on_stack, raw, without_signals};

/// The network namespace of the calling thread.
pub fn own_network() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `work` with this thread inside `network` and comes back to `home`: two system calls. A thread that cannot come back must not go on:
/// the process is aborted.
pub fn inside_from<T>(home: BorrowedFd<'_>, network: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
    let back = Back(home);
    let result = work();
    drop(back);
    Ok(result)
}

/// The PID namespace of the process behind `pidfd` (Linux 6.11).
pub fn pids_of(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PIDFD_GET_PID_NAMESPACE: libc::Ioctl = 0xff05;
    namespace_of(pidfd, PIDFD_GET_PID_NAMESPACE)
}

/// Its mount namespace (Linux 6.11).
pub fn mounts_of(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PIDFD_GET_MNT_NAMESPACE: libc::Ioctl = 0xff03;
    namespace_of(pidfd, PIDFD_GET_MNT_NAMESPACE)
}

fn namespace_of(pidfd: BorrowedFd<'_>, which: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: a plain call on a descriptor of ours; the result is a new descriptor or -1.
    match unsafe { libc::ioctl(pidfd.as_raw_fd(), which, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: just made, owned by nobody else.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Runs `work` with another effective user and the same capabilities, which needs SECBIT_NO_SETUID_FIXUP. A process that cannot be itself again must not
/// go on: it is aborted.
pub fn as_user<T>(uid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    // SAFETY: a plain call; the raw one, as only this thread is meant.
    let become_user = |uid: u32| unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
    if become_user(uid) != 0 {
        return Err(io::Error::last_os_error());
    }
    let result = work();
    // A change of ids leaves whether others may look at this process to the machine's administrator (fs.suid_dumpable): they may not.
    // SAFETY: a plain call.
    let closed = || unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if become_user(0) != 0 || closed() != 0 {
        std::process::abort();
    }
    Ok(result)
}

struct Back<'a>(BorrowedFd<'a>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.0, Some(LinkNameSpaceType::Network)) {
            tracing::error!(%error, "a thread cannot return to its network namespace: aborting");
            std::process::abort();
        }
    }
}

/// A user namespace whose only purpose is its mapping: ids 0..65536 inside are `first`.. outside.
pub fn user_mapping(first: u32) -> io::Result<OwnedFd> {
    let map = format!("0 {first} 65536");
    user_mapping_of([&map, &map])
}

/// The same with any mapping of users and one of groups, as `uid_map` takes them.
///
/// Of a process that is at its end before this goes on: until it is waited for, its namespace can be told and taken as that of one that lives.
pub fn user_mapping_of(maps: [&str; 2]) -> io::Result<OwnedFd> {
    let mut stack = [0_u128; OWNER_STACK];
    let args = CloneArgs {
        // In this memory: a copy of its page tables would cost more the larger this process is. It tells nobody of its end, so that nobody but us
        // waits for it.
        flags: (libc::CLONE_NEWUSER | libc::CLONE_FILES | libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: size_of_val(&stack) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the stack lives until the child has let go of it, for which CLONE_VFORK waits; `end` makes a raw call only, and no handler runs on it.
    let pid = without_signals(|| unsafe { clone3_on_stack(&args, end, 0) });
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid as i32));
    }
    let taken = take_mapping(pid as libc::c_long, maps);
    // SAFETY: the pid is our own child, not yet waited for.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), libc::__WALL) };
    taken
}

/// 1 KiB: the child makes one system call.
const OWNER_STACK: usize = 64;

/// # Safety
/// As the body of [`clone3_on_stack`].
unsafe extern "C" fn end(_: usize) -> ! {
    loop {
        // SAFETY: ends the child.
        unsafe { raw(libc::SYS_exit_group, [0; 6]) };
    }
}

fn take_mapping(pid: libc::c_long, maps: [&str; 2]) -> io::Result<OwnedFd> {
    for (file, map) in ["uid_map", "gid_map"].into_iter().zip(maps) {
        std::fs::write(format!("/proc/{pid}/{file}"), map)?;
    }
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}
