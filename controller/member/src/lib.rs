//! Bellows: one raft member, synchronous and deterministic.
//!
//! [`Member`] wraps raft's `RawNode`. It reads no clock, opens no file or socket and draws no random number: the
//! driver calls [`Member::tick`], [`Member::step`] and [`Member::propose`], and after each drains what has to happen
//! from [`Member::ready`]. The live controller and the simulator are two drivers around the same code.
//!
//! ```text
//!              tick, step, propose, campaign, compact
//!                            |
//!   storage.recover -> [ Member ] -> ready() -> Actions
//!                            ^                    | messages   send, in any order, lossy
//!                            |                    | persist    storage.persist (write and sync), then
//!                            +---- persisted(n) --+            persisted(number); ready() again
//!                                                 | restore    replace the model
//!                                                 | committed  apply to the model, in order
//!                                                 | role       only now act on it
//! ```
//!
//! What must not be sent before it is on disk is held back in here until [`Member::persisted`]: a driver cannot
//! get that order wrong. A leader is announced only when it has applied everything that was committed before its
//! term, so that no decision is made on an old model.
//!
//! Deliberately absent: commands' meaning (bytes in, bytes out), transport, time, and forwarding of proposals (a
//! follower refuses and names the leader).

mod actions;
mod config;
mod errors;
mod log;
mod member;
mod memory;
mod storage;

pub use actions::{Actions, Committed, Letter, Proposed, Restore, Role};
pub use config::{Config, ConfigError, MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES};
pub use errors::{CompactError, ProposeError, StartError, StepError};
pub use member::Member;
pub use memory::{MemoryLog, MemoryLogError};
pub use storage::{Checkpoint, LogStorage, Persist, Recovered};

/// Raft's own records, as a [`LogStorage`] stores them.
pub use raft::eraftpb::{Entry, HardState, Snapshot};

use std::fmt;

/// One controller of the raft group. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "m{}", self.0)
    }
}
