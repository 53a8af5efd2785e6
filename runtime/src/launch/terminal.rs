//! A terminal out of the container's own devpts, so that its programs find it under its name, opened without trusting a path in there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::wire::Window;

const MULTIPLEXER: &CStr = c"/dev/pts/ptmx";
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Both ends: the one to look at it from outside, and the program's. Called inside the container's mount namespace.
///
/// The app may have put anything at that path: it is opened without following links and without waiting, and only the multiplexer of a devpts is used.
pub fn open(window: Window, owner: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let outer = rustix::fs::openat2(rustix::fs::CWD, MULTIPLEXER, flags, Mode::empty(), resolve)?;
    check(&outer)?;
    let unlocked = 0_i32;
    // SAFETY: the argument is an int of ours.
    checked(unsafe { libc::ioctl(outer.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: a plain call; the result is a new descriptor of ours or -1.
    let inner = unsafe {
        let fd = libc::ioctl(outer.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        checked(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    resize(&outer, window)?;
    rustix::fs::fchown(&inner, Some(rustix::fs::Uid::from_raw(owner)), None)?;
    Ok((outer, inner))
}

/// Tells the terminal, and by SIGWINCH its programs, its size.
pub fn resize(outer: &OwnedFd, window: Window) -> io::Result<()> {
    let size = libc::winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the argument is a winsize of ours.
    checked(unsafe { libc::ioctl(outer.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

fn check(outer: &OwnedFd) -> io::Result<()> {
    let (system, file) = (rustix::fs::fstatfs(outer)?, rustix::fs::fstat(outer)?);
    let is_device = rustix::fs::FileType::from_raw_mode(file.st_mode) == rustix::fs::FileType::CharacterDevice;
    if system.f_type == DEVPTS_MAGIC && is_device && file.st_rdev == libc::makedev(5, 2) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts/ptmx is not the container's terminal multiplexer"))
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
