//! One loop, one writer: the driver owns the core and the raft member. Everything else talks to it through bounded channels.
//!
//! ```text
//!   requests, agents, raft messages, ticks -> core.step -> effects
//!                                   propose |        | orders, answers, events
//!                                           v        v
//!                             member.propose       outboxes, waiting handlers, the ring of events
//!                                           |
//!                             member.ready -> letters, batch to the writer, committed commands -> core.step
//! ```
//!
//! The order that makes acknowledged things durable is the member's: it hands out a committed command, and a message that depends on
//! the disk, only after `persisted`. So an answer can never be ahead of the disk.
//!
//! Deliberately absent: locks, and any choice (see the core).

mod effects;
mod event_ring;
mod handle;
mod message;
mod metrics;
mod outbox;
mod proposals;
mod questions;
mod run;
mod sessions;
mod standing;
mod view;
mod writer;

pub(crate) use handle::Handle;
pub(crate) use message::{AgentMessage, Question};
pub(crate) use metrics::Metrics;
pub(crate) use outbox::{Closed, Outbox, outbox};
pub(crate) use run::{DriverParts, start};
pub(crate) use standing::Standing;
pub(crate) use view::{Gauges, Overview};
pub(crate) use writer::{Writer, chain};

/// Why the driver ended by itself. What was acknowledged is on disk; start the controller again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The disk.
    #[error(
        "raft's log can no longer be written ({why}); mend the disk, then start the controller again: nothing acknowledged is lost"
    )]
    Disk {
        /// What the storage said.
        why: String,
    },
    /// The log has something that this version does not understand.
    #[error(
        "entry {index} of raft's log cannot be understood ({why}); was it written by a newer version? Start that one"
    )]
    Entry {
        /// Its place.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The snapshot of the model likewise.
    #[error(
        "the snapshot at entry {index} cannot be understood ({why}); was it written by a newer version? Start that one"
    )]
    Snapshot {
        /// The last entry in it.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A defect.
    #[error("the controller's driver panicked ({why}); start it again and please report this")]
    Panicked {
        /// What it said.
        why: String,
    },
}
