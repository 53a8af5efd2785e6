//! Ends of containers, told by their pidfds: one thread waits for all of them at once.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bellows_agent_core::ReplicaId;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::worker::{Job, Queue};

/// The key of the descriptor that says "close"; containers count from 1.
const CLOSE: u64 = 0;

/// Descriptors that are waited for, and whose they are.
pub(crate) struct Exits {
    epoll: Epoll,
    close: EventFd,
    watched: Mutex<Watched>,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Watched {
    last: u64,
    attempts: BTreeMap<u64, (ReplicaId, u32, OwnedFd)>,
}

impl Exits {
    pub(crate) fn new(queue: Arc<Queue>) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let close = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&close, EpollEvent::new(EpollFlags::EPOLLIN, CLOSE))?;
        Ok(Self { epoll, close, watched: Mutex::default(), queue })
    }

    /// Reaps the attempt when its pidfd becomes readable.
    pub(crate) fn watch(&self, replica: ReplicaId, attempt: u32, pidfd: OwnedFd) {
        let mut watched = self.lock();
        watched.last += 1;
        let key = watched.last;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, key);
        match self.epoll.add(&pidfd, event) {
            Ok(()) => drop(watched.attempts.insert(key, (replica, attempt, pidfd))),
            Err(error) => {
                tracing::error!(%replica, attempt, %error, "cannot wait for a container's end with the others; a worker waits for it");
                self.queue.push(Job::Reap { replica, attempt });
            }
        }
    }

    /// Whatever has not ended is no longer waited for.
    pub(crate) fn close(&self) {
        if let Err(error) = self.close.write(1) {
            tracing::error!(%error, "cannot wake the thread that waits for ends");
        }
    }

    /// Starts the thread that waits.
    pub(crate) fn start(self: Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("exits".to_owned()).spawn(move || self.wait())
    }

    fn wait(&self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(error) => return tracing::error!(%error, "cannot wait for the ends of containers any more"),
            };
            for event in &events[..ready] {
                if event.data() == CLOSE {
                    return;
                }
                self.ended(event.data());
            }
        }
    }

    fn ended(&self, key: u64) {
        let Some((replica, attempt, pidfd)) = self.lock().attempts.remove(&key) else { return };
        drop(pidfd); // closing it also takes it out of the epoll set
        self.queue.push(Job::Reap { replica, attempt });
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
