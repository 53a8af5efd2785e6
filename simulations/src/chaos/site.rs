//! One server with its agent: the agent's mind, its journal, and its connection. The live agent's shell, in virtual time.

use super::Planted;
use super::convert;
use super::event::{Event, SiteNumber};
use super::machine::Machine;
use super::wire::{Down, Side, StreamId, Up};
use super::world::World;
use crate::dice::Dice;
use bellows_agent_core as agent;
use bellows_core as core;
use std::collections::BTreeMap;

/// A live agent reports once a second, give or take a tenth.
const BEAT_MS: (u64, u64) = (900, 1_100);

/// An agent that was not greeted by then tries another host.
const GREETING_PATIENCE_MS: u64 = 2_000;

/// Journals longer than this are shortened at the next start.
const JOURNAL_RECORDS: usize = 400;

/// One server.
pub(crate) struct Site {
    pub(crate) name: String,
    /// The agent's random identity.
    pub(crate) identity: String,
    pub(crate) zone: &'static str,
    pub(crate) capacity: core::units::Resources,
    /// Once it has joined.
    pub(crate) node: Option<core::ids::NodeId>,
    /// Left for good.
    pub(crate) removed: bool,
    /// Is the server on?
    pub(crate) on: bool,
    /// Counts boots.
    pub(crate) boot: u64,
    pub(crate) agent: Option<agent::AgentCore>,
    /// Counts the lives of the agent's process.
    pub(crate) life: u64,
    pub(crate) journal: Vec<agent::Record>,
    /// So much of the journal would survive a power cut.
    pub(crate) durable: usize,
    pub(crate) heard: u64,
    pub(crate) stream: Option<StreamId>,
    target: usize,
    wake_at: u64,
    pub(crate) machine: Machine,
    pub(crate) stale_until: u64,
    last_load: agent::NodeUse,
    last_load_at: u64,
}

impl Site {
    pub(crate) fn new(seed: u64, number: u32) -> Self {
        let mut dice = Dice::new(seed, &format!("site {number}"));
        let cpu = dice.pick(&[600, 1_000, 2_000, 3_000]).unwrap_or(1_000);
        Self {
            name: format!("server-{number}"),
            identity: format!("identity-{seed}-{number}"),
            zone: ["a", "b", "c"][number as usize % 3],
            capacity: core::units::Resources { cpu: core::units::CpuMilli(cpu), memory: core::units::Bytes(cpu << 20) },
            node: None,
            removed: false,
            on: true,
            boot: 1,
            agent: None,
            life: 0,
            journal: Vec::new(),
            durable: 0,
            heard: 0,
            stream: None,
            target: number as usize,
            wake_at: u64::MAX,
            machine: Machine::default(),
            stale_until: 0,
            last_load: agent::NodeUse::default(),
            last_load_at: 0,
        }
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("zone".to_owned(), self.zone.to_owned())])
    }

    /// A moment of the world by this agent's clock. Each life of the agent begins with another date, hours ahead of the last one's or
    /// behind it: the server's clock was set meanwhile. Within a life the clock is not set, as the live agent's is not.
    fn clock(&self, world_ms: u64) -> agent::Instant {
        const HOUR_MS: u64 = 3_600_000;
        agent::Instant(world_ms + self.life * 7 % 5 * 5 * HOUR_MS)
    }

    fn agent_identity(&self) -> core::input::AgentIdentity {
        core::input::AgentIdentity {
            machine: self.identity.clone(),
            boot: self.facts().boot,
            instance: format!("{}#{}", self.name, self.life),
        }
    }

    fn facts(&self) -> core::input::NodeFacts {
        core::input::NodeFacts {
            boot: format!("boot-{}", self.boot),
            capacity: self.capacity,
            labels: self.labels(),
            version: "0.1.0".to_owned(),
            ingress: String::new(),
            allowances: Vec::new(),
        }
    }
}

impl World {
    fn agent_config(&self) -> agent::Config {
        let planted = match self.options.planted {
            Planted::SkipFenceCheck => agent::Planted::SkipFenceCheck,
            Planted::StopOnAbsence => agent::Planted::StopOnAbsence,
            Planted::LosePersistedFence => agent::Planted::LosePersistedFence,
            _ => agent::Planted::None,
        };
        // No bound of the agent's own: the leader's books alone must keep a node from being overfilled.
        agent::Config { capacity: None, planted, ..agent::Config::default() }
    }

    pub(crate) fn start_agent(&mut self, number: SiteNumber) {
        let config = self.agent_config();
        let site = &mut self.sites[number];
        if site.agent.is_some() || !site.on || site.removed || site.node.is_none() {
            return;
        }
        self.diary.note(self.now, "agent starts", number as u64, site.life);
        let mut mind = agent::AgentCore::new(config);
        let (records, found) = (site.journal.clone(), site.machine.found(|at| site.clock(at)));
        let (heard, boot) = (site.clock(site.heard), site.facts().boot);
        let adopted = agent::Input::Adopted { records, found, heard, boot };
        let effects = mind.step(site.clock(self.now), adopted);
        if site.journal.len() > JOURNAL_RECORDS {
            site.journal = mind.records();
            site.durable = site.journal.len();
        }
        site.wake_at = u64::MAX;
        // A new process begins with the first of its list, wherever the leader was.
        site.target = number;
        site.agent = Some(mind);
        let life = site.life;
        self.perform_agent(number, effects);
        let (dial, beat) = (self.agent_dice.between(1, 300), self.agent_dice.between(1, BEAT_MS.1));
        self.later(dial, Event::Dial { site: number, life });
        self.later(beat, Event::Beat { site: number, life });
    }

    /// The agent's process is gone; what runs on the server runs on.
    pub(crate) fn crash_agent(&mut self, number: SiteNumber) {
        let site = &mut self.sites[number];
        if site.agent.take().is_none() {
            return;
        }
        site.life += 1;
        site.machine.abort_launches();
        self.laws.restarted(number);
        let site = &mut self.sites[number];
        if let Some(stream) = site.stream.take() {
            self.close_stream(stream, Side::Agent);
        }
    }

    /// The server loses power: every process is gone, and what the journal was not promised to keep.
    pub(crate) fn crash_site(&mut self, number: SiteNumber) {
        self.crash_agent(number);
        let unsynced = (self.sites[number].journal.len() - self.sites[number].durable) as u64;
        let kept = self.disk_dice.between(0, unsynced) as usize;
        let site = &mut self.sites[number];
        site.journal.truncate(site.durable + kept);
        site.durable = site.journal.len();
        site.on = false;
        site.boot += 1;
        site.machine = Machine::default();
        self.laws.rebooted(number);
    }

    pub(crate) fn boot(&mut self, number: SiteNumber) {
        let site = &mut self.sites[number];
        if site.on || site.removed {
            return;
        }
        site.on = true;
        self.diary.note(self.now, "server boots", number as u64, site.boot);
        self.start_agent(number);
    }

    pub(crate) fn dial(&mut self, number: SiteNumber, life: u64) {
        let site = &self.sites[number];
        let Some(mind) = site.agent.as_ref().filter(|_| site.life == life && site.stream.is_none()) else { return };
        let (agent, fence) = (site.agent_identity(), convert::fence_up(mind.fence()));
        let host = site.target % self.hosts.len();
        let stream = self.open_stream(number, host);
        self.sites[number].stream = Some(stream);
        self.send_up(stream, Up::Connecting { agent, fence });
        self.later(GREETING_PATIENCE_MS, Event::DialTimeout { stream });
    }

    pub(crate) fn dial_timeout(&mut self, stream: StreamId) {
        let number = self.streams[stream].site;
        let waiting = self.sites[number].stream == Some(stream) && !self.streams[stream].greeted;
        if waiting {
            self.close_stream(stream, Side::Agent);
            self.dial_next(number);
        }
    }

    pub(crate) fn agent_lost_stream(&mut self, stream: StreamId) {
        let number = self.streams[stream].site;
        let site = &self.sites[number];
        if site.stream != Some(stream) || site.life != self.streams[stream].site_life {
            return;
        }
        let session = agent::SessionId(self.streams[stream].session);
        self.dial_next(number);
        self.agent(number, [agent::Input::Disconnected { session }]);
    }

    fn dial_next(&mut self, number: SiteNumber) {
        let pause = self.agent_dice.between(50, 800);
        let site = &mut self.sites[number];
        site.stream = None;
        site.target += 1;
        let life = site.life;
        self.later(pause, Event::Dial { site: number, life });
    }

    pub(crate) fn heard_from_host(&mut self, stream: StreamId, message: &Down) {
        let number = self.streams[stream].site;
        let current = self.sites[number].stream == Some(stream);
        if current {
            self.sites[number].heard = self.now;
        }
        match message.clone() {
            // A greeting on a stream that was given up finds nobody to read it.
            Down::Greeting { .. } if !current => {}
            Down::Greeting { fence, session } => self.agent(number, [agent::Input::Greeting { fence, session }]),
            Down::Orders { fence, session, specs, orders } => {
                if !current {
                    self.tally.count("orders that came late, after their session");
                }
                self.check_delivery(number, fence, session);
                self.agent(number, [agent::Input::Orders { fence, session, specs, orders }]);
                self.laws.delivered();
            }
            Down::Acknowledged { session, ended } => {
                self.agent(number, [agent::Input::Acknowledged { session, ended }])
            }
            Down::Probe { newcomer } => self.send_up(stream, Up::Alive { newcomer }),
        }
    }

    pub(crate) fn beat(&mut self, number: SiteNumber, life: u64) {
        let site = &self.sites[number];
        let Some(mind) = site.agent.as_ref().filter(|_| site.life == life) else { return };
        let attempts: Vec<_> = mind.attempts().collect();
        let readings = attempts.into_iter().map(|attempt| self.read_counters(number, attempt)).collect();
        let load = self.read_load(number);
        let next = self.agent_dice.between(BEAT_MS.0, BEAT_MS.1);
        self.later(next, Event::Beat { site: number, life });
        self.agent(number, [agent::Input::Sampled { readings }, agent::Input::Heartbeat { load }]);
    }

    /// The node's own use; a stale one is told with its age, as an honest agent would.
    fn read_load(&mut self, number: SiteNumber) -> agent::NodeUse {
        let now = self.now;
        let site = &mut self.sites[number];
        if now < site.stale_until && site.last_load_at > 0 {
            self.tally.count("stale loads told");
            return agent::NodeUse { age: agent::Millis(now - site.last_load_at), ..site.last_load };
        }
        let used = site.machine.used();
        let noise = agent::Resources { cpu: agent::CpuMilli(self.agent_dice.below(100)), memory: agent::Bytes(0) };
        site.last_load = agent::NodeUse { used: used + noise, age: agent::Millis(0), pressure: None };
        site.last_load_at = now;
        site.last_load
    }

    pub(crate) fn wake(&mut self, number: SiteNumber, life: u64) {
        let site = &mut self.sites[number];
        if site.life == life && site.agent.is_some() {
            site.wake_at = u64::MAX;
            self.agent(number, [agent::Input::Tick]);
        }
    }

    /// One step of an agent's mind.
    pub(crate) fn agent<const N: usize>(&mut self, number: SiteNumber, inputs: [agent::Input; N]) {
        let now = self.sites[number].clock(self.now);
        let Some(mind) = &mut self.sites[number].agent else { return };
        let effects = mind.steps(now, inputs);
        self.perform_agent(number, effects);
    }

    fn perform_agent(&mut self, number: SiteNumber, effects: Vec<agent::Effect>) {
        for effect in effects {
            self.check_agent_effect(number, &effect);
            self.perform_agent_effect(number, effect);
        }
        self.arrange_wake(number);
    }

    fn arrange_wake(&mut self, number: SiteNumber) {
        let site = &mut self.sites[number];
        let Some(at) = site.agent.as_ref().and_then(agent::AgentCore::wake_at) else { return };
        let at = at.0.saturating_sub(site.clock(0).0);
        if at < site.wake_at {
            site.wake_at = at;
            let life = site.life;
            self.at(at, Event::Wake { site: number, life });
        }
    }

    fn perform_agent_effect(&mut self, number: SiteNumber, effect: agent::Effect) {
        match effect {
            agent::Effect::Persist(record) => self.journal(number, record),
            agent::Effect::Hello { inventory, remembered, .. } => {
                let facts = self.sites[number].facts();
                let reports =
                    |all: Vec<agent::ReplicaReport>| all.into_iter().map(convert::replica_report_up).collect();
                let (inventory, remembered) = (reports(inventory), reports(remembered));
                if let Some(stream) = self.sites[number].stream {
                    self.send_up(stream, Up::Hello { facts, inventory, remembered });
                }
            }
            agent::Effect::Report { fence, session, report } => {
                let Some(stream) = self.sites[number].stream else { return };
                let known = &self.streams[stream];
                if known.fence == fence && known.session == session.0 {
                    self.send_up(stream, Up::Report(convert::report_up(report)));
                }
            }
            agent::Effect::CloseSession { session, .. } => {
                let stream = self.sites[number].stream;
                if let Some(stream) = stream.filter(|stream| self.streams[*stream].session == session.0) {
                    self.close_stream(stream, Side::Agent);
                    self.dial_next(number);
                }
            }
            other => self.perform_on_machine(number, other),
        }
    }

    fn journal(&mut self, number: SiteNumber, record: agent::Record) {
        let site = &mut self.sites[number];
        let durable = record.durable();
        site.journal.push(record);
        if durable {
            site.durable = site.journal.len();
        }
    }
}
