//! The JSON that programs get. Field names are a promise: they are added to, never changed.

use bellows_core::ids::{AppId, Fence, NodeId, ReplicaId};
use bellows_proto::operator;
use bellows_proto::types::{self, ended::Exit};
use serde::Serialize;

/// A code for programs and a sentence for people.
#[derive(Serialize, Clone, Debug)]
pub struct Reason {
    pub code: String,
    pub text: String,
}

/// An app.
#[derive(Serialize, Debug)]
pub struct App {
    pub id: String,
    pub app: String,
    pub tenant: String,
    pub image: String,
    pub state: &'static str,
    pub generation: u64,
    pub revision: u32,
    pub wanted: u32,
    pub ready: u32,
    pub starting: u32,
    pub stopping: u32,
    pub parked: u32,
    pub unplaced: u32,
    pub policy: Option<String>,
    pub reason: Option<Reason>,
}

/// A replica.
#[derive(Serialize, Debug)]
pub struct Replica {
    pub id: String,
    pub app: String,
    pub tenant: String,
    pub node: String,
    pub state: &'static str,
    pub ready: bool,
    pub parked: bool,
    pub unknown: bool,
    pub activity: Option<&'static str>,
    pub requests: u32,
    pub idle_ms: Option<u64>,
    pub address: Option<String>,
    pub revision: u32,
    pub attempt: u32,
    pub last_exit: Option<Exited>,
    pub running_ms: u64,
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub reason: Option<Reason>,
    pub ended: Option<Ended>,
}

/// How a process ended.
#[derive(Serialize, Debug)]
pub struct Exited {
    pub exit: &'static str,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
}

/// How a replica ended.
#[derive(Serialize, Debug)]
pub struct Ended {
    #[serde(flatten)]
    pub how: Exited,
    pub reason: Option<Reason>,
    pub at_unix_ms: u64,
}

/// A node.
#[derive(Serialize, Debug)]
pub struct Node {
    pub id: String,
    pub node: String,
    pub ready: bool,
    pub liveness: &'static str,
    pub state: String,
    pub replicas: u32,
    pub load_permille: u32,
    pub load_age_ms: u64,
    pub pressure_permille: Option<u32>,
    pub capacity: Amount,
    pub used: Amount,
    pub declared: Amount,
    pub labels: std::collections::BTreeMap<String, String>,
    pub version: String,
}

/// CPU and memory.
#[derive(Serialize, Debug, Clone, Copy)]
pub struct Amount {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
}

/// An event.
#[derive(Serialize, Debug)]
pub struct Event {
    pub sequence: u64,
    pub at_unix_ms: u64,
    pub kind: String,
    pub app: Option<String>,
    pub replica: Option<String>,
    pub node: Option<String>,
    pub reason: Option<Reason>,
}

/// An image.
#[derive(Serialize, Debug)]
pub struct Image {
    pub image: String,
    pub digest: String,
    pub size_bytes: u64,
    pub at_unix_ms: u64,
}

/// A change that was accepted.
#[derive(Serialize, Debug)]
pub struct Changed {
    pub id: String,
    pub app: String,
    pub tenant: String,
    pub generation: u64,
    pub changed: bool,
    pub image_digest: Option<String>,
    pub dry_run: bool,
    #[serde(flatten)]
    pub waited: Option<Waited>,
}

/// What `--wait` saw.
#[derive(Serialize, Debug, Clone, Copy)]
pub struct Waited {
    pub wanted: u32,
    pub ready: u32,
    pub waited_ms: u64,
}

impl From<operator::App> for App {
    fn from(app: operator::App) -> Self {
        Self {
            id: AppId(app.id).to_string(),
            state: app_state(&app),
            app: app.name,
            tenant: app.tenant,
            image: app.image,
            generation: app.generation,
            revision: app.revision,
            wanted: app.wanted,
            ready: app.ready,
            starting: app.starting,
            stopping: app.stopping,
            parked: app.parked,
            unplaced: app.unplaced,
            policy: filled(app.policy),
            reason: reason(app.reason),
        }
    }
}

fn app_state(app: &operator::App) -> &'static str {
    match app {
        operator::App { removing: true, .. } => "removing",
        operator::App { unplaced: 1.., .. } => "short",
        operator::App { wanted, ready, starting: 0, stopping: 0, parked: 0, .. } if ready == wanted => "settled",
        _ => "settling",
    }
}

impl From<operator::Replica> for Replica {
    fn from(replica: operator::Replica) -> Self {
        let used = amount(replica.used);
        let activity = replica.activity;
        Self {
            id: replica.id.map(|id| replica_id(&id)).unwrap_or_default(),
            state: lifecycle(replica.lifecycle()),
            app: replica.app,
            tenant: replica.tenant,
            node: replica.node,
            ready: replica.ready,
            parked: replica.parked,
            unknown: replica.unknown,
            activity: activity.map(|activity| if activity.busy { "busy" } else { "idle" }),
            requests: activity.map_or(0, |activity| activity.requests),
            idle_ms: activity.filter(|activity| !activity.busy).map(|activity| activity.idle_ms),
            address: filled(replica.address),
            revision: replica.revision,
            attempt: replica.attempt,
            last_exit: replica.last_exit.map(|last| exited(last.exit)),
            running_ms: replica.running_ms,
            cpu_milli: used.cpu_milli,
            memory_bytes: used.memory_bytes,
            reason: reason(replica.reason),
            ended: replica.ended.map(ended),
        }
    }
}

fn exited(exit: Option<Exit>) -> Exited {
    let (exit, exit_code, signal) = match exit {
        Some(Exit::Code(code)) => ("code", Some(code), None),
        Some(Exit::Signal(signal)) => ("signal", None, Some(signal)),
        Some(Exit::OutOfMemory(_)) => ("out_of_memory", None, None),
        Some(Exit::NotStarted(_)) => ("not_started", None, None),
        Some(Exit::Unknown(_)) | None => ("unknown", None, None),
    };
    Exited { exit, exit_code, signal }
}

fn ended(ended: types::Ended) -> Ended {
    Ended { how: exited(ended.exit), reason: reason(ended.why), at_unix_ms: ended.at_unix_ms }
}

impl From<operator::Node> for Node {
    fn from(node: operator::Node) -> Self {
        let liveness = match node.liveness() {
            operator::node::Liveness::Up => "up",
            operator::node::Liveness::Down => "down",
            operator::node::Liveness::Unknown | operator::node::Liveness::Unspecified => "unknown",
        };
        Self {
            id: NodeId(node.id).to_string(),
            ready: liveness == "up" && node.state == "active",
            node: node.name,
            liveness,
            state: node.state,
            replicas: node.replicas,
            load_permille: node.load_permille,
            load_age_ms: node.load_age_ms,
            pressure_permille: node.pressure_permille,
            capacity: amount(node.capacity),
            used: amount(node.used),
            declared: amount(node.declared),
            labels: node.labels,
            version: node.version,
        }
    }
}

impl From<operator::Event> for Event {
    fn from(event: operator::Event) -> Self {
        Self {
            sequence: event.sequence,
            at_unix_ms: event.at_unix_ms,
            kind: event.kind,
            app: filled(event.app),
            replica: event.replica.map(|id| replica_id(&id)),
            node: filled(event.node),
            reason: reason(event.reason),
        }
    }
}

impl From<operator::Image> for Image {
    fn from(image: operator::Image) -> Self {
        Self { image: image.name, digest: image.digest, size_bytes: image.size_bytes, at_unix_ms: image.at_unix_ms }
    }
}

/// `1-2-57`.
pub fn replica_id(id: &types::ReplicaId) -> String {
    let fence = id.fence.unwrap_or_default();
    let fence = Fence { incarnation: fence.incarnation, term: fence.term };
    ReplicaId { fence, counter: id.counter }.to_string()
}

/// The other way.
pub fn wire_replica_id(id: ReplicaId) -> types::ReplicaId {
    let fence = types::Fence { incarnation: id.fence.incarnation, term: id.fence.term };
    types::ReplicaId { fence: Some(fence), counter: id.counter }
}

/// A reason that says something.
pub fn reason(reason: Option<types::Reason>) -> Option<Reason> {
    let reason = reason.filter(|reason| !reason.code.is_empty() || !reason.text.is_empty())?;
    Some(Reason { code: reason.code, text: reason.text })
}

/// The sentence of a reason, or nothing.
pub fn sentence(reason: &Option<Reason>) -> String {
    reason
        .as_ref()
        .map(|reason| if reason.text.is_empty() { reason.code.clone() } else { reason.text.clone() })
        .unwrap_or_default()
}

fn amount(resources: Option<types::Resources>) -> Amount {
    let resources = resources.unwrap_or_default();
    Amount { cpu_milli: resources.cpu_milli, memory_bytes: resources.memory_bytes }
}

fn lifecycle(lifecycle: types::Lifecycle) -> &'static str {
    match lifecycle {
        types::Lifecycle::Unspecified => "unknown",
        types::Lifecycle::Ordered => "ordered",
        types::Lifecycle::Pulling => "pulling",
        types::Lifecycle::Starting => "starting",
        types::Lifecycle::Running => "running",
        types::Lifecycle::Stopping => "stopping",
        types::Lifecycle::Ended => "ended",
    }
}

/// Empty texts are nothing.
pub fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
