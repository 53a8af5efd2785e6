//! What a tenant declares about an app. Checked at the door (`AppSpec::check`), so that the planner meets only sound specs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::health::Health;
use crate::units::{Bytes, Millis, Permille, Resources};

/// One declared app, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// `[a-z0-9-]{1,63}`, unique within its tenant.
    pub name: String,
    /// The tenant's name; "default" when nobody said.
    pub tenant: String,
    /// What the file said, e.g. `web:1.2`.
    pub image: String,
    /// The manifest digest that it resolved to, `sha256:<64 hex>`.
    pub image_digest: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's default arguments when not empty.
    pub args: Vec<String>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// Declared use, which is also the limit.
    pub resources: Resources,
    /// The most processes and threads it may have.
    pub processes: u32,
    /// Bound of the writable part of its file tree.
    pub scratch: Bytes,
    /// Bound of its kept log.
    pub log: Bytes,
    /// How many copies, or what decides it.
    pub scale: Scale,
    /// Ports that the app listens on; the first one decides readiness.
    pub ports: Vec<Port>,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Millis,
    /// A parked copy that never goes idle is stopped after this.
    pub drain_deadline: Millis,
    /// Every one must hold of a node.
    pub constraints: Vec<Constraint>,
    /// Even spread over the values of a node label.
    pub spread: Option<Spread>,
    /// The most copies on one node.
    pub max_per_node: Option<u32>,
    /// What an agent without a controller does with the copies.
    pub when_cut_off: WhenCutOff,
    /// How requests reach the app and share its copies.
    #[serde(default)]
    pub traffic: Traffic,
    /// What each copy is asked, again and again.
    #[serde(default)]
    pub health: Health,
    /// How the copies are kept apart from what is around them.
    #[serde(default)]
    pub isolation: Isolation,
}

/// How copies are kept apart from what is around them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Whether they reach what lies beyond their node.
    pub egress: bool,
    /// Capabilities they do without, of those that copies have: `net_raw`.
    pub drop_capabilities: Vec<String>,
    /// System calls they do without, of those that copies may make: `ptrace`.
    pub deny_calls: Vec<String>,
    /// Capabilities they have beyond those that copies have, where an administrator allows it: `sys_ptrace`.
    #[serde(default)]
    pub add_capabilities: Vec<String>,
    /// System calls they may make beyond those that copies may, where an administrator allows it: `io_uring_setup`.
    #[serde(default)]
    pub add_calls: Vec<String>,
    /// Share of the CPU when there is too little for all, 100 being usual; none: as the CPU they declare.
    pub cpu_weight: Option<u32>,
    /// What goes between each and its node's disk at most.
    #[serde(default)]
    pub disk_rates: DiskRates,
}

/// Most that goes between a copy and a disk in a second; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRates {
    /// Bytes read.
    pub read: Bytes,
    /// Bytes written.
    pub write: Bytes,
    /// Reads.
    pub read_operations: u64,
    /// Writes.
    pub write_operations: u64,
}

/// How requests reach an app and share its copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Where requests come in; none: nobody asks for this app.
    pub routes: Vec<Route>,
    /// Never more requests at once in one copy.
    pub limit: Option<u32>,
    /// The oldest copy with fewer requests is preferred.
    pub target: Option<u32>,
    /// What may wait while no copy can take it.
    pub hold: Hold,
    /// A new copy's share of requests grows over this long.
    pub slow_start: Millis,
}

/// One way to an app, open on every node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// A port of the nodes; none: the ports that all apps share.
    pub listen: Option<u16>,
    /// Empty: any.
    pub host: String,
    /// What a request's path begins with, in whole segments; `/` is any.
    pub path: String,
    /// One of the app's ports; what it speaks decides what the route speaks.
    pub port: u16,
    /// Does `listen` take TLS? It ends at the ingress.
    pub tls: bool,
    /// A larger body of a request is refused with 413; none: any.
    pub max_body: Option<Bytes>,
}

/// Bounds of what waits, for each ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Requests.
    pub requests: u32,
    /// Of their bodies, as far as they have come.
    pub bytes: Bytes,
    /// For one request.
    pub time: Millis,
}

impl Default for Hold {
    /// A burst of a thousand, 16 MiB, and the patience of a person.
    fn default() -> Self {
        Self { requests: 1_000, bytes: Bytes(16 << 20), time: Millis(10_000) }
    }
}

/// How many copies an app shall have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// A number that a person said.
    Declared {
        /// Copies wanted.
        replicas: u32,
    },
    /// Policies decide between bounds; the largest wins.
    Policies(Elastic),
}

/// Bounds and policies of an elastic app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// How long less must be wanted before copies end.
    pub idle_grace: Millis,
    /// Copies ready beyond need.
    pub spare: u32,
    /// At least one.
    pub policies: Vec<Policy>,
    /// No faster up than this.
    #[serde(default)]
    pub up: Option<Rate>,
    /// No faster down than this.
    #[serde(default)]
    pub down: Option<Rate>,
}

/// So many copies within so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Copies.
    pub copies: u32,
    /// Within any stretch of this length.
    pub per: Millis,
}

/// One reading of demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// CPU use per copy, against its declared CPU.
    Cpu {
        /// E.g. 600: copies shall use 60% of what they declare.
        target: Permille,
    },
    /// Requests in flight and held, per copy.
    Concurrency {
        /// How many a copy shall have.
        target: u32,
    },
    /// Requests that arrive per second, per copy.
    RequestsPerSecond {
        /// How many a copy shall get.
        target: u32,
    },
    /// Memory use per copy, against what it declares.
    Memory {
        /// E.g. 800: copies shall use 80% of what they declare.
        target: Permille,
    },
}

impl Policy {
    /// Is demand counted where it arrives, so that it can be seen without a copy?
    pub fn by_requests(&self) -> bool {
        matches!(self, Self::Concurrency { .. } | Self::RequestsPerSecond { .. })
    }
}

/// A port that the app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// For people and routes; may be empty.
    pub name: String,
    /// 1..=65535, inside the replica's own network.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Bytes.
    Tcp,
    /// HTTP/2 in clear, begun with its preface; gRPC too.
    Http2,
}

/// A condition on a node's labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraint {
    /// The label's key.
    pub label: String,
    /// How the values are meant.
    pub operator: ConstraintOperator,
    /// Empty for `Exists` and `NotExists`.
    pub values: Vec<String>,
}

/// How a constraint reads a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConstraintOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    NotExists,
}

/// Even spread over the values of a label ("node" is every node by itself).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// A label's key, or "node".
    pub by: String,
    /// The most by which the fullest value may exceed the emptiest one that has a node for this app: up, in service, and
    /// meeting the constraints. Whether it has room is not asked, else a skew would never be refused.
    pub max_skew: u32,
    /// When no node keeps the skew.
    pub when_full: WhenFull,
}

/// What to do when the spread cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// Place anyway, and say so.
    Relax,
    /// Leave the copy unplaced, and say so.
    Refuse,
}

/// What an agent does with an app's copies when no controller answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenCutOff {
    /// Serve on; the cluster may run more copies than wanted for a while (at least once).
    KeepRunning,
    /// The agent ends them after this long; the leader replaces them only after that and a margin.
    StopAfter(Millis),
}
