//! The newest snapshot of the model: one file, replaced as a whole.

use super::error::StorageError;
use crate::state::replace_file;
use bellows_member::Snapshot;
use protobuf::Message as _;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"bllwsnp1";

/// magic 8, sha256 of the rest 32, then raft's record of the snapshot
const HEADER_BYTES: usize = 40;

pub(super) struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotFile {
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join("snapshot") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self) -> Result<Option<Snapshot>, StorageError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StorageError::Read { path: self.path.clone(), source }),
        };
        let damaged = |what| StorageError::SnapshotDamaged { path: self.path.clone(), what };
        if bytes.len() < HEADER_BYTES || bytes[..8] != *MAGIC {
            return Err(damaged("its header is not one"));
        }
        if bytes[8..HEADER_BYTES] != Sha256::digest(&bytes[HEADER_BYTES..])[..] {
            return Err(damaged("its checksum differs"));
        }
        // Sound by its checksum, so it is what raft encoded.
        let snapshot = Snapshot::parse_from_bytes(&bytes[HEADER_BYTES..]);
        snapshot.map(Some).map_err(|_malformed| damaged("its record cannot be decoded"))
    }

    pub(super) fn write(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let failed = |source| StorageError::Write { path: self.path.clone(), source };
        let record = snapshot.write_to_bytes().map_err(|error| failed(error.into()))?;
        let bytes = [&MAGIC[..], &Sha256::digest(&record), &record].concat();
        replace_file(&self.path, &bytes, 0o600).map_err(failed)
    }
}
