//! Work for the planner to be measured with. No clock here: whoever measures holds the watch around `Core::step`.

use std::collections::BTreeMap;

use crate::ids::{LogIndex, NodeId, SessionId, SpecDigest};
use crate::input::{AgentIdentity, Input, Lifecycle, NodeFacts, NodeUse, ReplicaReport, Report};
use crate::model::command::{Change, Command};
use crate::model::spec::{AppSpec, Scale, Spread, WhenCutOff, WhenFull};
use crate::observe::replica::Slot;
use crate::step::Core;
use crate::time::Instant;
use crate::units::{Bytes, CpuMilli, Millis, Resources};

/// What the copies of a workload demand beyond room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Plain,
    /// Even spread over ten zones, refused when it cannot be kept.
    Zones,
    /// At most so many on one node.
    PerNode(u32),
}

/// A cluster and the requests that are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Servers, in ten zones.
    pub nodes: u32,
    /// Apps among which the requests are shared, in turn.
    pub apps: u32,
    /// How many requests.
    pub requests: u32,
    /// How many copies each of them adds.
    pub copies: u32,
    /// What the copies demand.
    pub rule: Rule,
}

/// What a heartbeat says of the copies on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// They are on their way.
    Starting,
    /// They run and answer.
    Running,
}

/// When a workload's time begins.
pub const BEGIN: Instant = Instant(1_000_000_000);

impl Workload {
    /// What must be stepped first, at `BEGIN`: nodes join and say hello, and the apps are declared with no copies.
    pub fn setup(&self) -> Vec<Input> {
        let mut log = Log::default();
        let mut inputs = Vec::new();
        for node in 1..=self.nodes {
            let labels = zone(node);
            inputs.push(log.commit(Change::JoinNode { name: format!("node{node}"), machine: machine(node), labels }));
        }
        inputs.push(log.commit(Change::FoundCluster { cluster: "bench".to_owned(), incarnation: 1 }));
        inputs.push(Input::BecameLeader { term: 1 });
        for node in 1..=self.nodes {
            let (node, session) = (NodeId(node), SessionId(u64::from(node)));
            let fence = Default::default();
            let agent = AgentIdentity { machine: machine(node.0), ..AgentIdentity::default() };
            inputs.push(Input::Connecting { node, session, agent, fence });
            let capacity = Resources { cpu: CpuMilli(32_000), memory: Bytes(128 << 30) };
            let facts = NodeFacts { boot: "boot".to_owned(), capacity, labels: zone(node.0), ..NodeFacts::default() };
            inputs.push(Input::Hello { node, session, facts, inventory: Vec::new(), remembered: Vec::new() });
        }
        for app in 0..self.apps {
            let (spec, digest) = (Box::new(self.spec(app)), SpecDigest::default());
            inputs.push(log.commit(Change::ApplyApp { spec, digest, expected: None }));
        }
        inputs
    }

    /// The requests, each to be stepped and measured.
    pub fn requests(&self) -> impl Iterator<Item = Input> + use<> {
        let own = *self;
        // After the nodes, the founding and the apps.
        let mut log = Log { index: u64::from(own.nodes) + 1 + u64::from(own.apps) };
        (0..own.requests).map(move |request| {
            let (tenant, name) = ("default".to_owned(), name(request % own.apps));
            let replicas = (request / own.apps + 1) * own.copies;
            log.commit(Change::ScaleApp { tenant, name, replicas, expected: None })
        })
    }

    /// A heartbeat of a node that names all copies which were placed on it. `None` while the core does not lead.
    pub fn heartbeat(core: &Core, node: u32, copies: Copies) -> Option<Input> {
        let (world, node) = (core.world()?, NodeId(node));
        let seen = world.node(node)?;
        // No two heartbeats measure the same.
        let used = Resources { cpu: CpuMilli(10 + core.now().0 / 1_000 % 10), memory: Bytes(8 << 20) };
        let report = |slot: &Slot| {
            let copy = world.replicas.at(*slot);
            let (id, app, revision, digest, resources) =
                (copy.id, copy.app, copy.revision, copy.digest, copy.resources);
            let told = ReplicaReport { id, app, revision, digest, resources, attempt: 1, ..ReplicaReport::default() };
            match copies {
                Copies::Starting => ReplicaReport { lifecycle: Lifecycle::Starting, ..told },
                Copies::Running => ReplicaReport {
                    lifecycle: Lifecycle::Running,
                    ready: true,
                    used,
                    address: "10.101.102.103".to_owned(),
                    running_for: core.now() - BEGIN,
                    ..told
                },
            }
        };
        let replicas: Vec<ReplicaReport> = seen.replicas.values().map(report).collect();
        let used = replicas.iter().fold(Resources::default(), |sum, copy| sum + copy.used);
        let load = Some(NodeUse { used, age: Millis(0), pressure: None });
        let session = seen.session.as_ref()?;
        let report = Report { acknowledged: session.sent, load, replicas, ..Report::default() };
        Some(Input::Report { node, session: session.id, report })
    }

    /// Copies that all requests together want.
    pub fn copies(&self) -> u64 {
        u64::from(self.requests) * u64::from(self.copies)
    }

    fn spec(&self, app: u32) -> AppSpec {
        let spread = Spread { by: "zone".to_owned(), max_skew: 1, when_full: WhenFull::Refuse };
        AppSpec {
            name: name(app),
            tenant: "default".to_owned(),
            image: "bench:1".to_owned(),
            image_digest: String::new(),
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            resources: Resources { cpu: CpuMilli(100), memory: Bytes(64 << 20) },
            processes: 100,
            scratch: Bytes(1 << 20),
            log: Bytes(1 << 20),
            scale: Scale::Declared { replicas: 0 },
            ports: Vec::new(),
            stop_grace: Millis(10_000),
            drain_deadline: Millis(30_000),
            constraints: Vec::new(),
            spread: (self.rule == Rule::Zones).then_some(spread),
            max_per_node: match self.rule {
                Rule::PerNode(most) => Some(most),
                _ => None,
            },
            when_cut_off: WhenCutOff::KeepRunning,
            traffic: Default::default(),
            health: Default::default(),
            isolation: Default::default(),
        }
    }
}

#[derive(Default)]
struct Log {
    index: u64,
}

impl Log {
    fn commit(&mut self, change: Change) -> Input {
        self.index += 1;
        let command = Command { at: BEGIN, by: "bench".to_owned(), key: String::new(), change };
        Input::Committed { index: LogIndex(self.index), token: None, command }
    }
}

fn name(app: u32) -> String {
    format!("app{app}")
}

fn machine(node: u32) -> String {
    format!("machine{node}")
}

fn zone(node: u32) -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), format!("zone{}", node % 10))])
}
