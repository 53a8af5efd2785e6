//! A foreground command: signals go to the container's process, a terminal's bytes go both ways, and its end is ours.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::oci::OciError;
use crate::oci::create::{self, Console, Live};

/// The first real-time signal that the kernel has for everybody; those before are our C library's.
const LAST_ORDINARY: i32 = 31;

/// All signals, as something to read.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// From now on no signal ends this process. The container's process unblocks them again.
    pub fn take() -> Result<Self, OciError> {
        // SAFETY: the set is ours and initialised by sigfillset; the result is a new descriptor or -1.
        let fd = unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
            libc::signalfd(-1, &all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(OciError::kernel("take signals")(io::Error::last_os_error()));
        }
        // SAFETY: just made, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes a whole structure or nothing.
        let got = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // SAFETY: it wrote a whole one.
        (got == size as isize).then(|| unsafe { info.assume_init() }.ssi_signo as i32)
    }
}

/// Two ends of a socket for a terminal.
pub fn pair() -> Result<(OwnedFd, OwnedFd), OciError> {
    create::pair("make a socket for the terminal")
}

/// Terminal and console socket belong together.
pub fn console(terminal: bool, socket: Option<&Path>) -> Result<Option<Console<'_>>, OciError> {
    match (terminal, socket) {
        (true, Some(path)) => Ok(Some(Console::Socket(path))),
        (false, None) => Ok(None),
        (true, None) => {
            Err(OciError::refused("process.terminal", "a terminal needs somebody who takes it: give --console-socket"))
        }
        (false, Some(_)) => {
            Err(OciError::refused("process.terminal", "is false: there is nothing for --console-socket"))
        }
    }
}

/// Descriptors that are passed on must be there: our own would take their numbers, and be passed on. Those are closed at an execution, which none that a
/// caller passes is.
pub fn check_preserved(count: u32) -> Result<(), OciError> {
    for fd in (3..).take(count as usize) {
        // SAFETY: a plain question.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            let what = format!("pass on descriptor {fd}, which --preserve-fds {count} asks for");
            return Err(OciError::kernel(what)(io::Error::from_raw_os_error(libc::EBADF)));
        }
    }
    Ok(())
}

/// Until its process ends: what it ended with, as a shell tells it.
pub fn foreground(live: &Live, signals: &Signals, terminal: Option<OwnedFd>) -> Result<i32, OciError> {
    let terminal = terminal.map(receive).transpose()?;
    let raw = terminal.as_ref().map(|_| Raw::make());
    let mut input_open = true;
    loop {
        let mut look = vec![
            PollFd::from_borrowed_fd(live.pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN),
        ];
        // SAFETY: standard input stays open as long as this process.
        let input = unsafe { BorrowedFd::borrow_raw(0) };
        if let Some(terminal) = &terminal {
            look.push(PollFd::from_borrowed_fd(terminal.as_fd(), PollFlags::IN));
            if input_open {
                look.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
            }
        }
        match poll(&mut look, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(|error| OciError::kernel("wait for the container")(error.into()))?,
        };
        let ready: Vec<bool> = look.iter().map(|one| !one.revents().is_empty()).collect();
        if let Some(terminal) = &terminal {
            if ready[2] {
                pass(terminal.as_fd(), 1);
            }
            if input_open && ready[3] {
                input_open = pass(input, terminal.as_raw_fd());
            }
        }
        if ready[1] {
            forward(live, signals, terminal.as_ref());
        }
        if ready[0] {
            while terminal.as_ref().is_some_and(|terminal| pass(terminal.as_fd(), 1)) {}
            drop(raw);
            return ended(live);
        }
    }
}

fn ended(live: &Live) -> Result<i32, OciError> {
    let status = waitid(WaitId::PidFd(live.pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = status.map_err(|error| OciError::kernel("wait for the container's process")(error.into()))?;
    let code = status.as_ref().and_then(|status| status.exit_status());
    let signal = status.as_ref().and_then(|status| status.terminating_signal());
    Ok(code.or(signal.map(|signal| 128 + signal)).unwrap_or(255))
}

fn forward(live: &Live, signals: &Signals, terminal: Option<&OwnedFd>) {
    while let Some(signal) = signals.next() {
        match signal {
            libc::SIGCHLD | libc::SIGPIPE => {}
            libc::SIGWINCH if terminal.is_some() => {
                if let Some(terminal) = terminal {
                    resize(terminal);
                }
            }
            ordinary if ordinary <= LAST_ORDINARY => {
                if let Some(signal) = Signal::from_named_raw(ordinary)
                    && let Err(error) = pidfd_send_signal(&live.pidfd, signal)
                {
                    tracing::debug!(%error, ordinary, "a signal came too late");
                }
            }
            _ => {}
        }
    }
}

/// The terminal's outer end out of the packet that the container's process sent.
fn receive(socket: OwnedFd) -> Result<OwnedFd, OciError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0_u8; 64];
    recvmsg(&socket, &mut [IoSliceMut::new(&mut name)], &mut beside, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| OciError::kernel("receive the terminal")(error.into()))?;
    let found = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let terminal =
        found.ok_or_else(|| OciError::kernel("receive the terminal")(io::ErrorKind::UnexpectedEof.into()))?;
    resize(&terminal);
    Ok(terminal)
}

/// As our own terminal is, if we have one.
fn resize(terminal: &OwnedFd) {
    // SAFETY: the structure is ours; without a terminal of our own nothing is changed.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
        }
    }
}

/// What can be read now, if anything; false at the end.
fn pass(from: BorrowedFd<'_>, to: i32) -> bool {
    let mut look = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(poll(&mut look, Some(&at_once)), Ok(1..)) {
        return false;
    }
    let mut buffer = [0_u8; 8192];
    let Ok(count @ 1..) = rustix::io::read(from, &mut buffer) else { return false };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        // SAFETY: the bytes are ours; the descriptor is a terminal's or standard output, open as long as this process.
        let written = unsafe { libc::write(to, rest.as_ptr().cast(), rest.len()) };
        let Ok(written @ 1..) = usize::try_from(written) else { return false };
        rest = &rest[written.min(rest.len())..];
    }
    true
}

/// Our own terminal passes everything on as it is typed, until dropped.
struct Raw(Option<libc::termios>);

impl Raw {
    fn make() -> Self {
        // SAFETY: the structure is ours; what is no terminal is left as it is.
        unsafe {
            let mut before: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(0, &mut before) != 0 {
                return Self(None);
            }
            let mut raw = before;
            libc::cfmakeraw(&mut raw);
            libc::tcsetattr(0, libc::TCSANOW, &raw);
            Self(Some(before))
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: as it was before.
            unsafe { libc::tcsetattr(0, libc::TCSANOW, before) };
        }
    }
}
