//! A network of the container's own, made aside while the rest is made ready: of all that a container is, it takes the kernel longest.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

use super::OciError;
use super::aside::{self, Aside};
use crate::launch::bundle::pass;
use crate::launch::child::{at, call};

const WHAT: &str = "make the container's network namespace";

/// One that is being made.
#[derive(Debug)]
pub struct Network {
    /// First, so that it has ended before the rest goes.
    aside: Aside,
    making: &'static Making,
    _ours: UnixStream,
}

#[derive(Debug)]
struct Making {
    /// 0, or minus the error number.
    made: AtomicI32,
    /// Where the network is sent.
    socket: i32,
    /// What is closed when that is done.
    then_closes: Option<i32>,
}

impl Network {
    /// Begins. The network belongs to this process's user namespace, and comes out of the socket as a descriptor. The same thread closes another one
    /// afterwards, for which the kernel takes long too.
    pub fn begin(then_closes: Option<OwnedFd>) -> Result<(Self, OwnedFd), OciError> {
        let (ours, theirs) = UnixStream::pair().map_err(OciError::kernel(WHAT))?;
        let closes = then_closes.as_ref().map(AsRawFd::as_raw_fd);
        let making = Making { made: AtomicI32::new(0), socket: ours.as_raw_fd(), then_closes: closes };
        let making: &'static Making = Box::leak(Box::new(making));
        // SAFETY: `make` keeps the rules, and what it is given is never given back; the socket outlives `aside`.
        let aside = unsafe { Aside::begin(make, making as *const Making as usize) }.map_err(OciError::kernel(WHAT))?;
        // The thread's, from now on.
        let _ = then_closes.map(IntoRawFd::into_raw_fd);
        Ok((Self { aside, making, _ours: ours }, theirs.into()))
    }

    /// Waits until all is done, whatever came of it.
    pub fn settle(&self) {
        self.aside.join();
    }

    /// Waits until it has been sent, or tells why it never will be.
    pub fn finish(self) -> Result<(), OciError> {
        self.settle();
        match self.making.made.load(Ordering::Acquire) {
            0 => Ok(()),
            error => Err(OciError::kernel(WHAT)(std::io::Error::from_raw_os_error(-error))),
        }
    }
}

/// Only this thread is in another network afterwards, and it ends.
///
/// # Safety
/// `making` is the address of a [`Making`] that lives as long as this runs.
unsafe extern "C" fn make(making: usize) -> ! {
    // SAFETY: as promised; only its atomic changes.
    let making = unsafe { &*(making as *const Making) };
    let mut made = call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0, 0, 0]);
    if made >= 0 {
        let (here, flags) = (libc::AT_FDCWD as isize as usize, (libc::O_RDONLY | libc::O_CLOEXEC) as usize);
        made = call(libc::SYS_openat, [here, at(c"/proc/thread-self/ns/net"), flags, 0, 0, 0]);
    }
    let sent = match pass::send(making.socket, made as i32, c"network") {
        // Whoever was to have it is gone, and tells why.
        gone if gone == -(libc::EPIPE as isize) => 0,
        sent => sent,
    };
    if made >= 0 {
        call(libc::SYS_close, [made as usize, 0, 0, 0, 0, 0]);
    }
    making.made.store(made.min(sent).min(0) as i32, Ordering::Release);
    if let Some(other) = making.then_closes {
        call(libc::SYS_close, [other as usize, 0, 0, 0, 0, 0]);
    }
    aside::end()
}
