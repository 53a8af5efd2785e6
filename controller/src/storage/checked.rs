//! The file system as raft-engine sees it, with one difference: a failed sync is noted instead of ending in a panic
//! inside the engine. Whoever wrote asks for the note before acknowledging anything.

use raft_engine::env::{FileSystem, Handle};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// First failure that was not told yet.
#[derive(Clone, Default)]
pub(super) struct SyncFailure(Arc<Mutex<Option<io::Error>>>);

impl SyncFailure {
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// `F` with its failed syncs noted.
pub(super) struct Checked<F> {
    inner: F,
    failure: SyncFailure,
}

impl<F> Checked<F> {
    pub(super) fn new(inner: F) -> (Self, SyncFailure) {
        let failure = SyncFailure::default();
        (Self { inner, failure: failure.clone() }, failure)
    }
}

/// An open file of `F`.
pub(super) struct CheckedHandle<H> {
    inner: Arc<H>,
    failure: SyncFailure,
}

impl<H: Handle> Handle for CheckedHandle<H> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        if let Err(error) = self.inner.sync() {
            self.failure.note(error);
        }
        Ok(())
    }
}

impl<F: FileSystem> Checked<F> {
    fn handle(&self, inner: F::Handle) -> CheckedHandle<F::Handle> {
        CheckedHandle { inner: Arc::new(inner), failure: self.failure.clone() }
    }
}

impl<F: FileSystem> FileSystem for Checked<F> {
    type Handle = CheckedHandle<F::Handle>;
    type Reader = F::Reader;
    type Writer = F::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        self.inner.create(path).map(|handle| self.handle(handle))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: raft_engine::env::Permission) -> io::Result<Self::Handle> {
        self.inner.open(path, permission).map(|handle| self.handle(handle))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.inner.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        self.inner.new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        self.inner.new_writer(handle.inner.clone())
    }
}
