//! Everything a member can refuse.

use crate::MemberId;
use crate::config::{ConfigError, MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES};
use thiserror::Error;

/// Why a member did not start.
#[derive(Debug, Error)]
pub enum StartError<E: std::error::Error + 'static> {
    /// The configuration contradicts itself.
    #[error("member configuration cannot work")]
    Config(#[source] ConfigError),
    /// The disk.
    #[error("cannot read back the log of member {id}")]
    Recover {
        /// This member.
        id: MemberId,
        /// What the storage said.
        #[source]
        source: E,
    },
    /// Raft does not take what the disk holds.
    #[error("raft refuses the recovered state of member {id}")]
    Raft {
        /// This member.
        id: MemberId,
        /// What raft said.
        #[source]
        source: raft::Error,
    },
}

/// Why a message was not stepped. None of these harms the member.
#[derive(Debug, Error)]
pub enum StepError {
    /// Longer than any honest message.
    #[error("message of {bytes} bytes is over the limit of {MAX_MESSAGE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a message.
    #[error("message of {bytes} bytes cannot be decoded")]
    Decode {
        /// Its length.
        bytes: usize,
        /// What was wrong with it.
        #[source]
        source: protobuf::ProtobufError,
    },
    /// Meant for another member, or by nobody of this group.
    #[error("message from {from} to {to} does not belong to member {id}")]
    Stray {
        /// Its sender.
        from: MemberId,
        /// Its addressee.
        to: MemberId,
        /// This member.
        id: MemberId,
    },
    /// Raft does not take it.
    #[error("raft refuses the message from {from}")]
    Raft {
        /// Its sender.
        from: MemberId,
        /// What raft said.
        #[source]
        source: raft::Error,
    },
}

/// Why a command was not taken. It is certain that it will not be committed.
#[derive(Debug, Error)]
pub enum ProposeError {
    /// Ask the leader, if there is one.
    #[error("this member is not the leader ({})", match leader { Some(id) => format!("{id} is"), None => "none is known".to_owned() })]
    NotLeader {
        /// Whom to ask.
        leader: Option<MemberId>,
    },
    /// Empty commands are raft's own.
    #[error("a command may not be empty")]
    Empty,
    /// More than a log should hold in one entry.
    #[error("command of {bytes} bytes is over the limit of {MAX_COMMAND_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too much is waiting to be committed.
    #[error("too many commands wait to be committed; try again when some are")]
    Busy,
}

/// Why a snapshot was not taken over.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompactError {
    /// Only what is applied can be in a snapshot.
    #[error("snapshot at index {index} is ahead of the last applied entry {applied}")]
    Ahead {
        /// As given.
        index: u64,
        /// The last one that was handed out.
        applied: u64,
    },
    /// Nothing to gain.
    #[error("snapshot at index {index} is not newer than the present one at {present}")]
    Old {
        /// As given.
        index: u64,
        /// That of the snapshot in use.
        present: u64,
    },
}
