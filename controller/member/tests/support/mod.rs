//! A raft group in one thread: members, their disks, and a network that does as it is told.
#![allow(dead_code)]

use bellows_member::{Actions, Config, Letter, Member, MemberId, MemoryLog, Persist, Proposed, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

pub struct Host {
    pub disk: MemoryLog,
    pub member: Option<Member>,
    pub model: Vec<String>,
    pub slow_disk: bool,
    pub waiting: VecDeque<u64>,
}

pub struct Group {
    pub hosts: BTreeMap<u64, Host>,
    pub cuts: BTreeSet<(u64, u64)>,
    pub wire: VecDeque<(u64, Letter)>,
    pub trace: String,
    pub committed: BTreeMap<(u64, u64), String>,
    seed: u64,
    snapshot_after: u64,
}

impl Group {
    pub fn new(size: u64, seed: u64) -> Self {
        let host = || Host {
            disk: MemoryLog::new(),
            member: None,
            model: Vec::new(),
            slow_disk: false,
            waiting: VecDeque::new(),
        };
        let hosts = (1..=size).map(|id| (id, host())).collect();
        let (cuts, wire) = (BTreeSet::new(), VecDeque::new());
        let mut group = Self {
            hosts,
            cuts,
            wire,
            trace: String::new(),
            committed: BTreeMap::new(),
            seed,
            snapshot_after: 1_000_000,
        };
        for id in 1..=size {
            group.start(id);
        }
        group
    }

    fn host(&mut self, id: u64) -> &mut Host {
        self.hosts.get_mut(&id).expect("a host of this group")
    }

    pub fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.host(id).member.as_mut()
    }

    pub fn start(&mut self, id: u64) {
        let peers = self.hosts.keys().copied().map(MemberId).collect();
        let (seed, snapshot_after_entries) = (self.seed, self.snapshot_after);
        let config = Config { snapshot_after_entries, keep_entries: 2, ..Config::new(MemberId(id), peers, seed) };
        let host = self.host(id);
        host.model.clear();
        host.waiting.clear();
        host.member = Some(Member::new(config, &mut host.disk).expect("a sound disk"));
        self.drain(id);
    }

    pub fn crash(&mut self, id: u64, kept: usize) {
        let host = self.host(id);
        let lost = host.disk.unsynced().saturating_sub(kept);
        host.member = None;
        host.disk.crash(kept);
        writeln!(self.trace, "m{id} crashes and loses {lost} unsynced writes").expect("into a string");
    }

    pub fn tick(&mut self) {
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            if let Some(member) = self.member(id) {
                member.tick();
                self.drain(id);
            }
        }
    }

    pub fn deliver_all(&mut self) {
        while let Some((from, letter)) = self.wire.pop_front() {
            self.deliver(from, &letter);
        }
    }

    pub fn deliver(&mut self, from: u64, letter: &Letter) {
        let to = letter.to.0;
        if self.cuts.contains(&(from, to)) {
            return;
        }
        if let Some(member) = self.member(to) {
            if let Err(error) = member.step(&letter.bytes) {
                writeln!(self.trace, "m{to} refuses: {error}").expect("into a string");
            }
            self.drain(to);
        }
    }

    pub fn propose(&mut self, id: u64, command: &str) -> Option<Proposed> {
        let result = self.member(id)?.propose(command.as_bytes().to_vec());
        if let Err(error) = &result {
            writeln!(self.trace, "m{id} refuses {command}: {error}").expect("into a string");
        }
        self.drain(id);
        result.ok()
    }

    /// The disk finishes what it was given.
    pub fn sync(&mut self, id: u64) {
        let host = self.host(id);
        host.disk.sync();
        let numbers: Vec<_> = host.waiting.drain(..).collect();
        for number in numbers {
            if let Some(member) = self.member(id) {
                member.persisted(number);
            }
        }
        self.drain(id);
    }

    pub fn compact(&mut self, id: u64) {
        let host = self.host(id);
        let Some(member) = host.member.as_mut() else {
            return;
        };
        let index = member.applied_index();
        let outcome = member.compact(index, host.model.join("\n").into_bytes());
        match outcome {
            Ok(()) => writeln!(self.trace, "m{id} makes a snapshot at {index}"),
            Err(error) => writeln!(self.trace, "m{id}: {error}"),
        }
        .expect("into a string");
        self.drain(id);
    }

    pub fn cut(&mut self, left: &[u64], right: &[u64]) {
        for &a in left {
            for &b in right {
                self.cuts.insert((a, b));
                self.cuts.insert((b, a));
            }
        }
    }

    pub fn leader(&mut self) -> Option<u64> {
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        let leads = |member: &mut Member| matches!(member.role(), Role::Leader { .. }).then(|| member.term());
        let found = ids.into_iter().filter_map(|id| self.member(id).and_then(leads).map(|term| (term, id)));
        found.max().map(|(_, id)| id)
    }

    fn drain(&mut self, id: u64) {
        loop {
            let Some(member) = self.member(id) else {
                return;
            };
            let actions = member.ready();
            if actions.is_empty() {
                return;
            }
            self.carry_out(id, actions);
        }
    }

    fn carry_out(&mut self, id: u64, actions: Actions) {
        self.wire.extend(actions.messages.into_iter().map(|letter| (id, letter)));
        if let Some(batch) = &actions.persist {
            self.persist(id, batch);
        }
        if let Some(restore) = actions.restore {
            let text = String::from_utf8(restore.model).expect("models here are text");
            writeln!(self.trace, "m{id} restores {}@{}", text.replace('\n', " "), restore.index)
                .expect("into a string");
            self.host(id).model = text.lines().map(str::to_owned).collect();
        }
        for entry in actions.committed {
            let command = String::from_utf8(entry.command).expect("commands here are text");
            writeln!(self.trace, "m{id} applies {command}@{}.{}", entry.term, entry.index).expect("into a string");
            let first = self.committed.entry((0, entry.index)).or_insert_with(|| command.clone()).clone();
            assert_eq!(first, command, "two members applied different commands at index {}", entry.index);
            self.host(id).model.push(command);
        }
        match actions.role {
            Some(Role::Leader { term }) => writeln!(self.trace, "m{id} leads term {term}"),
            Some(Role::Follower { leader: Some(leader) }) => writeln!(self.trace, "m{id} follows {leader}"),
            Some(Role::Follower { leader: None }) => writeln!(self.trace, "m{id} has no leader"),
            None => Ok(()),
        }
        .expect("into a string");
        if actions.snapshot_wanted {
            self.compact(id);
        }
    }

    fn persist(&mut self, id: u64, batch: &Persist) {
        let host = self.host(id);
        host.disk.write(batch);
        if host.slow_disk {
            host.waiting.push_back(batch.number);
            return;
        }
        host.disk.sync();
        if let Some(member) = &mut host.member {
            member.persisted(batch.number);
        }
    }

    pub fn set_snapshot_after(&mut self, entries: u64) {
        self.snapshot_after = entries;
    }
}
