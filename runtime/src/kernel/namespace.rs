//! Network namespaces of threads: enter, come back; user namespaces that stand for an id mapping.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

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
    let (mut reader, writer) = io::pipe()?;
    let args = super::sys::CloneArgs {
        flags: (libc::CLONE_NEWUSER | libc::CLONE_FILES) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    let parent = std::process::id() as isize;
    // SAFETY: without CLONE_VM this is a fork; the child only makes the system calls below.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid == 0 {
        let mut byte = 0_u8;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader) as usize;
        // SAFETY: raw calls only: wait until the parent has taken the namespace, then end. The descriptor table is shared, so the pipe
        // says nothing when the parent is killed, and a child that lives on would keep every descriptor open: it dies with its parent.
        unsafe {
            let signal = [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0];
            super::sys::raw(libc::SYS_prctl, signal);
            if super::sys::raw(libc::SYS_getppid, [0; 6]) == parent {
                super::sys::raw(libc::SYS_read, [fd, &raw mut byte as usize, 1, 0, 0, 0]);
            }
            super::sys::raw(libc::SYS_exit_group, [0; 6]);
        }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let taken = take_mapping(pid, first);
    let released = (&writer).write_all(b"x");
    // SAFETY: the pid is our own child, not yet waited for.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    drop(writer);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    released?;
    taken
}

fn take_mapping(pid: libc::c_long, first: u32) -> io::Result<OwnedFd> {
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{file}"), format!("0 {first} 65536"))?;
    }
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}
