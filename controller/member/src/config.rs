//! What a member is told once, and the bounds on what it takes from others.

use crate::MemberId;
use thiserror::Error;

/// Longest message that is decoded: a snapshot of a large model (10,000 apps of 4 KiB = 40 MiB) with room to spare.
pub const MAX_MESSAGE_BYTES: usize = 96 * 1024 * 1024;

/// Longest command that may be proposed: far above any app file, far below a message.
pub const MAX_COMMAND_BYTES: usize = 4 * 1024 * 1024;

/// Entries per append message end at about this size.
const MAX_APPEND_BYTES: u64 = 1024 * 1024;

/// Append messages on the way to one follower.
const MAX_APPENDS_IN_FLIGHT: usize = 64;

/// Proposals that are not yet committed may hold this much memory.
const MAX_UNCOMMITTED_BYTES: u64 = 64 * 1024 * 1024;

/// Who this member is and how patient.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// All voters of a new group, this member among them. Once a snapshot exists, its list is what counts.
    pub peers: Vec<MemberId>,
    /// Spreads election timeouts; any number, the same on every start.
    pub seed: u64,
    /// Ticks without a leader before an election (each term draws from one to two times this).
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Applied entries after which [`crate::Actions::snapshot_wanted`] asks for a snapshot.
    pub snapshot_after_entries: u64,
    /// Applied entries that are kept behind a snapshot, so that a follower a little behind needs no snapshot.
    pub keep_entries: u64,
}

/// Why a configuration cannot work.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Zero is raft's "nobody".
    #[error("member id 0 is reserved; number members from 1")]
    ZeroId,
    /// A member must be one of its group.
    #[error("member {id} is not among the group's members {peers:?}; add it to the list")]
    NotAPeer {
        /// This member.
        id: MemberId,
        /// The list it was given.
        peers: Vec<MemberId>,
    },
    /// The list of members names one twice.
    #[error("member {id} is listed twice; name each member once")]
    Twice {
        /// The member that is listed twice.
        id: MemberId,
    },
    /// A follower must survive a lost heartbeat.
    #[error(
        "election timeout of {election_ticks} ticks is not above twice the heartbeat of {heartbeat_ticks} ticks (at least 1)"
    )]
    Ticks {
        /// As configured.
        election_ticks: u32,
        /// As configured.
        heartbeat_ticks: u32,
    },
}

impl Config {
    /// A group with the default patience: with a tick of 50 ms a heartbeat each 100 ms and an election after 0.5 to 1 s.
    pub fn new(id: MemberId, peers: Vec<MemberId>, seed: u64) -> Self {
        Self {
            id,
            peers,
            seed,
            election_ticks: 10,
            heartbeat_ticks: 2,
            snapshot_after_entries: 10_000,
            keep_entries: 1_000,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.id.0 == 0 || self.peers.iter().any(|peer| peer.0 == 0) {
            return Err(ConfigError::ZeroId);
        }
        if !self.peers.contains(&self.id) {
            return Err(ConfigError::NotAPeer { id: self.id, peers: self.peers.clone() });
        }
        let mut sorted = self.peers.clone();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Twice { id: pair[0] });
        }
        let (election_ticks, heartbeat_ticks) = (self.election_ticks, self.heartbeat_ticks);
        if heartbeat_ticks == 0 || election_ticks / 2 < heartbeat_ticks {
            return Err(ConfigError::Ticks { election_ticks, heartbeat_ticks });
        }
        Ok(())
    }

    pub(crate) fn raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.id.0,
            election_tick: self.election_ticks as usize,
            heartbeat_tick: self.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: MAX_APPEND_BYTES,
            max_inflight_msgs: MAX_APPENDS_IN_FLIGHT,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        }
    }

    /// Election timeout of a term: the same for the same seed, member and term, whatever happened in between.
    /// Raft would draw from the thread's generator, which no replay could repeat.
    pub(crate) fn election_timeout_ticks(&self, term: u64) -> usize {
        let mixed = mix(mix(mix(self.seed) ^ self.id.0) ^ term);
        (u64::from(self.election_ticks) + mixed % u64::from(self.election_ticks)) as usize
    }
}

/// The finaliser of splitmix64: every input bit reaches every output bit.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(id: u64, peers: &[u64]) -> Config {
        Config::new(MemberId(id), peers.iter().copied().map(MemberId).collect(), 7)
    }

    #[test]
    fn timeouts_stay_in_range_and_differ_between_members_and_terms() {
        let config_of = |id| config(id, &[1, 2, 3]);
        let draw = |id: u64, term: u64| config_of(id).election_timeout_ticks(term);
        let all: Vec<_> =
            (1..4).flat_map(|id| (0..200).map(move |term| (id, term))).map(|(id, term)| draw(id, term)).collect();
        assert!(all.iter().all(|ticks| (10..20).contains(ticks)));
        for ticks in 10..20 {
            assert!(all.contains(&ticks), "{ticks} is never drawn");
        }
        assert_eq!(draw(1, 5), draw(1, 5));
    }

    #[test]
    fn impossible_groups_are_refused() {
        assert_eq!(config(0, &[0]).check(), Err(ConfigError::ZeroId));
        assert!(matches!(config(4, &[1, 2]).check(), Err(ConfigError::NotAPeer { .. })));
        assert_eq!(config(1, &[1, 2, 2]).check(), Err(ConfigError::Twice { id: MemberId(2) }));
        let hasty = Config { election_ticks: 3, ..config(1, &[1]) };
        assert!(matches!(hasty.check(), Err(ConfigError::Ticks { .. })));
        assert_eq!(config(1, &[1, 2, 3]).check(), Ok(()));
    }
}
