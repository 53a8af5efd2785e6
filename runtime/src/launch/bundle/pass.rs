//! Descriptors from one process to another, over a socket. The rules of [`super::super::child`] hold.

use std::ffi::CStr;

use super::super::child::{at, call};

/// A control message with one descriptor.
#[repr(C, align(8))]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    fd: i32,
    padding: i32,
}

const LENGTH: usize = 20;

/// Sends one, with a word beside it as the field's sockets take it; below 0 only the word.
pub fn send(socket: i32, fd: i32, word: &CStr) -> isize {
    let mut control = Control { length: LENGTH, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd, padding: 0 };
    let mut part = libc::iovec { iov_base: at(word) as *mut libc::c_void, iov_len: word.to_bytes().len() };
    let mut message = message(&mut part);
    if fd >= 0 {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>();
    }
    let flags = libc::MSG_NOSIGNAL as usize;
    call(libc::SYS_sendmsg, [socket as usize, &raw const message as usize, flags, 0, 0, 0]).min(0)
}

/// Waits for one and takes it; a word alone is an error.
pub fn receive(socket: i32) -> isize {
    let mut control = Control { length: 0, level: 0, kind: 0, fd: -1, padding: 0 };
    let mut word = [0_u8; 16];
    let mut part = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: word.len() };
    let mut message = message(&mut part);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_CMSG_CLOEXEC as usize;
    loop {
        match call(libc::SYS_recvmsg, [socket as usize, &raw mut message as usize, flags, 0, 0, 0]) {
            interrupted if interrupted == -(libc::EINTR as isize) => {}
            error if error < 0 => return error,
            _ if message.msg_flags & libc::MSG_CTRUNC != 0 => return -(libc::EMFILE as isize),
            _ if control.kind == libc::SCM_RIGHTS && control.length == LENGTH => return control.fd as isize,
            _ => return -(libc::ECANCELED as isize),
        }
    }
}

fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a message header is pointers and numbers, for which zeroes are values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}
