//! File trees of containers that have ended.
//!
//! The kernel takes a container's mounts apart when nobody has their namespace any more, and waits for all CPUs twice meanwhile: a quarter of what a
//! short life takes. So the namespace is kept by a descriptor beyond the last process, and that is closed here, while the next container is launched
//! already. Until then what the trees hold is charged to the slot's cgroup, so the slot comes back afterwards.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::kernel::namespace;

/// So many wait at most; whoever brings one more does it alone.
const MOST: usize = 12;

/// Of so many containers the trees are kept at a time: each is a descriptor, and a thousand containers need nearly all that a process may have.
const KEPT: usize = 128;
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The file trees of one container.
#[derive(Debug)]
pub struct Trees(#[allow(dead_code, reason = "kept to be dropped")] OwnedFd);

impl Trees {
    /// Of a container by its first process, where the kernel gives them out (Linux 6.11) and not too many are kept already.
    pub fn of(pidfd: BorrowedFd<'_>) -> Option<Self> {
        (HELD.load(Ordering::Relaxed) < KEPT).then(|| namespace::mounts_of(pidfd).ok()).flatten().map(Self::keep)
    }

    fn keep(namespace: OwnedFd) -> Self {
        HELD.fetch_add(1, Ordering::Relaxed);
        Self(namespace)
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Trees to let go of, and what becomes of `T` then.
pub struct Remains<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    gone: Condvar,
    then: Box<dyn Fn(T) + Send + Sync>,
}

struct State<T> {
    waiting: Vec<(Trees, T)>,
    /// The thread is at work on some.
    busy: bool,
    closing: bool,
}

impl<T: Send + 'static> Remains<T> {
    /// `then` gets what came with each tree, once that is gone.
    pub fn start(then: impl Fn(T) + Send + Sync + 'static) -> std::io::Result<Self> {
        let state = Mutex::new(State { waiting: Vec::new(), busy: false, closing: false });
        let (changed, gone) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, gone, then: Box::new(then) });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("remains".to_owned()).spawn(move || for_thread.serve())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Trees that nobody uses any more.
    pub fn take(&self, trees: Trees, rest: T) {
        let mut state = self.shared.lock();
        if state.waiting.len() < MOST && !state.closing {
            state.waiting.push((trees, rest));
            if state.waiting.len() == 1 && !state.busy {
                self.shared.changed.notify_one();
            }
        } else {
            drop(state);
            self.shared.let_go((trees, rest));
        }
    }

    /// Returns when at least one is gone that was not; false when there is none.
    pub fn hurry(&self) -> bool {
        let mut state = self.shared.lock();
        if let Some(one) = state.waiting.pop() {
            drop(state);
            self.shared.let_go(one);
            return true;
        }
        let busy = state.busy;
        drop(self.shared.gone.wait_while(state, |state| state.busy).unwrap_or_else(PoisonError::into_inner));
        busy
    }

    /// Returns when none is left of those that came before.
    pub fn settle(&self) {
        while self.hurry() {}
    }

    /// As [`Self::settle`]; whoever comes later does it alone.
    pub fn close(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that lets go of file trees had panicked");
        }
        self.settle();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go(&self, (trees, rest): (Trees, T)) {
        drop(trees);
        (self.then)(rest);
    }

    /// The thread.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.closing {
            if state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let batch = std::mem::take(&mut state.waiting);
            state.busy = true;
            drop(state);
            batch.into_iter().for_each(|one| self.let_go(one));
            state = self.lock();
            state.busy = false;
            self.gone.notify_all();
        }
    }
}

impl<T> std::fmt::Debug for Remains<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tree() -> Trees {
        Trees::keep(std::fs::File::open("/").expect("a folder").into())
    }

    #[test]
    fn each_comes_back_once_whoever_does_it() {
        static BACK: AtomicUsize = AtomicUsize::new(0);
        let mut remains =
            Remains::start(|count: usize| _ = BACK.fetch_add(count, Ordering::Relaxed)).expect("a thread");
        assert!(!remains.hurry());
        for _ in 0..10 * MOST {
            remains.take(tree(), 1);
        }
        remains.settle();
        assert_eq!(BACK.load(Ordering::Relaxed), 10 * MOST);
        remains.take(tree(), 1);
        remains.close();
        remains.take(tree(), 1);
        assert_eq!(BACK.load(Ordering::Relaxed), 10 * MOST + 2);
    }

    #[test]
    fn one_that_comes_to_a_sleeping_thread_does_not_wait_for_another() {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let remains = Remains::start(move |()| tell.send(()).expect("somebody waits")).expect("a thread");
        for _ in 0..3 {
            remains.take(tree(), ());
            told.recv_timeout(Duration::from_secs(10)).expect("its turn came");
        }
    }
}
