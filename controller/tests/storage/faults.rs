//! A disk that is full, or that cannot promise to keep what it was given.

use super::disk::{append, entry, open, vote};
use bellows_controller::storage::{DiskLog, StorageError};
use bellows_member::LogStorage;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the disk does from now on.
#[derive(Clone, Default)]
struct Faults {
    full: Arc<AtomicBool>,
    unsyncable: Arc<AtomicBool>,
}

struct Faulty(Faults);

struct FaultyHandle(Arc<<DefaultFileSystem as FileSystem>::Handle>, Faults);

struct FaultyWriter(<DefaultFileSystem as FileSystem>::Writer, Faults);

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        Handle::truncate(&*self.0, offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.0.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.unsyncable.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.sync()
    }
}

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.full.load(Ordering::SeqCst) {
            // The engine tells a full disk by this word.
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for FaultyWriter {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.0.seek(place)
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.0.allocate(offset, size)
    }
}

impl FileSystem for Faulty {
    type Handle = FaultyHandle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = FaultyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<FaultyHandle> {
        Ok(FaultyHandle(Arc::new(DefaultFileSystem.create(path)?), self.0.clone()))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<FaultyHandle> {
        Ok(FaultyHandle(Arc::new(DefaultFileSystem.open(path, permission)?), self.0.clone()))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.0.clone())
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> io::Result<FaultyWriter> {
        Ok(FaultyWriter(DefaultFileSystem.new_writer(handle.0.clone())?, self.0.clone()))
    }
}

fn start(folder: &Path, faults: &Faults) -> DiskLog<Faulty> {
    DiskLog::open_on(folder, Faulty(faults.clone())).expect("a sound log")
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let faults = Faults::default();
    let mut disk = start(folder.path(), &faults);
    disk.persist(&vote(1, 1)).expect("room");
    disk.persist(&append(&[entry(1, 1, "kept")])).expect("room");
    faults.full.store(true, Ordering::SeqCst);
    let error = disk.persist(&append(&[entry(2, 1, "no room")])).expect_err("the disk is full");
    assert!(matches!(error, StorageError::Append { batch: 3, .. }), "{error}");
    assert!(error.to_string().contains("make room and start again"), "{error}");
    faults.full.store(false, Ordering::SeqCst);
    let error = disk.persist(&append(&[entry(2, 1, "later")])).expect_err("needs a new start");
    assert!(matches!(error, StorageError::AfterFailure { .. }), "{error}");
    drop(disk);
    let found = open(folder.path()).and_then(|mut disk| disk.recover()).expect("a sound log");
    assert_eq!(found.entries, [entry(1, 1, "kept")]);
}

#[test]
fn a_failed_sync_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let faults = Faults::default();
    let mut disk = start(folder.path(), &faults);
    disk.persist(&append(&[entry(1, 1, "kept")])).expect("room");
    faults.unsyncable.store(true, Ordering::SeqCst);
    let error = disk.persist(&append(&[entry(2, 1, "perhaps")])).expect_err("the disk is ill");
    assert!(matches!(error, StorageError::Sync { .. }), "{error}");
    assert!(matches!(disk.persist(&vote(2, 2)), Err(StorageError::AfterFailure { .. })));
    drop(disk);
    let found = open(folder.path()).and_then(|mut disk| disk.recover()).expect("a sound log");
    assert_eq!(found.entries[0], entry(1, 1, "kept"));
    assert_eq!(found.hard_state.term, 0);
}
