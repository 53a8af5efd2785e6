//! What the page is told, as JSON with stable field names.

use bellows_core::ids::{Fence, ReplicaId};
use bellows_proto::operator::{self as wire};
use bellows_proto::types;
use serde::Serialize;

use crate::driver::Overview;

/// Rows of the copies' table: more than a person reads, few enough for a phone. The total is told beside it.
const MOST_REPLICAS: usize = 500;

/// One state of the cluster.
#[derive(Serialize)]
pub(super) struct Snapshot {
    cluster: String,
    leading: bool,
    observing: bool,
    fence: String,
    version: String,
    nodes: Vec<Node>,
    apps: Vec<App>,
    replicas: Vec<Replica>,
    replicas_total: usize,
}

#[derive(Serialize)]
struct Node {
    id: u32,
    name: String,
    liveness: &'static str,
    state: String,
    load_permille: u32,
    pressure_permille: Option<u32>,
    used: Resources,
    declared: Resources,
    capacity: Resources,
    replicas: u32,
}

#[derive(Serialize)]
struct Resources {
    cpu_milli: u64,
    memory_bytes: u64,
}

#[derive(Serialize)]
struct App {
    id: u32,
    app: String,
    tenant: String,
    image: String,
    generation: u64,
    wanted: u32,
    ready: u32,
    starting: u32,
    stopping: u32,
    parked: u32,
    unplaced: u32,
    policy: String,
    removing: bool,
    reason: String,
}

#[derive(Serialize)]
struct Replica {
    id: String,
    app: String,
    node: String,
    state: &'static str,
    ready: bool,
    activity: String,
    address: String,
    attempt: u32,
    used: Resources,
    reason: String,
}

/// One event.
#[derive(Serialize)]
pub(super) struct Event {
    sequence: u64,
    at_unix_ms: u64,
    kind: String,
    app: String,
    replica: String,
    node: String,
    reason: String,
}

impl Snapshot {
    pub(super) fn new(overview: Overview) -> Self {
        let status = overview.status;
        let fence = status.fence.map(fence_of).unwrap_or_default();
        Self {
            cluster: status.cluster,
            leading: status.leading,
            observing: status.observing,
            fence: fence.to_string(),
            version: status.version,
            nodes: overview.nodes.into_iter().map(Node::new).collect(),
            apps: overview.apps.into_iter().map(App::new).collect(),
            replicas_total: overview.replicas.len(),
            replicas: overview.replicas.into_iter().take(MOST_REPLICAS).map(Replica::new).collect(),
        }
    }
}

impl Node {
    fn new(node: wire::Node) -> Self {
        Self {
            id: node.id,
            liveness: liveness_word(node.liveness()),
            name: node.name,
            state: node.state,
            load_permille: node.load_permille,
            pressure_permille: node.pressure_permille,
            used: Resources::new(node.used),
            declared: Resources::new(node.declared),
            capacity: Resources::new(node.capacity),
            replicas: node.replicas,
        }
    }
}

impl Resources {
    fn new(resources: Option<types::Resources>) -> Self {
        let resources = resources.unwrap_or_default();
        Self { cpu_milli: resources.cpu_milli, memory_bytes: resources.memory_bytes }
    }
}

impl App {
    fn new(app: wire::App) -> Self {
        Self {
            id: app.id,
            app: app.name,
            tenant: app.tenant,
            image: app.image,
            generation: app.generation,
            wanted: app.wanted,
            ready: app.ready,
            starting: app.starting,
            stopping: app.stopping,
            parked: app.parked,
            unplaced: app.unplaced,
            policy: app.policy,
            removing: app.removing,
            reason: text_of(app.reason),
        }
    }
}

impl Replica {
    fn new(replica: wire::Replica) -> Self {
        let state = state_word(&replica);
        Self {
            id: replica.id.map(id_of).unwrap_or_default(),
            state,
            app: replica.app,
            node: replica.node,
            ready: replica.ready,
            activity: replica.activity.map(activity_words).unwrap_or_default(),
            address: replica.address,
            attempt: replica.attempt,
            used: Resources::new(replica.used),
            reason: text_of(replica.reason),
        }
    }
}

impl Event {
    pub(super) fn new(event: wire::Event) -> Self {
        Self {
            sequence: event.sequence,
            at_unix_ms: event.at_unix_ms,
            kind: event.kind,
            app: event.app,
            replica: event.replica.map(id_of).unwrap_or_default(),
            node: event.node,
            reason: text_of(event.reason),
        }
    }
}

fn fence_of(fence: types::Fence) -> Fence {
    Fence { incarnation: fence.incarnation, term: fence.term }
}

fn id_of(id: types::ReplicaId) -> String {
    ReplicaId { fence: id.fence.map(fence_of).unwrap_or_default(), counter: id.counter }.to_string()
}

fn text_of(reason: Option<types::Reason>) -> String {
    reason.map(|reason| reason.text).unwrap_or_default()
}

fn liveness_word(liveness: wire::node::Liveness) -> &'static str {
    match liveness {
        wire::node::Liveness::Up => "up",
        wire::node::Liveness::Down => "down",
        wire::node::Liveness::Unknown | wire::node::Liveness::Unspecified => "unknown",
    }
}

fn state_word(replica: &wire::Replica) -> &'static str {
    match replica.lifecycle() {
        _ if replica.unknown => "unknown",
        types::Lifecycle::Running if replica.parked => "parked",
        types::Lifecycle::Running if replica.ready => "ready",
        types::Lifecycle::Running => "running",
        types::Lifecycle::Ordered => "ordered",
        types::Lifecycle::Pulling => "pulling",
        types::Lifecycle::Starting => "starting",
        types::Lifecycle::Stopping => "stopping",
        types::Lifecycle::Ended => "ended",
        types::Lifecycle::Unspecified => "unknown",
    }
}

fn activity_words(activity: types::Activity) -> String {
    match activity.busy {
        true => format!("busy ({})", activity.requests),
        false => format!("idle {} s", activity.idle_ms / 1000),
    }
}
