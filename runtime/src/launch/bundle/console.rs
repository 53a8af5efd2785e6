//! A pseudo terminal out of the container's own devpts: its outer end goes out by the console socket, its inner end is what the program talks to.

use super::super::child::{at, call};
use super::{Bundled, mounts, pass};
use crate::oci::Target;

const MULTIPLEXER: u64 = libc::makedev(5, 2);

/// After the host's tree is gone and with the process in a session of its own, whose terminal this becomes.
pub fn open(bundled: &Bundled, target: &Target, uid: u32, size: Option<(u16, u16)>) -> isize {
    let outer = multiplexer();
    if outer < 0 {
        return outer;
    }
    let unlocked = 0_i32;
    let unlock = ioctl(outer, libc::TIOCSPTLCK as usize, &raw const unlocked as usize);
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let inner = ioctl(outer, libc::TIOCGPTPEER as usize, flags as usize);
    if unlock.min(inner) < 0 {
        return unlock.min(inner);
    }
    if let Some((ws_row, ws_col)) = size {
        let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        ioctl(outer, libc::TIOCSWINSZ as usize, &raw const size as usize);
    }
    let owned = call(libc::SYS_fchown, [inner as usize, uid as usize, u32::MAX as usize, 0, 0, 0]);
    let mut result = owned.min(as_console(inner, target)).min(pass::send(bundled.console, outer as i32, c"/dev/ptmx"));
    for stream in 0..3 {
        result = result.min(call(libc::SYS_dup3, [inner as usize, stream, 0, 0, 0, 0]).min(0));
    }
    result.min(ioctl(0, libc::TIOCSCTTY as usize, 0))
}

fn ioctl(fd: isize, request: usize, argument: usize) -> isize {
    call(libc::SYS_ioctl, [fd as usize, request, argument, 0, 0, 0])
}

/// The image may have put anything there: only a multiplexer will do.
fn multiplexer() -> isize {
    let flags = (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    let fd = call(libc::SYS_openat, [libc::AT_FDCWD as isize as usize, at(c"/dev/pts/ptmx"), flags, 0, 0, 0]);
    if fd < 0 {
        return fd;
    }
    // SAFETY: a stat is numbers only, for which zeroes are values.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let known = call(libc::SYS_fstat, [fd as usize, &raw mut stat as usize, 0, 0, 0, 0]);
    if known < 0 {
        return known;
    }
    if stat.st_rdev != MULTIPLEXER {
        return -(libc::ENOTTY as isize);
    }
    let blocking = (libc::O_RDWR | libc::O_NOCTTY) as usize;
    let set = call(libc::SYS_fcntl, [fd as usize, libc::F_SETFL as usize, blocking, 0, 0, 0]);
    if set < 0 { set } else { fd }
}

fn as_console(inner: isize, target: &Target) -> isize {
    const CLONE: usize = 1;
    let flags = CLONE | libc::O_CLOEXEC as usize | libc::AT_EMPTY_PATH as usize;
    let tree = call(libc::SYS_open_tree, [inner as usize, at(c""), flags, 0, 0, 0]);
    if tree < 0 { tree } else { mounts::attach(tree as i32, target) }
}
