//! One controller: a member, a disk, and the leader's mind. This is the live controller's loop, in virtual time.

use super::Planted;
use super::convert;
use super::event::{Answer, Event, HostNumber};
use super::wire::{Down, Side, StreamId, Up};
use super::world::{HOSTS, World};
use bellows_agent_core as agent;
use bellows_core as core;
use bellows_member::{Actions, Config, Letter, Member, MemberId, MemoryLog, Persist, Role};
use core::effect::{Effect, Order};
use core::ids::{Fence, LogIndex, NodeId, SessionId, SpecDigest, Token};
use core::input::Input;
use core::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// Raft's clock: an election after 0.5 to 1 s.
const TICK_MS: u64 = 50;

/// Small, so that followers that were away get snapshots.
const SNAPSHOT_AFTER_ENTRIES: u64 = 40;

/// One controller.
pub(crate) struct Host {
    pub(crate) disk: MemoryLog,
    pub(crate) member: Option<Member>,
    pub(crate) core: core::Core,
    /// Counts the lives of the process.
    pub(crate) life: u64,
    pub(crate) paused_until: u64,
    pub(crate) slow_disk_until: u64,
    /// The term it leads, if it does.
    pub(crate) leads: Option<u64>,
    pub(crate) quorum: bool,
    ticks: u64,
    last_session: u64,
    sessions: BTreeMap<(NodeId, u64), StreamId>,
    proposals: BTreeMap<(u64, u64), Token>,
    last_token: u64,
    asked: BTreeMap<Token, (usize, u32)>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            disk: MemoryLog::new(),
            member: None,
            core: core::Core::new(core::Config::default()),
            life: 0,
            paused_until: 0,
            slow_disk_until: 0,
            leads: None,
            quorum: false,
            ticks: 0,
            last_session: 0,
            sessions: BTreeMap::new(),
            proposals: BTreeMap::new(),
            last_token: 0,
            asked: BTreeMap::new(),
        }
    }

    pub(crate) fn up(&self) -> bool {
        self.member.is_some()
    }

    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.sessions.values().copied().collect()
    }
}

fn member_id(host: HostNumber) -> MemberId {
    MemberId(host as u64 + 1)
}

/// Bytes that stand for a place in an arena.
fn token_bytes(place: usize) -> Vec<u8> {
    (place as u64).to_le_bytes().to_vec()
}

fn place_of(bytes: &[u8]) -> usize {
    let bytes = bytes.try_into().expect("made by token_bytes");
    u64::from_le_bytes(bytes) as usize
}

impl World {
    fn core_config(&self) -> core::Config {
        let mut config = core::Config { seed: self.seed, ..core::Config::default() };
        // Minutes of back-off would only make the calm at the end long.
        config.limits.crash_backoff = core::units::Millis(1_000);
        config.limits.crash_backoff_most = core::units::Millis(8_000);
        config.limits.crash_forgiven = core::units::Millis(20_000);
        config.limits.planted = match self.options.planted {
            Planted::DropReservation => core::limits::Planted::DropReservation,
            Planted::RetireNewest => core::limits::Planted::RetireNewest,
            _ => core::limits::Planted::None,
        };
        config
    }

    pub(crate) fn start_host(&mut self, number: HostNumber) {
        if self.hosts[number].up() {
            return;
        }
        self.diary.note(self.now, "host starts", number as u64, self.hosts[number].life);
        let peers = (0..HOSTS).map(member_id).collect();
        let config = Config {
            snapshot_after_entries: SNAPSHOT_AFTER_ENTRIES,
            keep_entries: SNAPSHOT_AFTER_ENTRIES / 4,
            ..Config::new(member_id(number), peers, self.seed)
        };
        let mind = core::Core::new(self.core_config());
        let host = &mut self.hosts[number];
        let member = Member::new(config, &mut host.disk).expect("a sound configuration on a sound disk");
        host.member = Some(member);
        host.core = mind;
        let life = host.life;
        self.later(TICK_MS, Event::HostTick { host: number, life });
        self.settle(number, VecDeque::new());
    }

    /// The process is gone, and with it what its disk had not promised to keep.
    pub(crate) fn crash_host(&mut self, number: HostNumber) {
        let streams = self.hosts[number].streams();
        let unsynced = self.hosts[number].disk.unsynced() as u64;
        let kept = self.disk_dice.between(0, unsynced) as usize;
        if (kept as u64) < unsynced {
            self.tally.count("crashes of members that lost unsynced writes");
        }
        let host = &mut self.hosts[number];
        host.disk.crash(kept);
        let (disk, life) = (std::mem::take(&mut host.disk), host.life + 1);
        *host = Host { disk, life, ..Host::new() };
        for stream in streams {
            self.close_stream(stream, Side::Host);
        }
    }

    pub(crate) fn host_tick(&mut self, number: HostNumber, life: u64) {
        let host = &mut self.hosts[number];
        let Some(member) = host.member.as_mut().filter(|_| host.life == life) else { return };
        member.tick();
        host.ticks += 1;
        let mut inputs = VecDeque::new();
        let quorum = member.quorum_heard();
        if host.leads.is_some() && quorum != host.quorum {
            host.quorum = quorum;
            inputs.push_back(Input::Quorum { heard: quorum });
        }
        // The leader's mind is ticked every `Limits::tick` = 100 ms.
        if host.leads.is_some() && host.ticks.is_multiple_of(2) {
            inputs.push_back(Input::Tick);
        }
        self.later(TICK_MS, Event::HostTick { host: number, life });
        self.settle(number, inputs);
    }

    pub(crate) fn letter(&mut self, from: HostNumber, to: HostNumber, bytes: &[u8]) {
        if self.net.blocked(self.host_end(from), self.host_end(to)) {
            return self.tally.count("messages cut off");
        }
        let Some(member) = &mut self.hosts[to].member else { return };
        member.step(bytes).expect("every member of this group is honest");
        self.settle(to, VecDeque::new());
    }

    pub(crate) fn synced(&mut self, number: HostNumber, life: u64, batch: u64) {
        let host = &mut self.hosts[number];
        let Some(member) = host.member.as_mut().filter(|_| host.life == life) else { return };
        host.disk.sync_up_to(batch);
        member.persisted(batch);
        self.settle(number, VecDeque::new());
    }

    pub(crate) fn heard_from_agent(&mut self, stream: StreamId, message: Up) {
        let (number, site) = (self.streams[stream].host, self.streams[stream].site);
        let Some(node) = self.sites[site].node else { return };
        let session = match message {
            Up::Connecting { .. } => self.take_stream(stream, number, node),
            _ => SessionId(self.streams[stream].session),
        };
        let input = match message {
            Up::Connecting { agent, fence } => Input::Connecting { node, session, agent, fence },
            Up::Hello { facts, inventory, remembered } => Input::Hello { node, session, facts, inventory, remembered },
            Up::Alive { newcomer } => Input::Alive { node, session, newcomer },
            Up::Report(report) => Input::Report { node, session, report },
        };
        self.settle(number, VecDeque::from([input]));
    }

    fn take_stream(&mut self, stream: StreamId, number: HostNumber, node: NodeId) -> SessionId {
        let host = &mut self.hosts[number];
        host.last_session += 1;
        let session = host.last_session;
        host.sessions.insert((node, session), stream);
        self.streams[stream].session = session;
        SessionId(session)
    }

    pub(crate) fn host_lost_stream(&mut self, stream: StreamId) {
        let (number, life) = (self.streams[stream].host, self.streams[stream].host_life);
        let session = self.streams[stream].session;
        let Some(node) = self.sites[self.streams[stream].site].node else { return };
        let host = &mut self.hosts[number];
        if host.life == life && host.up() && host.sessions.remove(&(node, session)).is_some() {
            let input = Input::Disconnected { node, session: SessionId(session) };
            self.settle(number, VecDeque::from([input]));
        }
    }

    /// A person's request has arrived.
    pub(crate) fn ask_host(
        &mut self,
        number: HostNumber,
        who: (usize, u32),
        key: String,
        request: core::input::Request,
    ) {
        let host = &mut self.hosts[number];
        host.last_token += 1;
        let token = Token(host.last_token);
        host.asked.insert(token, who);
        let input = Input::Request { token, by: "people".to_owned(), key, request };
        self.settle(number, VecDeque::from([input]));
    }

    /// Gives the inputs to the mind, performs what it wants, and does what the member wants, until both are at rest.
    fn settle(&mut self, number: HostNumber, mut inputs: VecDeque<Input>) {
        loop {
            while let Some(input) = inputs.pop_front() {
                let routine = matches!(input, Input::Tick | Input::Report { .. });
                let effects = self.hosts[number].core.step(Instant(self.now), input);
                let routine = routine && effects.is_empty();
                for effect in effects {
                    self.perform(number, effect, &mut inputs);
                }
                self.check_leader(number, routine);
            }
            let Some(member) = &mut self.hosts[number].member else { return };
            let actions = member.ready();
            if actions.is_empty() {
                return;
            }
            self.act(number, actions, &mut inputs);
        }
    }

    fn act(&mut self, number: HostNumber, actions: Actions, inputs: &mut VecDeque<Input>) {
        for Letter { to, bytes } in actions.messages {
            self.post(number, to.0 as usize - 1, bytes);
        }
        if let Some(batch) = actions.persist {
            self.write(number, &batch);
        }
        if let Some(restore) = actions.restore {
            self.tally.count("snapshots restored");
            let model = Box::new(self.models[place_of(&restore.model)].clone());
            inputs.push_back(Input::Restored { index: LogIndex(restore.index), model });
        }
        for entry in actions.committed {
            let place = place_of(&entry.command);
            self.check_committed(number, entry.index, place);
            let token = self.hosts[number].proposals.remove(&(entry.index, entry.term));
            let command = self.commands[place].clone();
            inputs.push_back(Input::Committed { index: LogIndex(entry.index), token, command });
        }
        if let Some(role) = actions.role {
            self.role_changes(number, role, inputs);
        }
        if actions.snapshot_wanted {
            self.compact(number);
        }
    }

    fn write(&mut self, number: HostNumber, batch: &Persist) {
        let slow = self.now < self.hosts[number].slow_disk_until;
        let delay = if slow { self.disk_dice.between(50, 600) } else { self.disk_dice.between(1, 4) };
        let host = &mut self.hosts[number];
        host.disk.write(batch);
        let (life, number_of_batch) = (host.life, batch.number);
        self.later(delay, Event::Synced { host: number, life, number: number_of_batch });
    }

    fn role_changes(&mut self, number: HostNumber, role: Role, inputs: &mut VecDeque<Input>) {
        let was = self.hosts[number].leads.take();
        if was.is_some() {
            self.diary.note(self.now, "host leads no more", number as u64, was.unwrap_or(0));
            self.end_leadership(number, inputs);
        }
        if let Role::Leader { term } = role {
            self.diary.note(self.now, "host leads", number as u64, term);
            self.tally.count("leaders elected");
            self.check_elected(number, term);
            let host = &mut self.hosts[number];
            host.leads = Some(term);
            host.quorum = host.member.as_ref().is_some_and(Member::quorum_heard);
            inputs.push_back(Input::BecameLeader { term });
            inputs.push_back(Input::Quorum { heard: host.quorum });
        }
    }

    fn end_leadership(&mut self, number: HostNumber, inputs: &mut VecDeque<Input>) {
        inputs.push_back(Input::SteppedDown);
        let host = &mut self.hosts[number];
        let why = "leadership was lost before it was decided".to_owned();
        let dropped = std::mem::take(&mut host.proposals).into_values();
        inputs.extend(dropped.map(|token| Input::ProposalDropped { token, why: why.clone() }));
        let streams = std::mem::take(&mut host.sessions).into_values();
        for stream in streams {
            self.close_stream(stream, Side::Host);
        }
    }

    /// Everything handed out so far is in the model before the snapshot is taken: the inputs come first.
    fn compact(&mut self, number: HostNumber) {
        let host = &mut self.hosts[number];
        let index = host.core.applied().0;
        let model = host.core.model().clone();
        let Some(member) = &mut host.member else { return };
        // Nothing was applied since, or the inputs of this turn are still to be taken in: asked again later.
        if member.compact(index, token_bytes(self.models.len())).is_ok() {
            self.models.push(model);
            self.tally.count("snapshots made");
        }
    }

    fn perform(&mut self, number: HostNumber, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::Propose { token, command } => self.propose(number, token, command, inputs),
            Effect::Reply { token, outcome } => self.reply(number, token, Answer::Decided(outcome)),
            Effect::Unanswered { token, .. } => self.reply(number, token, Answer::Undecided),
            Effect::Greet { node, session, fence } => self.greet(number, node, session, fence),
            Effect::Orders { node, session, fence, orders } => self.order(number, node, session, fence, orders),
            Effect::Acknowledge { node, session, ended } => {
                let ended = ended.into_iter().map(convert::replica_down).collect();
                self.tell_agent(number, node, session, |session| Down::Acknowledged { session, ended });
            }
            Effect::Probe { node, session, newcomer } => {
                self.tally.count("agents probed");
                self.tell_agent(number, node, session, |_| Down::Probe { newcomer });
            }
            // Agents of this world have no ingress.
            Effect::Entrances { .. } | Effect::Routes { .. } | Effect::Allowances { .. } => {}
            Effect::CloseSession { node, session, .. } => self.close_session(number, node, session),
            Effect::Event(event) => self.tally.count(super::people::event_name(event.kind)),
        }
    }

    fn propose(
        &mut self,
        number: HostNumber,
        token: Option<Token>,
        command: core::model::command::Command,
        inputs: &mut VecDeque<Input>,
    ) {
        let place = self.commands.len();
        self.commands.push(command);
        let host = &mut self.hosts[number];
        let Some(member) = &mut host.member else { return };
        match (member.propose(token_bytes(place)), token) {
            (Ok(proposed), Some(token)) => {
                host.proposals.insert((proposed.index, proposed.term), token);
            }
            (Err(error), Some(token)) => inputs.push_back(Input::ProposalDropped { token, why: error.to_string() }),
            (_, None) => {}
        }
    }

    fn reply(&mut self, number: HostNumber, token: Token, answer: Answer) {
        let Some((request, attempt)) = self.hosts[number].asked.remove(&token) else { return };
        if self.net.blocked(self.host_end(number), self.people_end()) {
            return self.tally.count("answers to people lost");
        }
        let delay = self.delay();
        self.later(delay, Event::Answer { request, attempt, answer });
    }

    fn stream_of(&self, number: HostNumber, node: NodeId, session: SessionId) -> Option<StreamId> {
        self.hosts[number].sessions.get(&(node, session.0)).copied()
    }

    fn greet(&mut self, number: HostNumber, node: NodeId, session: SessionId, fence: Fence) {
        let Some(stream) = self.stream_of(number, node, session) else { return };
        self.streams[stream].fence = convert::fence_down(fence);
        self.streams[stream].greeted = true;
        let fence = convert::fence_down(fence);
        self.send_down(stream, Down::Greeting { fence, session: agent::SessionId(session.0) });
    }

    fn order(&mut self, number: HostNumber, node: NodeId, session: SessionId, fence: Fence, orders: Vec<Order>) {
        self.check_orders(number, node, session, fence, &orders);
        let Some(stream) = self.stream_of(number, node, session) else { return };
        let specs = self.specs_for(number, stream, &orders);
        let orders = orders.into_iter().map(convert::order_down).collect();
        let (fence, session) = (convert::fence_down(fence), agent::SessionId(session.0));
        self.send_down(stream, Down::Orders { fence, session, specs, orders });
    }

    /// Specs that this session has not carried yet.
    fn specs_for(
        &mut self,
        number: HostNumber,
        stream: StreamId,
        orders: &[Order],
    ) -> Vec<(agent::SpecDigest, agent::RunSpec)> {
        let mut specs = Vec::new();
        for order in orders {
            let core::effect::Action::Start { app, digest, .. } = &order.action else { continue };
            let digest_down = agent::SpecDigest(digest.0);
            if self.streams[stream].carried.contains(&digest_down) {
                continue;
            }
            if let Some(spec) = spec_named(self.hosts[number].core.model(), *app, *digest) {
                self.streams[stream].carried.insert(digest_down);
                specs.push((digest_down, convert::run_spec(spec)));
            }
        }
        specs
    }

    fn tell_agent(
        &mut self,
        number: HostNumber,
        node: NodeId,
        session: SessionId,
        message: impl FnOnce(agent::SessionId) -> Down,
    ) {
        if let Some(stream) = self.stream_of(number, node, session) {
            self.send_down(stream, message(agent::SessionId(session.0)));
        }
    }

    fn close_session(&mut self, number: HostNumber, node: NodeId, session: SessionId) {
        if let Some(stream) = self.hosts[number].sessions.remove(&(node, session.0)) {
            self.close_stream(stream, Side::Host);
        }
    }
}

fn spec_named(
    model: &core::model::Model,
    app: core::ids::AppId,
    digest: SpecDigest,
) -> Option<&core::model::spec::AppSpec> {
    let known = model.apps.get(&app)?;
    let revisions = [Some(&known.current), known.previous.as_ref(), known.last_good.as_ref()];
    revisions.into_iter().flatten().find(|revision| revision.digest == digest).map(|revision| &*revision.spec)
}
