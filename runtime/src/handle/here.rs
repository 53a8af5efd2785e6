//! A thread that stays on its CPU while it waits for somebody there.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Until dropped, the calling thread runs on the CPU that it runs on now. Whoever is woken from there while that CPU is busy is moved to an idle one, which
/// takes the kernel twice as long as what it was woken for.
#[derive(Debug)]
pub struct Here {
    /// Where it may run.
    before: Option<CpuSet>,
}

impl Here {
    /// A refusal leaves the thread where it may run, which is slower at worst.
    pub fn stay() -> Self {
        let stay = || {
            let before = sched_getaffinity(None).ok()?;
            let mut one = CpuSet::new();
            one.set(sched_getcpu());
            sched_setaffinity(None, &one).ok().map(|()| before)
        };
        Self { before: stay() }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = sched_setaffinity(None, before)
        {
            tracing::warn!(%error, "a thread stays on one CPU");
        }
    }
}
