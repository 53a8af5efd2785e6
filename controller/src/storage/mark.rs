//! The second small file: how far the log reached when it was last acknowledged.

use super::error::StorageError;
use crate::state::sync_folder;
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Each slot on a block of its own: tearing one cannot touch the other.
const SLOT_BYTES: u64 = 4096;

const MAGIC: &[u8; 8] = b"bllwmrk1";

/// magic 8, batch 8, last index 8, checksum 8
const RECORD_BYTES: usize = 32;

/// What was acknowledged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Number of the batch; zero before the first.
    pub(super) batch: u64,
    /// Last entry of the log at that time, for the error's text.
    pub(super) last_index: u64,
}

/// The file with its two slots.
pub(super) struct MarkFile {
    path: PathBuf,
    file: File,
}

impl MarkFile {
    /// Opens the file and reads the newer of its sound slots. A new file has none.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<Mark>), StorageError> {
        let path = folder.join("mark");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| StorageError::NotWritable { path: folder.to_path_buf(), source })?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(StorageError::Locked { path: folder.to_path_buf() });
        }
        let marks = Self { path, file };
        let newest = marks.read().map_err(|source| StorageError::Read { path: marks.path.clone(), source })?;
        let bytes = marks.file.metadata().map(|metadata| metadata.len());
        if bytes.map_err(|source| StorageError::Read { path: marks.path.clone(), source })? == 0 {
            marks.allocate(folder).map_err(|source| StorageError::Write { path: marks.path.clone(), source })?;
        }
        Ok((marks, newest))
    }

    /// Safe when this returns.
    pub(super) fn write(&self, mark: Mark) -> Result<(), StorageError> {
        let offset = (mark.batch % 2) * SLOT_BYTES;
        let written = self.file.write_all_at(&encode(mark), offset).and_then(|()| self.file.sync_data());
        written.map_err(|source| StorageError::Write { path: self.path.clone(), source })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> io::Result<Option<Mark>> {
        let mut newest: Option<Mark> = None;
        for slot in 0..2 {
            let mut record = [0; RECORD_BYTES];
            match self.file.read_exact_at(&mut record, slot * SLOT_BYTES) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            if let Some(mark) = decode(&record) {
                newest = newest.filter(|other| other.batch >= mark.batch).or(Some(mark));
            }
        }
        Ok(newest)
    }

    /// Writes both slots out, so that later writes change data only and need no journal.
    fn allocate(&self, folder: &Path) -> io::Result<()> {
        self.file.write_all_at(&[0; 2 * SLOT_BYTES as usize], 0)?;
        self.file.sync_all()?;
        sync_folder(folder)
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

fn encode(mark: Mark) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(MAGIC);
    record[8..16].copy_from_slice(&mark.batch.to_le_bytes());
    record[16..24].copy_from_slice(&mark.last_index.to_le_bytes());
    let sum = checksum(&record[..24]);
    record[24..].copy_from_slice(&sum);
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Mark> {
    if record[..8] != *MAGIC || record[24..] != checksum(&record[..24]) {
        return None;
    }
    let number = |from: usize| record[from..from + 8].try_into().ok().map(u64::from_le_bytes);
    Some(Mark { batch: number(8)?, last_index: number(16)? })
}
