//! A network of the container's own, made by a thread while the rest is made ready: of all that a container is, it takes the kernel longest.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::OciError;
use crate::kernel::sys::{CloneArgs, clone3_on_stack};
use crate::launch::bundle::pass;
use crate::launch::child::{at, call, wait_while};

const WHAT: &str = "make the container's network namespace";
const STACK_BYTES: usize = 16 << 10;

/// One that is being made. The thread is the kernel's alone: what a thread of a library is takes longer to begin than half of what this one does.
#[derive(Debug)]
pub struct Network {
    making: Box<Making>,
    _stack: Box<[u128]>,
    _ours: UnixStream,
}

#[derive(Debug)]
struct Making {
    /// Zeroed by the kernel when the thread has ended.
    runs: AtomicU32,
    /// 0, or minus the error number.
    made: AtomicI32,
    /// Where the network is sent.
    socket: i32,
    /// Where the thread is to run.
    cpus: Option<CpuSet>,
}

impl Network {
    /// Begins. The network belongs to this process's user namespace, and comes out of the socket as a descriptor.
    pub fn begin() -> Result<(Self, OwnedFd), OciError> {
        let (ours, theirs) = UnixStream::pair().map_err(OciError::kernel(WHAT))?;
        let making = Box::new(Making {
            runs: AtomicU32::new(1),
            made: AtomicI32::new(0),
            socket: ours.as_raw_fd(),
            cpus: others(),
        });
        let stack = vec![0_u128; STACK_BYTES / size_of::<u128>()].into_boxed_slice();
        let shared = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_SYSVSEM;
        let flags = shared | libc::CLONE_THREAD | libc::CLONE_CHILD_CLEARTID;
        let args = CloneArgs {
            flags: flags as u64,
            child_tid: making.runs.as_ptr() as u64,
            stack: stack.as_ptr() as u64,
            stack_size: STACK_BYTES as u64,
            ..CloneArgs::default()
        };
        // SAFETY: the stack and what is shared live until the thread has ended, as `drop` waits for it; `make` keeps the rules of a child in shared memory.
        let begun = unsafe { clone3_on_stack(&args, make, &raw const *making as usize) };
        if begun < 0 {
            return Err(OciError::kernel(WHAT)(std::io::Error::from_raw_os_error(-begun as i32)));
        }
        // Before it begins, or else by itself. Where it may not be said, it runs where it is.
        if let (Some(cpus), Some(thread)) = (&making.cpus, Pid::from_raw(begun as i32)) {
            let _ = sched_setaffinity(Some(thread), cpus);
        }
        Ok((Self { making, _stack: stack, _ours: ours }, theirs.into()))
    }

    /// Waits until it has been sent, or tells why it never will be.
    pub fn finish(self) -> Result<(), OciError> {
        self.await_end();
        match self.making.made.load(Ordering::Acquire) {
            0 => Ok(()),
            error => Err(OciError::kernel(WHAT)(std::io::Error::from_raw_os_error(-error))),
        }
    }

    fn await_end(&self) {
        loop {
            match self.making.runs.load(Ordering::Acquire) {
                0 => return,
                value => wait_while(&self.making.runs, value),
            }
        }
    }
}

/// All CPUs but this one, if there are others. The kernel tends to begin a thread where it was made: behind whoever made it, or in its place.
fn others() -> Option<CpuSet> {
    let mut cpus = sched_getaffinity(None).ok()?;
    cpus.unset(sched_getcpu());
    (cpus.count() > 0).then_some(cpus)
}

impl Drop for Network {
    fn drop(&mut self) {
        self.await_end();
    }
}

/// Only this thread is in another network afterwards, and it ends.
///
/// # Safety
/// `making` is the address of a [`Making`] that lives until `runs` is 0.
unsafe extern "C" fn make(making: usize) -> ! {
    // SAFETY: as promised; only its atomics change.
    let making = unsafe { &*(making as *const Making) };
    if let Some(cpus) = &making.cpus {
        call(libc::SYS_sched_setaffinity, [0, size_of::<CpuSet>(), cpus as *const CpuSet as usize, 0, 0, 0]);
    }
    let mut made = call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0, 0, 0]);
    if made >= 0 {
        let (here, flags) = (libc::AT_FDCWD as isize as usize, (libc::O_RDONLY | libc::O_CLOEXEC) as usize);
        made = call(libc::SYS_openat, [here, at(c"/proc/thread-self/ns/net"), flags, 0, 0, 0]);
    }
    let sent = pass::send(making.socket, made as i32, c"network");
    if made >= 0 {
        call(libc::SYS_close, [made as usize, 0, 0, 0, 0, 0]);
    }
    making.made.store(made.min(sent).min(0) as i32, Ordering::Release);
    loop {
        call(libc::SYS_exit, [0; 6]);
    }
}
