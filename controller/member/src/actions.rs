//! What a member wants done.

use crate::MemberId;
use crate::storage::Persist;

/// Everything that has become due since the last call. Carry out in the order of the fields.
#[derive(Debug, Default)]
pub struct Actions {
    /// Bytes for other members. They may be lost, late, doubled or reordered; never changed.
    pub messages: Vec<Letter>,
    /// To write and sync; then call [`crate::Member::persisted`] with its number. May be done while the member goes on.
    pub persist: Option<Persist>,
    /// Replace the model by this one before anything in `committed` is applied.
    pub restore: Option<Restore>,
    /// Commands to apply, in order, each exactly once since start or restore.
    pub committed: Vec<Committed>,
    /// The role, if it is another than last told.
    pub role: Option<Role>,
    /// The log behind the last snapshot has grown long: take a snapshot of the model and call [`crate::Member::compact`].
    pub snapshot_wanted: bool,
}

impl Actions {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.persist.is_none()
            && self.restore.is_none()
            && self.committed.is_empty()
            && self.role.is_none()
            && !self.snapshot_wanted
    }
}

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who is to step it.
    pub to: MemberId,
    /// Opaque; authenticated and kept whole by the transport.
    pub bytes: Vec<u8>,
}

/// A command that a quorum holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// As proposed.
    pub command: Vec<u8>,
}

/// A model that replaces the present one: the group has moved on further than its log reaches back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// Last entry that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// As given to [`crate::Member::compact`] by some member.
    pub model: Vec<u8>,
}

/// Where a proposal was put. It is committed when an entry with this index *and* term is; another term at this index
/// means that it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposed {
    /// Its place in the log.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
}

/// What this member is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Elected, and everything committed before is applied. May decide while [`crate::Member::quorum_heard`].
    Leader {
        /// Part of the fence.
        term: u64,
    },
    /// Anything else, also while an election is under way or just won.
    Follower {
        /// Whom to ask instead, if known.
        leader: Option<MemberId>,
    },
}
