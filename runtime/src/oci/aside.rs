//! A thread for one thing that the kernel takes long for, while this process goes on. It is the kernel's alone: what a thread of a library is takes longer to
//! begin than half of what these do.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu};

use crate::kernel::sys::{Body, CloneArgs, clone3_on_stack, without_signals};
use crate::launch::child::{call, wait_while};

const STACK_BYTES: usize = 16 << 10;

/// A thread; dropping it waits for its end. What it runs on is never given back: there are a few of them in a process that ends soon.
#[derive(Debug)]
pub struct Aside {
    /// Zeroed by the kernel when it has ended.
    runs: &'static AtomicU32,
}

/// What the thread looks at.
struct Work {
    body: Body,
    argument: usize,
    cpus: Option<Cpus>,
}

impl Aside {
    /// Begins `body(argument)`, which ends by [`end`], on another CPU if there is one. The kernel tends to begin a thread where it was made: if behind whoever
    /// made it, it is sent away from here; if in its place, it goes itself.
    ///
    /// # Safety
    /// As [`clone3_on_stack`] wants it of `body`; what `argument` names must live until this is dropped.
    pub unsafe fn begin(body: Body, argument: usize) -> io::Result<Self> {
        let runs: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(1)));
        let work: &'static Work = Box::leak(Box::new(Work { body, argument, cpus: Cpus::now() }));
        let stack: &'static [u128] = Box::leak(vec![0; STACK_BYTES / size_of::<u128>()].into_boxed_slice());
        let shared = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_SYSVSEM;
        let args = CloneArgs {
            flags: (shared | libc::CLONE_THREAD | libc::CLONE_CHILD_CLEARTID) as u64,
            child_tid: runs.as_ptr() as u64,
            stack: stack.as_ptr() as u64,
            stack_size: STACK_BYTES as u64,
            ..CloneArgs::default()
        };
        // Whoever handles this process's signals, or is about to, is another thread.
        // SAFETY: the stack is the thread's alone and, as the work, never given back; the rest is the caller's promise.
        let begun = without_signals(|| unsafe { clone3_on_stack(&args, elsewhere, work as *const Work as usize) });
        if begun < 0 {
            return Err(io::Error::from_raw_os_error(-begun as i32));
        }
        // Behind this thread it would wait until that sleeps.
        if let Some(cpus) = &work.cpus {
            send_away(begun as usize, cpus);
        }
        Ok(Self { runs })
    }
}

impl Aside {
    /// Waits for its end.
    pub fn join(&self) {
        loop {
            match self.runs.load(Ordering::Acquire) {
                0 => return,
                value => wait_while(self.runs, value),
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.join();
    }
}

/// # Safety
/// `work` is the address of a [`Work`] that is never given back, whose body may be run with its argument.
unsafe extern "C" fn elsewhere(work: usize) -> ! {
    // SAFETY: as promised.
    let work = unsafe { &*(work as *const Work) };
    if let Some(cpus) = work.cpus.as_ref().filter(|cpus| cpus.here == this_cpu()) {
        send_away(OWN, cpus);
    }
    // SAFETY: as promised.
    unsafe { (work.body)(work.argument) }
}

fn this_cpu() -> usize {
    let mut cpu = 0_u32;
    call(libc::SYS_getcpu, [&raw mut cpu as usize, 0, 0, 0, 0, 0]);
    cpu as usize
}

/// The end of a body.
pub fn end() -> ! {
    loop {
        call(libc::SYS_exit, [0; 6]);
    }
}

/// Where this thread may run.
#[derive(Debug)]
struct Cpus {
    all: CpuSet,
    here: usize,
    others: CpuSet,
}

impl Cpus {
    /// Nothing where there is only one.
    fn now() -> Option<Self> {
        let (all, here) = (sched_getaffinity(None).ok()?, sched_getcpu());
        let mut others = all;
        others.unset(here);
        (others.count() > 0).then_some(Self { all, here, others })
    }
}

/// For [`send_away`]: the thread that calls it.
const OWN: usize = 0;

/// From this CPU to another one, from where the thread may come back. Where that may not be said, it runs where it is. Fit for bodies, too.
fn send_away(thread: usize, cpus: &Cpus) {
    for set in [&cpus.others, &cpus.all] {
        call(libc::SYS_sched_setaffinity, [thread, size_of::<CpuSet>(), set as *const CpuSet as usize, 0, 0, 0]);
    }
}

/// Closes a descriptor aside; here where no thread can be had.
pub fn close(fd: OwnedFd) -> Option<Aside> {
    // SAFETY: `close_one` makes system calls only, and its argument is a number.
    let aside = unsafe { Aside::begin(close_one, fd.as_raw_fd() as usize) }.ok()?;
    // The thread's, from now on.
    let _ = fd.into_raw_fd();
    Some(aside)
}

/// # Safety
/// `fd` is nobody else's.
unsafe extern "C" fn close_one(fd: usize) -> ! {
    call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
    end()
}
