//! Descriptors that are kept for when there are no others: what was begun has to be undone then, too, and that opens files.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};

/// An undoing opens one at a time; other threads may take some of them meanwhile.
const KEPT: usize = 8;

#[derive(Debug)]
pub struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    pub fn keep() -> io::Result<Self> {
        let mut kept = Vec::with_capacity(KEPT);
        fill(&mut kept)?;
        Ok(Self(Mutex::new(kept)))
    }

    /// Does something while they are free.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
        let done = work();
        if let Err(error) = fill(&mut kept) {
            tracing::debug!(%error, "fewer descriptors are kept in reserve");
        }
        done
    }
}

fn fill(kept: &mut Vec<OwnedFd>) -> io::Result<()> {
    while kept.len() < KEPT {
        kept.push(open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    Ok(())
}
