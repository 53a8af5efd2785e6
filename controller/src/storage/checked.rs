//! The file system as raft-engine sees it, with two differences. A failed sync is noted instead of ending in a panic
//! inside the engine; whoever wrote asks for the note before acknowledging anything. And what the engine's recovery cuts
//! off a damaged log is kept beside it, so that a refused log is as whole as it was found.

use crate::state::replace_file;
use raft_engine::env::{FileSystem, Handle};
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
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

/// Marks a file that holds what was cut off; the number of the byte where it began follows.
const TORN: &str = ".torn-at-";

/// `F` with its failed syncs noted and its cuts kept.
pub(super) struct Checked<F> {
    inner: Arc<F>,
    failure: SyncFailure,
}

impl<F> Checked<F> {
    pub(super) fn new(inner: F) -> (Self, SyncFailure) {
        let failure = SyncFailure::default();
        (Self { inner: Arc::new(inner), failure: failure.clone() }, failure)
    }
}

/// An open file of `F`.
pub(super) struct CheckedHandle<F: FileSystem> {
    inner: Arc<F::Handle>,
    files: Arc<F>,
    path: PathBuf,
    failure: SyncFailure,
}

impl<F: FileSystem> CheckedHandle<F> {
    fn keep_tail(&self, offset: usize) -> io::Result<()> {
        let mut tail = Vec::new();
        let mut reader = self.files.new_reader(self.inner.clone())?;
        reader.seek(SeekFrom::Start(offset as u64))?;
        reader.read_to_end(&mut tail)?;
        // Room that was allocated ahead and not written is no loss.
        if tail.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!("{TORN}{offset}"));
        replace_file(Path::new(&name), &tail, 0o600)
    }
}

/// Removes what was kept of a log that turned out to be whole.
pub(super) fn drop_torn(log: &Path) -> io::Result<()> {
    for file in fs::read_dir(log)? {
        let file = file?;
        if file.file_name().to_string_lossy().contains(TORN) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

impl<F: FileSystem> Handle for CheckedHandle<F> {
    /// Only recovery shortens a file by its handle.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.keep_tail(offset)?;
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
    fn handle(&self, inner: F::Handle, path: &Path) -> CheckedHandle<F> {
        let (files, path) = (self.inner.clone(), path.to_path_buf());
        CheckedHandle { inner: Arc::new(inner), files, path, failure: self.failure.clone() }
    }
}

impl<F: FileSystem> FileSystem for Checked<F> {
    type Handle = CheckedHandle<F>;
    type Reader = F::Reader;
    type Writer = F::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        self.inner.create(&path).map(|handle| self.handle(handle, path.as_ref()))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: raft_engine::env::Permission) -> io::Result<Self::Handle> {
        self.inner.open(&path, permission).map(|handle| self.handle(handle, path.as_ref()))
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
