//! What a tenant declares about an app. Checked at the door (`AppSpec::check`), so that the planner meets only sound specs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

/// One reading of demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// CPU use per copy, against its declared CPU.
    Cpu {
        /// E.g. 600: copies shall use 60% of what they declare.
        target: Permille,
    },
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
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// Bytes.
    Tcp,
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
