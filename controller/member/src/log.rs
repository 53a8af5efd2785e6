//! The part of the log that raft reads while it runs, in memory.

use crate::storage::Recovered;
use crate::{Entry, HardState, Snapshot};
use raft::eraftpb::ConfState;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// The newest snapshot and the entries around and behind it. All that is in here is on disk or on its way there.
pub(crate) struct Log {
    hard_state: HardState,
    voters: ConfState,
    snapshot: Snapshot,
    /// Without a gap. Entries at or below the snapshot's index are kept for followers that lag a little; the first of
    /// those serves only as the term before the next.
    entries: VecDeque<Entry>,
}

impl Log {
    pub(crate) fn new(recovered: Recovered, peers: ConfState) -> Self {
        let snapshot = recovered.snapshot.unwrap_or_default();
        let voters = if snapshot.is_empty() { peers } else { snapshot.get_metadata().get_conf_state().clone() };
        let mut log = Self { hard_state: recovered.hard_state, voters, snapshot, entries: recovered.entries.into() };
        // A commit index is a hint on disk: what it promises may not have been written when the power went.
        let commit = log.hard_state.commit;
        log.hard_state.commit = commit.min(log.last()).max(log.snapshot_index());
        log
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    pub(crate) fn first(&self) -> u64 {
        match self.entries.front() {
            Some(entry) if entry.index <= self.snapshot_index() => entry.index + 1,
            _ => self.snapshot_index() + 1,
        }
    }

    fn last(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.index).max(self.snapshot_index())
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|entry| entry.index >= first.index) {
            self.entries.pop_back();
        }
        assert_eq!(self.last() + 1, first.index, "raft appends without a gap");
        self.entries.extend(entries.iter().cloned());
    }

    pub(crate) fn install(&mut self, snapshot: Snapshot) {
        self.voters = snapshot.get_metadata().get_conf_state().clone();
        self.snapshot = snapshot;
        self.entries.clear();
    }

    /// Takes over the model's bytes at `index`, forgets what lies more than `keep_entries` behind it, and says
    /// from which index on entries are kept.
    pub(crate) fn checkpoint(&mut self, index: u64, term: u64, model: Vec<u8>, keep_entries: u64) -> u64 {
        let mut snapshot = Snapshot { data: model.into(), ..Snapshot::default() };
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = term;
        snapshot.mut_metadata().set_conf_state(self.voters.clone());
        self.snapshot = snapshot;
        let keep_from_index = index.saturating_sub(keep_entries).max(1);
        while self.entries.front().is_some_and(|entry| entry.index < keep_from_index) {
            self.entries.pop_front();
        }
        keep_from_index
    }

    pub(crate) fn latest_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.entries.front()?.index)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut found: Vec<Entry> = (low..high).filter_map(|index| self.entry(index).cloned()).collect();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if let Some(entry) = self.entry(index) {
            return Ok(entry.term);
        }
        match index {
            _ if index == self.snapshot_index() => Ok(self.snapshot.get_metadata().term),
            _ if index < self.first() => Err(raft::Error::Store(StorageError::Compacted)),
            _ => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.is_empty() || self.snapshot_index() < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}
