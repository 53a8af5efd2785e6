//! The member itself.

use crate::actions::{Actions, Committed, Letter, Proposed, Restore, Role};
use crate::config::{Config, MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES};
use crate::errors::{CompactError, ProposeError, StartError, StepError};
use crate::log::Log;
use crate::storage::{Checkpoint, LogStorage, Persist, Recovered};
use crate::{Entry, MemberId};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole, Storage as _};
use std::collections::{BTreeMap, VecDeque};

/// A snapshot that was not acknowledged in this many election timeouts is taken for lost and sent again.
const SNAPSHOT_ELECTION_TIMEOUTS: u64 = 4;

/// A ready that raft has handed out and that is not known to be on disk.
struct Outstanding {
    number: u64,
    /// Raft's own number of it.
    ready: u64,
    /// Index of the snapshot in it. Raft counts it as applied only when it is safe.
    installed: Option<u64>,
    /// Nothing in it needs the disk; it only waits for its turn.
    durable: bool,
    /// To be sent when its turn comes.
    messages: Vec<Message>,
}

/// One node of the group. See the crate's page for the order of calls.
pub struct Member {
    config: Config,
    node: RawNode<Log>,
    tick: u64,
    outstanding: VecDeque<Outstanding>,
    released: Vec<Message>,
    last_number: u64,
    pending_checkpoint: bool,
    checkpoint_keep_from: u64,
    applied: u64,
    snapshot_asked_at: u64,
    told: Option<Role>,
    /// Tick at which each peer last spoke in the present term.
    heard: BTreeMap<MemberId, u64>,
    heard_term: u64,
    /// Tick at which a snapshot went out to a peer that has not answered it.
    snapshots_sent: BTreeMap<MemberId, u64>,
}

impl Member {
    /// Starts from what the storage holds. The only voter of a group campaigns at once.
    ///
    /// The first [`Member::ready`] hands out the recovered snapshot as `restore`; committed entries follow.
    pub fn new<S: LogStorage>(config: Config, storage: &mut S) -> Result<Self, StartError<S::Error>> {
        config.check().map_err(StartError::Config)?;
        let id = config.id;
        let recovered = storage.recover().map_err(|source| StartError::Recover { id, source })?;
        Self::from_recovered(config, recovered).map_err(|source| StartError::Raft { id, source })
    }

    fn from_recovered(config: Config, recovered: Recovered) -> Result<Self, raft::Error> {
        let peers: Vec<u64> = config.peers.iter().map(|peer| peer.0).collect();
        let voters = ConfState::from((peers, Vec::new()));
        let log = Log::new(recovered, voters);
        let applied = log.snapshot_index();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config.raft(applied), log, &logger)?;
        let mut member = Self {
            config,
            node,
            tick: 0,
            outstanding: VecDeque::new(),
            released: Vec::new(),
            last_number: 0,
            pending_checkpoint: false,
            checkpoint_keep_from: 0,
            applied,
            snapshot_asked_at: applied,
            told: None,
            heard: BTreeMap::new(),
            heard_term: 0,
            snapshots_sent: BTreeMap::new(),
        };
        member.fix_election_timeout();
        if member.is_sole_voter() {
            member.campaign();
        }
        Ok(member)
    }

    /// This member.
    pub fn id(&self) -> MemberId {
        self.config.id
    }

    /// One step of time.
    pub fn tick(&mut self) {
        self.tick += 1;
        if !self.installs() {
            self.node.tick();
        }
        self.give_up_lost_snapshots();
        self.fix_election_timeout();
    }

    /// Takes a message of another member. `bytes` must come from an authenticated member.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        let message = decode(bytes)?;
        let (from, to, id) = (MemberId(message.from), MemberId(message.to), self.config.id);
        let known = self.node.raft.prs().get(message.from).is_some();
        if to != id || from == id || !known {
            return Err(StepError::Stray { from, to, id });
        }
        let term = message.term;
        let result = self.node.step(message).map_err(|source| StepError::Raft { from, source });
        self.note_heard(from, term);
        self.fix_election_timeout();
        result
    }

    /// Puts a command into the log. Only the leader takes one.
    pub fn propose(&mut self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let bytes = command.len();
        if bytes == 0 {
            return Err(ProposeError::Empty);
        }
        if bytes > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLong { bytes });
        }
        if !matches!(self.role(), Role::Leader { .. }) {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        let result = self.node.propose(Vec::new(), command);
        self.fix_election_timeout();
        result.map_err(|_dropped| ProposeError::Busy)?;
        Ok(Proposed { index: self.node.raft.raft_log.last_index(), term: self.node.raft.term })
    }

    /// Starts an election at once, without waiting for the timeout.
    pub fn campaign(&mut self) {
        if self.installs() {
            return;
        }
        // Raft says no where there is nothing to win: this member leads already, or may not vote.
        let _already_decided = self.node.campaign();
        self.fix_election_timeout();
    }

    /// What has become due. Call after each of the other calls, until it is empty.
    pub fn ready(&mut self) -> Actions {
        let mut actions = Actions::default();
        if self.told.is_none() {
            actions.restore = restore_of(self.node.store().latest_snapshot());
        }
        if self.node.has_ready() {
            self.drain(&mut actions);
        }
        self.add_checkpoint(&mut actions);
        self.release_outstanding();
        let messages = std::mem::take(&mut self.released);
        self.post(messages, &mut actions.messages);
        self.tell_role(&mut actions);
        self.ask_for_snapshot(&mut actions);
        self.fix_election_timeout();
        actions
    }

    /// The batch with this number, and all before it, would survive a power cut.
    pub fn persisted(&mut self, number: u64) {
        for outstanding in self.outstanding.iter_mut().filter(|outstanding| outstanding.number <= number) {
            outstanding.durable = true;
        }
        self.release_outstanding();
        self.fix_election_timeout();
    }

    /// Takes over a snapshot of the model as it was after the entry `index`, and forgets the log behind it. To be
    /// called with an index that was handed out as committed; the next [`Member::ready`] has it written.
    pub fn compact(&mut self, index: u64, model: Vec<u8>) -> Result<(), CompactError> {
        let present = self.node.store().snapshot_index();
        if index > self.applied {
            return Err(CompactError::Ahead { index, applied: self.applied });
        }
        if index <= present {
            return Err(CompactError::Old { index, present });
        }
        let Ok(term) = self.node.store().term(index) else {
            return Err(CompactError::Old { index, present });
        };
        let keep_entries = self.config.keep_entries;
        self.checkpoint_keep_from = self.node.mut_store().checkpoint(index, term, model, keep_entries);
        self.pending_checkpoint = true;
        Ok(())
    }

    /// What this member is now.
    pub fn role(&self) -> Role {
        let raft = &self.node.raft;
        // The model is complete once an entry of this term is applied: it lies behind all earlier ones.
        if raft.state == StateRole::Leader && self.applied_term() == raft.term {
            return Role::Leader { term: raft.term };
        }
        Role::Follower { leader: self.leader() }
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Index of the last entry that was handed out.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Whether a majority, this member included, spoke in the present term within the last election timeout. A leader
    /// that cannot say so must not send orders.
    pub fn quorum_heard(&self) -> bool {
        let horizon = self.tick.saturating_sub(u64::from(self.config.election_ticks));
        let voters = self.node.store().initial_state().map(|state| state.conf_state.voters).unwrap_or_default();
        let heard = voters.iter().filter(|&&voter| {
            voter == self.config.id.0
                || self.heard_term == self.term()
                    && self.heard.get(&MemberId(voter)).is_some_and(|&tick| tick >= horizon)
        });
        heard.count() * 2 > voters.len()
    }

    /// How many entries each other member is behind the end of this leader's log; empty on a follower.
    pub fn behind(&self) -> Vec<(MemberId, u64)> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let last = raft.raft_log.last_index();
        let mut behind: Vec<_> = raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != self.config.id.0)
            .map(|(id, progress)| (MemberId(*id), last.saturating_sub(progress.matched)))
            .collect();
        behind.sort();
        behind
    }

    fn leader(&self) -> Option<MemberId> {
        let leader = self.node.raft.leader_id;
        // An elected leader that is not ready yet must not send people in a circle to itself.
        (leader != 0 && leader != self.config.id.0).then_some(MemberId(leader))
    }

    /// A received snapshot is on its way to the disk. Raft cannot campaign before it has arrived there (it looks for
    /// the entries that the snapshot replaced, and panics), so its clock stands still.
    fn installs(&self) -> bool {
        self.outstanding.iter().any(|outstanding| outstanding.installed.is_some())
    }

    fn is_sole_voter(&self) -> bool {
        let voters = self.node.store().initial_state().map(|state| state.conf_state.voters).unwrap_or_default();
        voters == [self.config.id.0]
    }

    fn applied_term(&self) -> u64 {
        self.node.raft.raft_log.term(self.applied).unwrap_or(0)
    }

    fn fix_election_timeout(&mut self) {
        let ticks = self.config.election_timeout_ticks(self.node.raft.term);
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    fn drain(&mut self, actions: &mut Actions) {
        let mut ready = self.node.ready();
        let mut persist = Persist { number: self.next_number(), ..Persist::default() };
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.node.mut_store().install(snapshot.clone());
            self.applied = snapshot.get_metadata().index;
            self.pending_checkpoint = false;
            actions.restore = restore_of(&snapshot);
            persist.install = Some(snapshot);
        }
        persist.entries = ready.take_entries();
        self.node.mut_store().append(&persist.entries);
        if let Some(hard_state) = ready.hs() {
            self.node.mut_store().set_hard_state(hard_state.clone());
            persist.hard_state = ready.must_sync().then(|| hard_state.clone());
        }
        self.released.extend(ready.take_messages());
        let durable = persist.install.is_none() && persist.hard_state.is_none() && persist.entries.is_empty();
        self.outstanding.push_back(Outstanding {
            number: persist.number,
            ready: ready.number(),
            installed: persist.install.as_ref().map(|snapshot| snapshot.get_metadata().index),
            durable,
            messages: ready.take_persisted_messages(),
        });
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        self.take_committed(committed, &mut actions.committed);
        if !durable {
            actions.persist = Some(persist);
        }
    }

    fn take_committed(&mut self, entries: Vec<Entry>, committed: &mut Vec<Committed>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        for entry in entries {
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                committed.push(Committed { index: entry.index, term: entry.term, command: entry.data.to_vec() });
            }
        }
        self.applied = last;
        self.node.advance_apply_to(last);
    }

    fn add_checkpoint(&mut self, actions: &mut Actions) {
        if !std::mem::take(&mut self.pending_checkpoint) {
            return;
        }
        let snapshot = self.node.store().latest_snapshot().clone();
        let checkpoint = Checkpoint { snapshot, keep_from_index: self.checkpoint_keep_from };
        if actions.persist.is_none() {
            actions.persist = Some(Persist { number: self.next_number(), ..Persist::default() });
        }
        if let Some(persist) = &mut actions.persist {
            persist.checkpoint = Some(checkpoint);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn release_outstanding(&mut self) {
        while self.outstanding.front().is_some_and(|front| front.durable) {
            let Some(front) = self.outstanding.pop_front() else {
                return;
            };
            self.node.on_persist_ready(front.ready);
            if let Some(index) = front.installed {
                self.node.advance_apply_to(index);
            }
            self.released.extend(front.messages);
        }
    }

    fn post(&mut self, messages: Vec<Message>, letters: &mut Vec<Letter>) {
        for message in messages {
            let to = MemberId(message.to);
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots_sent.insert(to, self.tick);
            }
            let bytes = message.write_to_bytes().expect("a message of raft has all its required fields: it has none");
            letters.push(Letter { to, bytes });
        }
    }

    fn tell_role(&mut self, actions: &mut Actions) {
        let role = self.role();
        if self.told != Some(role) {
            self.told = Some(role);
            actions.role = Some(role);
        }
    }

    fn ask_for_snapshot(&mut self, actions: &mut Actions) {
        let since = self.snapshot_asked_at.max(self.node.store().snapshot_index());
        if self.applied >= since + self.config.snapshot_after_entries {
            self.snapshot_asked_at = self.applied;
            actions.snapshot_wanted = true;
        }
    }

    fn note_heard(&mut self, from: MemberId, message_term: u64) {
        let term = self.term();
        if self.heard_term != term {
            self.heard_term = term;
            self.heard.clear();
        }
        if message_term == term {
            self.heard.insert(from, self.tick);
        }
    }

    /// Raft waits for a report about each snapshot that it sends. Nobody can give one for a lost message, so an
    /// unanswered one is reported as failed after a while, and raft tries again.
    fn give_up_lost_snapshots(&mut self) {
        let patience = SNAPSHOT_ELECTION_TIMEOUTS * u64::from(self.config.election_ticks);
        let late: Vec<_> = self
            .snapshots_sent
            .iter()
            .filter(|&(_, &sent)| self.tick >= sent + patience)
            .map(|(&peer, _)| peer)
            .collect();
        for peer in late {
            self.snapshots_sent.remove(&peer);
            let progress = self.node.raft.prs().get(peer.0);
            if progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
                self.node.report_snapshot(peer.0, SnapshotStatus::Failure);
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Message, StepError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(StepError::TooLong { bytes: bytes.len() });
    }
    Message::parse_from_bytes(bytes).map_err(|source| StepError::Decode { bytes: bytes.len(), source })
}

fn restore_of(snapshot: &crate::Snapshot) -> Option<Restore> {
    let metadata = snapshot.get_metadata();
    let model = || snapshot.data.to_vec();
    (!snapshot.is_empty()).then(|| Restore { index: metadata.index, term: metadata.term, model: model() })
}
