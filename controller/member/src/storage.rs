//! What a member needs from a disk.

use crate::{Entry, HardState, Snapshot};

/// A place where a member's log outlives it.
///
/// The member keeps what it needs of the log in memory (it is short: see `snapshot_after_entries`), so a storage only
/// reads at the start and writes afterwards, on a thread of its own where it likes.
pub trait LogStorage {
    /// Why it could not.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads back everything that [`LogStorage::persist`] has acknowledged; possibly more, never less.
    fn recover(&mut self) -> Result<Recovered, Self::Error>;

    /// Writes the parts in the order of the fields and returns when all of them would survive a power cut. After an
    /// error the storage must not be used again: the member is to end and to be started anew.
    fn persist(&mut self, batch: &Persist) -> Result<(), Self::Error>;
}

/// What a member starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Term and vote (all zero on a new disk).
    pub hard_state: HardState,
    /// The newest snapshot, if any.
    pub snapshot: Option<Snapshot>,
    /// The log, without a gap; begins at or before the entry after the snapshot.
    pub entries: Vec<Entry>,
}

/// One thing to write, all of it or a prefix in field order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persist {
    /// To be given to [`crate::Member::persisted`]. Rises.
    pub number: u64,
    /// Received from the leader: store it, forget every entry.
    pub install: Option<Snapshot>,
    /// Term and vote, to be on disk before any message that follows from them.
    pub hard_state: Option<HardState>,
    /// To append. Where the log has an entry at the first one's index already, that and all later ones are replaced.
    pub entries: Vec<Entry>,
    /// Made here: store the snapshot, then forget older entries.
    pub checkpoint: Option<Checkpoint>,
}

/// A snapshot of this member's own model.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// To store.
    pub snapshot: Snapshot,
    /// Entries below this index may go, once the snapshot is safe.
    pub keep_from_index: u64,
}
