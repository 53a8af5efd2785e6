//! Hooks that run in the container's namespaces: children of its first process, which waits for them with a bound.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::child::{Shared, at, call, exit};
use super::Bundled;
use crate::kernel::sys::clone_on_stack;
use crate::oci::ChildHook;

/// The longest that is waited for a hook without a timeout of its own: for good.
const FOR_GOOD: usize = 0;

/// What the hook's process looks at.
struct Call<'a> {
    hook: &'a ChildHook,
    argv: [usize; MOST_WORDS],
    envp: [usize; MOST_WORDS],
    state: i32,
    released: AtomicU32,
}

/// Of arguments, and of environment entries: pointers to them are put on this process's stack.
pub const MOST_WORDS: usize = 256;

/// Runs one with the container's state as its standard input. Anything but exit code 0 is a failure, as the specification wants.
pub fn run(shared: &Shared<'_>, bundled: &Bundled, hook: &ChildHook, state: i32) -> isize {
    let mut call_of = Call { hook, argv: [0; MOST_WORDS], envp: [0; MOST_WORDS], state, released: AtomicU32::new(1) };
    for (to, from) in call_of.argv.iter_mut().zip(&hook.args) {
        *to = at(from);
    }
    for (to, from) in call_of.envp.iter_mut().zip(&hook.env) {
        *to = at(from);
    }
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD) as usize;
    let context = &raw const call_of as usize;
    // SAFETY: the stack is used by nobody else until this process starts a program, `body` keeps the rules, CLONE_VFORK keeps this process waiting.
    let pid =
        unsafe { clone_on_stack(flags, shared.program_stack_top, call_of.released.as_ptr() as usize, body, context) };
    if pid < 0 {
        return pid;
    }
    match await_end(pid as usize, hook.timeout_s) {
        Ok(status) => {
            bundled.hook_status.store(status, Ordering::Release);
            if status == 0 { 0 } else { -(libc::ECANCELED as isize) }
        }
        Err(errno) => {
            bundled.hook_status.store(-1, Ordering::Release);
            errno
        }
    }
}

fn await_end(pid: usize, timeout_s: Option<u64>) -> Result<i32, isize> {
    let pidfd = call(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]);
    let mut in_time = pidfd;
    if pidfd >= 0 {
        let mut look = libc::pollfd { fd: pidfd as i32, events: libc::POLLIN, revents: 0 };
        let limit = [timeout_s.unwrap_or(0), 0];
        let limit = if timeout_s.is_some() { &raw const limit as usize } else { FOR_GOOD };
        in_time = call(libc::SYS_ppoll, [&raw mut look as usize, 1, limit, 0, 8, 0]);
        call(libc::SYS_close, [pidfd as usize, 0, 0, 0, 0, 0]);
    }
    if in_time <= 0 {
        call(libc::SYS_kill, [pid, libc::SIGKILL as usize, 0, 0, 0, 0]);
    }
    let mut status = 0_i32;
    while call(libc::SYS_wait4, [pid, &raw mut status as usize, 0, 0, 0, 0]) == -(libc::EINTR as isize) {}
    match in_time {
        1.. => Ok(status),
        0 => Err(-(libc::ETIMEDOUT as isize)),
        error => Err(error),
    }
}

/// # Safety
/// `context` is the address of a [`Call`] that lives until this process has executed the hook or ended.
unsafe extern "C" fn body(context: usize) -> ! {
    // SAFETY: `run` waits for this process.
    let call_of = unsafe { &*(context as *const Call<'_>) };
    call(libc::SYS_lseek, [call_of.state as usize, 0, libc::SEEK_SET as usize, 0, 0, 0]);
    call(libc::SYS_dup3, [call_of.state as usize, 0, 0, 0, 0, 0]);
    let none = 0_u64;
    call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const none as usize, 0, 8, 0, 0]);
    let (argv, envp) = (call_of.argv.as_ptr() as usize, call_of.envp.as_ptr() as usize);
    call(libc::SYS_execve, [at(&call_of.hook.path), argv, envp, 0, 0, 0]);
    exit(NOT_EXECUTED)
}

/// As shells tell it.
const NOT_EXECUTED: usize = 127;
