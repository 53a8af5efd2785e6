//! The raft log on a real disk.

use super::checked::{Checked, SyncFailure, drop_torn};
use super::error::StorageError;
use super::mark::{Mark, MarkFile};
use super::snapshot::SnapshotFile;
use crate::state::make_private_folder;
use bellows_member::{Checkpoint, Entry, HardState, LogStorage, Persist, Recovered, Snapshot};
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// raft-engine keeps many groups apart by number; here is one.
const GROUP: u64 = 1;

/// Key of the state record within the group.
const STATE_KEY: &[u8] = b"state";

/// A log file is closed at this size: small enough that dropping old ones frees room soon.
const LOG_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Old files are rewritten or dropped when the log has grown to this.
const PURGE_BYTES: u64 = 4 * LOG_FILE_BYTES;

/// How raft-engine finds an entry's index.
struct RaftEntries;

impl MessageExt for RaftEntries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// Written with every batch, atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StateRecord {
    batch: u64,
    term: u64,
    vote: u64,
    snapshot_index: u64,
}

impl StateRecord {
    fn encode(self) -> Vec<u8> {
        let fields = [self.batch, self.term, self.vote, self.snapshot_index];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.as_chunks::<8>();
        let [batch, term, vote, snapshot_index] = fields else { return None };
        let number = |field: &[u8; 8]| u64::from_le_bytes(*field);
        let record = Self {
            batch: number(batch),
            term: number(term),
            vote: number(vote),
            snapshot_index: number(snapshot_index),
        };
        rest.is_empty().then_some(record)
    }
}

/// [`LogStorage`] on raft-engine. Calls block on the disk: use it from a thread of its own.
pub struct DiskLog<F: FileSystem = DefaultFileSystem> {
    path: PathBuf,
    engine: Engine<Checked<F>>,
    sync_failure: SyncFailure,
    mark: MarkFile,
    snapshot: SnapshotFile,
    state: StateRecord,
    last_index: u64,
    recovered: Option<Recovered>,
    failed: bool,
}

impl DiskLog {
    /// Opens the log in this folder, or makes one, and refuses a log that has lost what was acknowledged.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        Self::open_on(folder, DefaultFileSystem)
    }
}

impl<F: FileSystem> DiskLog<F> {
    /// The same on another file system, such as one that fails when told to.
    pub fn open_on(folder: &Path, files: F) -> Result<Self, StorageError> {
        make_private_folder(folder)
            .map_err(|source| StorageError::NotWritable { path: folder.to_path_buf(), source })?;
        let path = folder.join("log");
        // The mark is read first: opening the engine may shorten a damaged log.
        let (mark, acknowledged) = MarkFile::open(folder)?;
        let (engine, sync_failure) = open_engine(&path, files)?;
        let snapshot = SnapshotFile::new(folder);
        let mut log = Self {
            path,
            engine,
            sync_failure,
            mark,
            snapshot,
            state: StateRecord::default(),
            last_index: 0,
            recovered: None,
            failed: false,
        };
        log.read_back(acknowledged)?;
        Ok(log)
    }

    fn read_back(&mut self, acknowledged: Option<Mark>) -> Result<(), StorageError> {
        self.state = self.read_state()?;
        let entries = self.read_entries()?;
        self.last_index = entries.last().map_or(0, |entry| entry.index);
        self.check_mark(acknowledged)?;
        let snapshot = self.read_snapshot()?;
        let entries = self.join(snapshot.as_ref(), entries)?;
        drop_torn(&self.path).map_err(|source| StorageError::Write { path: self.path.clone(), source })?;
        let hard_state = HardState { term: self.state.term, vote: self.state.vote, ..HardState::default() };
        self.recovered = Some(Recovered { hard_state, snapshot, entries });
        Ok(())
    }

    fn read_state(&self) -> Result<StateRecord, StorageError> {
        let Some(bytes) = self.engine.get(GROUP, STATE_KEY) else { return Ok(StateRecord::default()) };
        StateRecord::decode(&bytes).ok_or_else(|| StorageError::StateRecord { path: self.path.clone() })
    }

    fn read_entries(&self) -> Result<Vec<Entry>, StorageError> {
        let (Some(first), Some(last)) = (self.engine.first_index(GROUP), self.engine.last_index(GROUP)) else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        self.engine
            .fetch_entries_to::<RaftEntries>(GROUP, first, last + 1, None, &mut entries)
            .map_err(|source| StorageError::ReadLog { path: self.path.clone(), first, last, source })?;
        Ok(entries)
    }

    fn check_mark(&self, acknowledged: Option<Mark>) -> Result<(), StorageError> {
        let mark = acknowledged.unwrap_or_default();
        // The first batch of all may be in the log without ever having been marked.
        if acknowledged.is_none() && self.state.batch > 1 {
            return Err(StorageError::MarkLost { path: self.mark.path().to_path_buf() });
        }
        if mark.batch > self.state.batch {
            return Err(StorageError::LogShorter {
                path: self.path.clone(),
                found: self.state.batch,
                found_index: self.last_index,
                acknowledged: mark.batch,
                acknowledged_index: mark.last_index,
            });
        }
        Ok(())
    }

    fn read_snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        let snapshot = self.snapshot.read()?;
        let found = snapshot.as_ref().map(|snapshot| snapshot.get_metadata().index);
        let wanted = self.state.snapshot_index;
        if found.unwrap_or(0) < wanted {
            return Err(StorageError::SnapshotLost { path: self.snapshot.path().to_path_buf(), wanted, found });
        }
        Ok(snapshot)
    }

    /// Entries that lead up to the snapshot and on from it; those that it replaced are dropped from the log.
    fn join(&mut self, snapshot: Option<&Snapshot>, entries: Vec<Entry>) -> Result<Vec<Entry>, StorageError> {
        let (index, term) =
            snapshot.map_or((0, 0), |snapshot| (snapshot.get_metadata().index, snapshot.get_metadata().term));
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(entries) };
        if first > index + 1 {
            return Err(StorageError::Gap { path: self.path.clone(), wanted: index + 1 });
        }
        if let Some(gap) = entries.windows(2).find(|pair| pair[0].index + 1 != pair[1].index) {
            return Err(StorageError::Gap { path: self.path.clone(), wanted: gap[0].index + 1 });
        }
        let at_snapshot = entries.iter().find(|entry| entry.index == index);
        let follows = first == index + 1 || at_snapshot.is_some_and(|entry| entry.term == term);
        if follows {
            return Ok(entries);
        }
        // A received snapshot was stored, and the power went before the log was emptied for it.
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, Command::Compact { index: self.last_index + 1 });
        self.write_synced(&mut batch)?;
        Ok(Vec::new())
    }

    fn write_batch(&mut self, persist: &Persist) -> Result<(), StorageError> {
        if let Some(snapshot) = &persist.install {
            self.snapshot.write(snapshot)?;
        }
        if persist.install.is_some() || persist.hard_state.is_some() || !persist.entries.is_empty() {
            self.append(persist)?;
        }
        if let Some(checkpoint) = &persist.checkpoint {
            self.store_checkpoint(checkpoint)?;
        }
        Ok(())
    }

    fn append(&mut self, persist: &Persist) -> Result<(), StorageError> {
        let mut state = StateRecord { batch: self.state.batch + 1, ..self.state };
        let mut batch = LogBatch::default();
        if let Some(snapshot) = &persist.install {
            state.snapshot_index = snapshot.get_metadata().index;
            batch.add_command(GROUP, Command::Compact { index: self.last_index + 1 });
        }
        if let Some(hard_state) = &persist.hard_state {
            (state.term, state.vote) = (hard_state.term, hard_state.vote);
        }
        let encoded = batch.add_entries::<RaftEntries>(GROUP, &persist.entries);
        encoded
            .and_then(|()| batch.put(GROUP, STATE_KEY.to_vec(), state.encode()))
            .map_err(|source| StorageError::Encode { batch: state.batch, source })?;
        self.write_synced(&mut batch)?;
        self.state = state;
        self.last_index = match persist.entries.last() {
            Some(last) => last.index,
            None if persist.install.is_some() => state.snapshot_index,
            None => self.last_index,
        };
        self.mark.write(Mark { batch: state.batch, last_index: self.last_index })
    }

    fn store_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.snapshot.write(&checkpoint.snapshot)?;
        self.state.snapshot_index = checkpoint.snapshot.get_metadata().index;
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, Command::Compact { index: checkpoint.keep_from_index });
        batch
            .put(GROUP, STATE_KEY.to_vec(), self.state.encode())
            .map_err(|source| StorageError::Encode { batch: self.state.batch, source })?;
        // Synced before old files go: else a power cut could leave their successors without the note that
        // they are not needed.
        self.write_synced(&mut batch)?;
        let purged = self.engine.purge_expired_files();
        purged.map_err(|source| StorageError::Purge { path: self.path.clone(), source })?;
        self.check_sync()
    }

    fn write_synced(&self, batch: &mut LogBatch) -> Result<(), StorageError> {
        let number = self.state.batch + 1;
        let written = self.engine.write(batch, true);
        written.map_err(|source| StorageError::Append { path: self.path.clone(), batch: number, source })?;
        self.check_sync()
    }

    fn check_sync(&self) -> Result<(), StorageError> {
        match self.sync_failure.take() {
            Some(source) => Err(StorageError::Sync { path: self.path.clone(), source }),
            None => Ok(()),
        }
    }
}

impl<F: FileSystem> LogStorage for DiskLog<F> {
    type Error = StorageError;

    fn recover(&mut self) -> Result<Recovered, StorageError> {
        // Read when the log was opened. A second start needs a second look at the disk, hence a second open.
        self.recovered.take().ok_or_else(|| StorageError::AfterFailure { path: self.path.clone() })
    }

    fn persist(&mut self, batch: &Persist) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::AfterFailure { path: self.path.clone() });
        }
        let outcome = self.write_batch(batch);
        // After a failed write or sync the kernel may have dropped the pages: only reading back tells what is there.
        self.failed = outcome.is_err();
        outcome
    }
}

fn open_engine<F: FileSystem>(path: &Path, files: F) -> Result<(Engine<Checked<F>>, SyncFailure), StorageError> {
    let dir = path.to_str().ok_or_else(|| StorageError::NotUtf8 { path: path.to_path_buf() })?;
    let (files, sync_failure) = Checked::new(files);
    let config = Config {
        dir: dir.to_owned(),
        // A write that was under way at a power cut may leave a torn tail. Whether it was acknowledged, the mark tells.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: 1,
        target_file_size: ReadableSize(LOG_FILE_BYTES),
        purge_threshold: ReadableSize(PURGE_BYTES),
        // A recycled file holds old records behind its new end: they would blur what a torn tail is.
        enable_log_recycle: false,
        ..Config::default()
    };
    let engine = Engine::open_with(config, Arc::new(files), Vec::new())
        .map_err(|source| StorageError::OpenLog { path: path.to_path_buf(), source })?;
    match sync_failure.take() {
        Some(source) => Err(StorageError::Sync { path: path.to_path_buf(), source }),
        None => Ok((engine, sync_failure)),
    }
}
