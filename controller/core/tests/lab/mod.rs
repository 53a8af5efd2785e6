//! A small laboratory: one core, agents, a log that always commits, and virtual time. The checker runs after every step.
#![allow(dead_code)]

pub mod agent;

use std::collections::{BTreeMap, BTreeSet};

use agent::Agent;
use bellows_core::check::check;
use bellows_core::effect::{Effect, Event};
use bellows_core::ids::{AppId, Fence, Generation, LogIndex, NodeId, OrderSequence, ReplicaId, SessionId, Token};
use bellows_core::input::{AppTraffic, Input, NodeFacts, Request, TrafficReport};
use bellows_core::model::command::{Change, Command, Outcome};
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Resources};
use bellows_core::{Config, Core};

/// What is under way.
enum Thing {
    Input(Input),
    Deliver(NodeId, Effect),
}

pub struct Lab {
    pub core: Core,
    pub now: Instant,
    pub agents: BTreeMap<NodeId, Agent>,
    pub events: Vec<Event>,
    pub notes: Vec<String>,
    pub term: u64,
    pub log: Vec<Command>,
    pub replies: BTreeMap<u64, Outcome>,
    /// Everything that the core was told, for replays.
    pub inputs: Vec<(Instant, Input)>,
    /// Nodes whose heartbeats are withheld; news comes through.
    pub mute: BTreeSet<NodeId>,
    queue: BTreeMap<(Instant, u64), Thing>,
    counter: u64,
    token: u64,
    session: u64,
}

pub const LATENCY: Millis = Millis(5);

impl Lab {
    pub fn new(config: Config) -> Self {
        let mut lab = Self {
            core: Core::new(config),
            now: Instant(1_000_000),
            agents: BTreeMap::new(),
            events: Vec::new(),
            notes: Vec::new(),
            term: 0,
            log: Vec::new(),
            replies: BTreeMap::new(),
            inputs: Vec::new(),
            mute: BTreeSet::new(),
            queue: BTreeMap::new(),
            counter: 0,
            token: 0,
            session: 0,
        };
        lab.lead();
        lab.run(Millis(10));
        lab
    }

    pub fn step(&mut self, input: Input) {
        self.inputs.push((self.now, input.clone()));
        let what = format!("{input:?}");
        let effects = self.core.step(self.now, input);
        let broken = check(&self.core);
        let texts: Vec<String> = broken.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "at {} after {what}:\n{}", self.now, texts.join("\n"));
        effects.into_iter().for_each(|effect| self.perform(effect));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { token, command } => {
                self.log.push(command.clone());
                let index = LogIndex(self.log.len() as u64);
                self.later(Millis(1), Thing::Input(Input::Committed { index, token, command }));
            }
            Effect::Reply { token, outcome } => {
                if let Outcome::Refused(refusal) = &outcome {
                    self.notes.push(format!("refused: {refusal}"));
                }
                self.replies.insert(token.0, outcome);
            }
            Effect::Unanswered { why, .. } => self.notes.push(format!("unanswered: {why}")),
            Effect::Event(event) => self.events.push(event),
            Effect::CloseSession { node, ref why, retry, .. } => {
                self.notes.push(format!(
                    "session of n{} closed ({}): {why}",
                    node.0,
                    if retry { "try again" } else { "for good" }
                ));
                self.later(LATENCY, Thing::Deliver(node, effect));
            }
            Effect::Greet { node, .. }
            | Effect::Orders { node, .. }
            | Effect::Acknowledge { node, .. }
            | Effect::Entrances { node, .. }
            | Effect::Allowances { node, .. }
            | Effect::Routes { node, .. }
            | Effect::Probe { node, .. } => {
                self.later(LATENCY, Thing::Deliver(node, effect));
            }
        }
    }

    fn later(&mut self, length: Millis, thing: Thing) {
        self.counter += 1;
        self.queue.insert((self.now + length, self.counter), thing);
    }

    /// Lets time go by, 10 ms at a time.
    pub fn run(&mut self, length: Millis) {
        let end = self.now + length;
        while self.now < end {
            self.now = self.now + Millis(10);
            self.deliver();
            self.agents_speak();
            if self.now.0.is_multiple_of(100) {
                self.step(Input::Tick);
            }
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((&(at, counter), _)) = self.queue.first_key_value() {
            if at > self.now {
                return;
            }
            match self.queue.remove(&(at, counter)) {
                Some(Thing::Input(input)) => self.step(input),
                Some(Thing::Deliver(node, effect)) => self.reach(node, effect),
                None => {}
            }
        }
    }

    fn reach(&mut self, node: NodeId, effect: Effect) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(&node).filter(|agent| !agent.silent) else { return };
        match effect {
            Effect::Greet { session, fence, .. } if agent.session == Some(session) && fence >= agent.fence => {
                agent.fence = fence;
                agent.live = true;
                agent.acknowledged = OrderSequence(0);
                agent.facts.allowances.clone_from(&agent.allowances);
                agent.allowed = 0;
                let (facts, inventory) = (agent.facts.clone(), agent.inventory(now));
                let remembered = agent.remembered.clone();
                let (apps, report) = (agent.asks.keys().copied().collect(), agent.traffic());
                let dropped = Vec::new();
                self.later(LATENCY, Thing::Input(Input::Hello { node, session, facts, inventory, remembered }));
                self.later(LATENCY, Thing::Input(Input::Subscribe { node, session, apps, dropped }));
                self.later(LATENCY, Thing::Input(Input::Traffic { node, session, report }));
            }
            Effect::Orders { session, fence, orders, .. } if agent.session == Some(session) => {
                assert!(fence >= agent.fence, "an order under a lower fence");
                agent.obey(now, orders);
            }
            Effect::Acknowledge { session, ended, .. } if agent.session == Some(session) => {
                let copies = ended.iter().filter_map(|id| agent.copies.remove(id));
                agent.remembered.extend(copies.map(|copy| copy.report));
            }
            Effect::Allowances { session, version, allowances, .. } if agent.session == Some(session) => {
                agent.allowed = version;
                agent.allowances = allowances.into_iter().filter(|one| !agent.copies.contains_key(&one.id)).collect();
                agent.unheard = true;
            }
            Effect::Entrances { session, whole, apps, gone, .. } if agent.session == Some(session) => {
                agent.learn_entrances(whole, apps, &gone);
            }
            Effect::Routes { session, updates, .. } if agent.session == Some(session) => {
                updates.into_iter().for_each(|update| agent.learn_routes(update));
            }
            Effect::Probe { session, newcomer, .. } if agent.session == Some(session) => {
                self.later(LATENCY, Thing::Input(Input::Alive { node, session, newcomer }));
            }
            Effect::CloseSession { session, retry, .. } if agent.session == Some(session) => {
                agent.silent |= !retry;
                agent.session = None;
                agent.live = false;
            }
            _ => {}
        }
    }

    fn agents_speak(&mut self) {
        let (now, nodes) = (self.now, self.agents.keys().copied().collect::<Vec<_>>());
        for node in nodes {
            let Some(agent) = self.agents.get_mut(&node) else { continue };
            let news = agent.live_on(now);
            if agent.silent {
                continue;
            }
            let Some(session) = agent.session else {
                if now.0.is_multiple_of(500) {
                    self.connect(node);
                }
                continue;
            };
            // Spread over the second, so that heartbeats do not come all at once.
            let beat = now.0 % 1_000 == u64::from(node.0) * 70 % 1_000 && !self.mute.contains(&node);
            if agent.live && (beat || news) {
                let report = if beat { agent.heartbeat(now) } else { agent.news(now) };
                self.later(LATENCY, Thing::Input(Input::Report { node, session, report }));
            }
        }
    }

    pub fn connect(&mut self, node: NodeId) {
        self.session += 1;
        let session = SessionId(self.session);
        let Some(agent) = self.agents.get_mut(&node) else { return };
        agent.session = Some(session);
        agent.live = false;
        let (identity, fence) = (agent.identity(), agent.fence);
        self.later(LATENCY, Thing::Input(Input::Connecting { node, session, agent: identity, fence }));
    }

    /// Requests wait at an ingress; the leader hears of it at once.
    pub fn hold(&mut self, node: NodeId, app: AppId, held: u32, arrivals: u64) {
        self.asked_for(node, app, |asked| (asked.held, asked.arrivals) = (held, asked.arrivals + arrivals));
    }

    /// So many that waited have waited too long.
    pub fn refuse(&mut self, node: NodeId, app: AppId, count: u32) {
        self.asked_for(node, app, |asked| {
            asked.held -= count;
            asked.refused += u64::from(count);
            asked.last_refusal = Some(("no copy could take it within 10 s".to_owned(), Millis(0)));
        });
    }

    fn asked_for(&mut self, node: NodeId, app: AppId, change: impl FnOnce(&mut AppTraffic)) {
        let Some(agent) = self.agents.get_mut(&node) else { return };
        let new = !agent.asks.contains_key(&app);
        let asked = agent.asks.entry(app).or_insert(AppTraffic { app, ..AppTraffic::default() });
        change(asked);
        let held = asked.held;
        let report = TrafficReport { apps: vec![asked.clone()], replicas: Vec::new() };
        let news = agent.start_by_allowance(self.now, app, held);
        let Some(session) = agent.session.filter(|_| agent.live && !agent.silent) else { return };
        if let Some(report) = news {
            self.later(LATENCY, Thing::Input(Input::Report { node, session, report }));
        }
        if new {
            let (apps, dropped) = (vec![app], Vec::new());
            self.later(LATENCY, Thing::Input(Input::Subscribe { node, session, apps, dropped }));
        }
        self.later(LATENCY, Thing::Input(Input::Traffic { node, session, report }));
    }

    /// The owner of a copy counts so many requests in it.
    pub fn in_flight(&mut self, node: NodeId, id: ReplicaId, requests: u32) {
        let Some(agent) = self.agents.get_mut(&node) else { return };
        let Some(session) = agent.session.filter(|_| agent.live && !agent.silent) else { return };
        let report = TrafficReport { apps: Vec::new(), replicas: vec![(id, requests)] };
        self.later(LATENCY, Thing::Input(Input::Traffic { node, session, report }));
    }

    pub fn disconnect(&mut self, node: NodeId) {
        let Some(agent) = self.agents.get_mut(&node) else { return };
        agent.live = false;
        if let Some(session) = agent.session.take() {
            self.step(Input::Disconnected { node, session });
        }
    }

    /// A new term: this member leads again, knowing only what was declared.
    pub fn lead(&mut self) {
        self.term += 1;
        self.step(Input::SteppedDown);
        for agent in self.agents.values_mut() {
            agent.session = None;
            agent.live = false;
        }
        self.queue.retain(|_, thing| matches!(thing, Thing::Input(Input::Committed { .. })));
        self.step(Input::BecameLeader { term: self.term });
    }

    pub fn ask(&mut self, request: Request) -> Option<Outcome> {
        self.ask_with_key("", request)
    }

    pub fn ask_with_key(&mut self, key: &str, request: Request) -> Option<Outcome> {
        self.token += 1;
        let token = self.token;
        self.step(Input::Request { token: Token(token), by: "ann".to_owned(), key: key.to_owned(), request });
        self.run(Millis(10));
        self.replies.remove(&token)
    }

    pub fn join(&mut self, name: &str, capacity: Resources, labels: BTreeMap<String, String>) -> NodeId {
        let machine = format!("machine-{name}");
        let request = Request::Join { name: name.to_owned(), machine: machine.clone(), labels: labels.clone() };
        let node = match self.ask(request) {
            Some(Outcome::Node { node }) => node,
            other => panic!("{name} could not join: {other:?}"),
        };
        let facts = NodeFacts {
            boot: "boot-1".to_owned(),
            capacity,
            labels,
            version: "test".to_owned(),
            ingress: format!("{name}:7071"),
            allowances: Vec::new(),
        };
        let fence = Fence::default();
        self.agents.insert(
            node,
            Agent {
                node,
                name: name.to_owned(),
                machine,
                instance: 1,
                facts,
                fence,
                session: None,
                live: false,
                silent: false,
                refuses: None,
                busy_refusals: 0,
                acknowledged: OrderSequence(0),
                copies: BTreeMap::new(),
                remembered: Vec::new(),
                refused: Vec::new(),
                other: Resources::default(),
                start_takes: Millis(200),
                never_ready: false,
                asks: BTreeMap::new(),
                allowances: Vec::new(),
                allowed: 0,
                unheard: false,
                entrances: BTreeMap::new(),
                routes: BTreeMap::new(),
            },
        );
        self.connect(node);
        self.run(Millis(20));
        node
    }

    pub fn propose(&mut self, change: Change) {
        let command = Command { at: self.now, by: "ann".to_owned(), key: String::new(), change };
        self.perform(Effect::Propose { token: None, command });
    }

    pub fn app(&self, name: &str) -> AppId {
        self.core.view().find_app("default", name).map_or(AppId(0), |app| app.id)
    }

    pub fn generation(&self, name: &str) -> Generation {
        self.core.view().find_app("default", name).map_or(Generation(0), |app| app.generation)
    }

    /// Copies that run for real, by what the agents have.
    pub fn running(&self, app: AppId) -> Vec<ReplicaId> {
        let copies = self.agents.values().flat_map(|agent| agent.copies.values());
        copies.filter(|copy| copy.report.app == app && copy.report.ended.is_none()).map(|copy| copy.report.id).collect()
    }
}

pub fn resources(cpu: u64, mebibytes: u64) -> Resources {
    Resources { cpu: CpuMilli(cpu), memory: Bytes(mebibytes << 20) }
}
