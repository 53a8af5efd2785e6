//! The launcher's loop: one request, one reply, until the runtime's end of the socket closes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::attendant;
use super::home::Home;
use super::setup::{self, Descriptors};
use super::weaken::Weaken;
use super::wire::{self, Asked, EnterRequest, Failure, Reply, Request};

/// Body of the hidden subcommand that a launcher is. Returns its exit code once the runtime's socket closes.
pub fn launcher_main() -> i32 {
    main(Vec::new())
}

pub fn main(without: Vec<Weaken>) -> i32 {
    // SAFETY: whoever starts a launcher puts its socket at this descriptor; if not, the first use fails and the launcher ends.
    let socket = unsafe { OwnedFd::from_raw_fd(super::SOCKET_FD) };
    match serve(socket.as_fd(), without) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bellows launcher: {error}");
            1
        }
    }
}

fn serve(socket: BorrowedFd<'_>, without: Vec<Weaken>) -> io::Result<()> {
    close_all_but_the_socket();
    let home = match Home::make(without) {
        Ok(home) => home,
        Err((step, error)) => {
            let failure = Failure { step, cause: error.to_string(), errno: error.raw_os_error(), undo: None };
            return wire::send(socket, &Reply::Failed(failure), &[]);
        }
    };
    wire::send(socket, &Reply::Ready, &[])?;
    let mut buffer = Vec::new();
    while let Some((asked, fds)) = wire::receive::<Asked>(socket, &mut buffer)? {
        match asked {
            Asked::Launch(request) => {
                answer(&home, socket, &request, fds)?;
                if !is_waited_for(socket) {
                    home.scratch.refill(request.spec.limits.scratch_bytes);
                }
            }
            Asked::Enter(request) => enter(&home, socket, &request, fds)?,
        }
    }
    Ok(())
}

/// Whether the next request is there already.
fn is_waited_for(socket: BorrowedFd<'_>) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
}

fn answer(home: &Home, socket: BorrowedFd<'_>, request: &Request, fds: Vec<OwnedFd>) -> io::Result<()> {
    let Some(fds) = Descriptors::sort(fds, request) else {
        let cause = "descriptors are missing".to_owned();
        return wire::send(
            socket,
            &Reply::Failed(Failure { step: "read the request".to_owned(), cause, errno: None, undo: None }),
            &[],
        );
    };
    let mut told = Ok(());
    let done = setup::launch(home, request, fds, |started| {
        let reply = Reply::Started {
            pid: started.pid,
            started_unix_ms: started.started_unix_ms,
            moments_ns: started.moments_ns,
        };
        told = wire::send(socket, &reply, &[started.pidfd.as_fd()]);
        // Its runtime died meanwhile: nobody would ever know it.
        if told.is_err()
            && let Err(error) = rustix::process::pidfd_send_signal(&started.pidfd, rustix::process::Signal::KILL)
        {
            eprintln!("bellows launcher: cannot end process {} that nobody knows: {error}", started.pid);
        }
    });
    match done {
        Ok(()) => told,
        Err(failure) => wire::send(socket, &Reply::Failed(failure), &[]),
    }
}

fn enter(home: &Home, socket: BorrowedFd<'_>, request: &EnterRequest, fds: Vec<OwnedFd>) -> io::Result<()> {
    match attendant::start(home, request, fds) {
        Ok(pidfd) => wire::send(socket, &Reply::Entered, &[pidfd.as_fd()]),
        Err(failure) => wire::send(socket, &Reply::Failed(failure), &[]),
    }
}

/// Whatever the parent left open is not ours to keep, least of all to pass on.
fn close_all_but_the_socket() {
    // SAFETY: called first of all, while nothing above the socket is in use.
    unsafe { libc::syscall(libc::SYS_close_range, super::SOCKET_FD + 1, u32::MAX, 0) };
}
