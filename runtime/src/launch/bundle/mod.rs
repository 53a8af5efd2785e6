//! The steps of a bundle, performed by the container's first process. The rules of [`super::child`] hold: raw system calls, no allocation, no panic.

mod console;
mod hook;
mod mounts;
pub(crate) mod pass;
mod privileges;

pub use hook::MOST_WORDS;

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::child::{self, Shared, at, call};
use crate::oci::BundleStep;

/// What the launching process has opened for the steps of a bundle.
#[derive(Debug)]
pub struct Bundled {
    /// The last stage that the child has reached.
    pub reached: AtomicU32,
    /// What the last hook in the container ended with, as `wait` tells; -1 when its time was over.
    pub hook_status: AtomicI32,
    /// Namespaces given by path.
    pub namespaces: Vec<i32>,
    /// The socket that the network comes from, where it is made apart; else -1.
    pub network: i32,
    /// Trees to attach.
    pub trees: Vec<i32>,
    /// The socket that those come from that are opened later; -1 without.
    pub later: i32,
    /// The fifo that `start` writes to; -1 where nobody waits for it.
    pub start: i32,
    /// The socket that takes the terminal; -1 without.
    pub console: i32,
    /// The container's state as its hooks read it: while it is created, and afterwards.
    pub states: [i32; 2],
    /// Where a failure after `create` is written.
    pub outcome: i32,
    /// Which of the descriptors above are needed after the others are closed, ascending.
    pub kept: Vec<i32>,
}

/// One step, as a system call answers.
pub fn perform(shared: &Shared<'_>, step: &BundleStep) -> isize {
    let Some(bundled) = shared.bundle else { return -(libc::EINVAL as isize) };
    let here = libc::AT_FDCWD as isize as usize;
    match step {
        BundleStep::Wait(stage) => wait(shared, bundled, *stage),
        BundleStep::Tell(stage) => tell(bundled, *stage),
        BundleStep::Enter { namespace, kind } => {
            let fd = bundled.namespaces.get(*namespace).copied().unwrap_or(-1);
            call(libc::SYS_setns, [fd as usize, *kind as usize, 0, 0, 0, 0])
        }
        BundleStep::EnterNetwork => match pass::receive(bundled.network) {
            fd @ 0.. => call(libc::SYS_setns, [fd as usize, libc::CLONE_NEWNET as usize, 0, 0, 0, 0]),
            error => error,
        },
        BundleStep::Unshare(kinds) => call(libc::SYS_unshare, [*kinds as usize, 0, 0, 0, 0, 0]),
        BundleStep::Propagation(flags) | BundleStep::RootPropagation(flags) => {
            call(libc::SYS_mount, [0, at(c"/"), 0, *flags as usize, 0, 0])
        }
        BundleStep::AttachRoot(path) => mounts::attach_root(shared, path),
        BundleStep::Mount { kind, source, target, flags, data, propagation } => {
            mounts::mount(target, [at(source), at(kind), *flags as usize, at(data)], *propagation)
        }
        BundleStep::Attach { tree, target } => match bundled.trees.get(*tree) {
            Some(tree) => mounts::attach(*tree, target),
            None => -(libc::EBADF as isize),
        },
        BundleStep::AttachSent(target) => match pass::receive(bundled.later) {
            tree @ 0.. => mounts::attach_directory(tree as i32, target),
            error => error,
        },
        BundleStep::Node { target, mode, device, uid, gid } => mounts::node(target, *mode, *device, [*uid, *gid]),
        BundleStep::Link { to, target } => mounts::link(to, target),
        BundleStep::Sysctl { file, value } => write_file(file, value),
        BundleStep::Domainname(name) => call(libc::SYS_setdomainname, [at(name), name.as_bytes().len(), 0, 0, 0, 0]),
        BundleStep::Mask(path) => mounts::mask(path),
        BundleStep::Protect(path) => mounts::protect(path),
        BundleStep::RootReadOnly => mounts::read_only(c"/", 0),
        BundleStep::Console { target, uid, size } => console::open(bundled, target, *uid, *size),
        BundleStep::Hook { hook, created } => hook::run(shared, bundled, hook, bundled.states[usize::from(*created)]),
        BundleStep::Bounding(mask) => privileges::bounding(*mask),
        BundleStep::KeepCapabilities => call(libc::SYS_prctl, [libc::PR_SET_KEEPCAPS as usize, 1, 0, 0, 0, 0]),
        BundleStep::Capabilities { effective, permitted, inheritable, ambient } => {
            privileges::capabilities(*effective, *permitted, *inheritable, *ambient)
        }
        BundleStep::Limit { resource, soft, hard } => {
            let both = [*soft, *hard];
            call(libc::SYS_prlimit64, [0, *resource as usize, &raw const both as usize, 0, 0, 0])
        }
        BundleStep::Umask(bits) => call(libc::SYS_umask, [*bits as usize, 0, 0, 0, 0, 0]).min(0),
        BundleStep::Personality(persona) => call(libc::SYS_personality, [*persona as usize, 0, 0, 0, 0, 0]).min(0),
        BundleStep::IoPriority(value) => call(libc::SYS_ioprio_set, [1, 0, *value as usize, 0, 0, 0]),
        BundleStep::Filter(flags) => privileges::filter(shared.filter, *flags),
        BundleStep::NoNewPrivileges => call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]),
        BundleStep::CloseFrom(first) => close_from(*first, &bundled.kept),
        BundleStep::Find(candidates) => find(here, candidates),
        BundleStep::WorkingDir(dirs) => child::working_dir(dirs),
        BundleStep::Outlive => call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, 0, 0, 0, 0, 0]),
        BundleStep::AwaitStart => await_start(bundled.start),
    }
}

/// The program's steps in this process. The launching process may have ended: a failure is left where `start` looks.
pub fn become_program(shared: &Shared<'_>) -> isize {
    let result = child::program_steps(shared);
    if let Some(bundled) = shared.bundle.filter(|bundled| bundled.outcome >= 0) {
        let number = shared.failed_step.load(Ordering::Relaxed) as i32;
        let told = [number, -result as i32, bundled.hook_status.load(Ordering::Relaxed)];
        call(libc::SYS_write, [bundled.outcome as usize, &raw const told as usize, size_of_val(&told), 0, 0, 0]);
    }
    result
}

fn tell(bundled: &Bundled, stage: u32) -> isize {
    bundled.reached.store(stage, Ordering::Release);
    child::wake(&bundled.reached);
    0
}

fn wait(shared: &Shared<'_>, bundled: &Bundled, stage: u32) -> isize {
    tell(bundled, stage);
    loop {
        match shared.go.load(Ordering::Acquire) {
            over if over >= stage => return 0,
            before => child::wait_while(&shared.go, before),
        }
    }
}

fn write_file(file: &CString, value: &CString) -> isize {
    let here = libc::AT_FDCWD as isize as usize;
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    let fd = call(libc::SYS_openat, [here, at(file), flags, 0, 0, 0]);
    if fd < 0 {
        return fd;
    }
    let written = call(libc::SYS_write, [fd as usize, at(value), value.as_bytes().len(), 0, 0, 0]);
    call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
    written.min(0)
}

fn close_from(first: u32, kept: &[i32]) -> isize {
    let close = |from: usize, to: usize| match from <= to {
        true => call(libc::SYS_close_range, [from, to, 0, 0, 0, 0]),
        false => 0,
    };
    let mut from = first as usize;
    for fd in kept {
        let fd = *fd as usize;
        if fd >= from {
            let closed = close(from, fd.wrapping_sub(1));
            if closed < 0 {
                return closed;
            }
            from = fd.wrapping_add(1);
        }
    }
    close(from, u32::MAX as usize)
}

/// As `execve` will look: a refusal is kept in mind, "not there" is not.
fn find(here: usize, candidates: &[CString]) -> isize {
    let mut answer = -(libc::ENOENT as isize);
    for candidate in candidates {
        let may_execute =
            call(libc::SYS_faccessat2, [here, at(candidate), libc::X_OK as usize, libc::AT_EACCESS as usize, 0, 0]);
        if may_execute == 0 {
            match is_directory(here, candidate) {
                false => return 0,
                true => answer = -(libc::EACCES as isize),
            }
        } else if may_execute != -(libc::ENOENT as isize) && may_execute != -(libc::ENOTDIR as isize) {
            answer = may_execute;
        }
    }
    answer
}

fn is_directory(from: usize, path: &CStr) -> bool {
    let flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as usize;
    let fd = call(libc::SYS_openat, [from, at(path), flags, 0, 0, 0]);
    if fd >= 0 {
        call(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
    }
    fd >= 0
}

/// The fifo is open for both here, so that it never ends; that it closes with the execution, or with this process, is what `start` waits for.
fn await_start(fifo: i32) -> isize {
    let mut byte = 0_u8;
    loop {
        match call(libc::SYS_read, [fifo as usize, &raw mut byte as usize, 1, 0, 0, 0]) {
            1.. => return 0,
            error if error == -(libc::EINTR as isize) => {}
            error => return error.min(-1),
        }
    }
}
