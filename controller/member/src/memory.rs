//! A disk in memory, for the simulator and for tests: it tells what was written from what was synced.

use crate::storage::{LogStorage, Persist, Recovered};
use crate::{Entry, Snapshot};
use std::collections::VecDeque;
use thiserror::Error;

/// Loses in a crash what a real disk may lose: any suffix of the batches that were written and not yet synced.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    synced: Recovered,
    written: VecDeque<Persist>,
}

/// The disk of memory never fails by itself.
#[derive(Debug, Error)]
pub enum MemoryLogError {}

impl MemoryLog {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes without waiting for the disk.
    pub fn write(&mut self, batch: &Persist) {
        self.written.push_back(batch.clone());
    }

    /// Makes everything written so far safe.
    pub fn sync(&mut self) {
        while let Some(batch) = self.written.pop_front() {
            self.apply(batch);
        }
    }

    /// Makes what was written up to this batch safe.
    pub fn sync_up_to(&mut self, number: u64) {
        while self.written.front().is_some_and(|batch| batch.number <= number) {
            if let Some(batch) = self.written.pop_front() {
                self.apply(batch);
            }
        }
    }

    /// Batches that a crash could lose.
    pub fn unsynced(&self) -> usize {
        self.written.len()
    }

    /// The power goes: of the unsynced batches only the first `kept` had reached the disk by themselves.
    pub fn crash(&mut self, kept: usize) {
        self.written.truncate(kept);
        self.sync();
    }

    fn apply(&mut self, batch: Persist) {
        if let Some(snapshot) = batch.install {
            self.synced.snapshot = Some(snapshot);
            self.synced.entries.clear();
        }
        if let Some(hard_state) = batch.hard_state {
            self.synced.hard_state = hard_state;
        }
        append(&mut self.synced.entries, batch.entries);
        if let Some(checkpoint) = batch.checkpoint {
            self.store_checkpoint(checkpoint.snapshot, checkpoint.keep_from_index);
        }
    }

    fn store_checkpoint(&mut self, snapshot: Snapshot, keep_from_index: u64) {
        self.synced.snapshot = Some(snapshot);
        self.synced.entries.retain(|entry| entry.index >= keep_from_index);
    }
}

fn append(log: &mut Vec<Entry>, entries: Vec<Entry>) {
    if let Some(first) = entries.first() {
        log.retain(|entry| entry.index < first.index);
        log.extend(entries);
    }
}

impl LogStorage for MemoryLog {
    type Error = MemoryLogError;

    fn recover(&mut self) -> Result<Recovered, MemoryLogError> {
        self.written.clear();
        Ok(self.synced.clone())
    }

    fn persist(&mut self, batch: &Persist) -> Result<(), MemoryLogError> {
        self.write(batch);
        self.sync();
        Ok(())
    }
}
