//! What raft replicates: the declared world.

pub mod apply;
pub mod bounds;
pub mod check;
pub mod check_health;
pub mod command;
pub mod health;
pub mod routes;
pub mod spec;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, Generation, NodeId, ReplicaId, RevisionNumber, SpecDigest};
use crate::input::Exit;
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::Bytes;
use command::{NodeState, Outcome};
use spec::AppSpec;

/// The declared world, the same on every member at the same log index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The cluster's name; empty until founded.
    pub cluster: String,
    /// Which life of the cluster; 0 until founded.
    pub incarnation: u64,
    /// After a restored backup: report, but order nothing.
    pub observing: bool,
    /// The highest id given out.
    pub last_app: AppId,
    /// The highest id given out.
    pub last_node: NodeId,
    /// Apps by id.
    pub apps: BTreeMap<AppId, App>,
    /// `(tenant, name)` of each app.
    #[serde(with = "crate::pairs")]
    pub app_names: BTreeMap<(String, String), AppId>,
    /// Nodes by id.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Each node's name.
    pub node_names: BTreeMap<String, NodeId>,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// Join tokens: hash -> expiry.
    pub tokens: BTreeMap<String, Instant>,
    /// Nodes that left for good, oldest first; bounded by `limits::KEPT_REMOVED`.
    pub removed: Vec<RemovedNode>,
    /// Ends that no agent can tell a new leader, oldest first; bounded by `limits::KEPT_ENDS`.
    pub ended: Vec<Gone>,
    /// The latest idempotency keys with their requests' digest-like identity and answers, oldest first; bounded by `limits::KEPT_KEYS`.
    pub keys: Vec<KeptAnswer>,
}

/// An app as declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// Counts accepted changes.
    pub generation: Generation,
    /// What shall run.
    pub current: Revision,
    /// What ran before.
    pub previous: Option<Revision>,
    /// The last revision that was wholly ready.
    pub last_good: Option<Revision>,
    /// The wanted count: declared, or the last recorded of the policies.
    pub wanted: u32,
    /// Why it is that count.
    pub counted: Counted,
}

/// Why a wanted count is what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Since when.
    pub at: Instant,
    /// Who said so: a credential's name, or the app's policies.
    pub by: String,
    /// With the figures.
    pub why: Reason,
}

/// One revision of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1.
    pub number: RevisionNumber,
    /// The first revision that runs the same thing: a change of counts, bounds or placement rules alone replaces no copy.
    pub runs_since: RevisionNumber,
    /// Of the canonical encoding.
    pub digest: SpecDigest,
    /// What.
    pub spec: Box<AppSpec>,
    /// When it was declared.
    pub at: Instant,
    /// By whom.
    pub by: String,
}

/// A server that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Unique name.
    pub name: String,
    /// The agent's random identity.
    pub machine: String,
    /// As told at the join.
    pub labels: BTreeMap<String, String>,
    /// What people want of it.
    pub state: NodeState,
    /// When it joined.
    pub joined: Instant,
}

/// A server that left for good. Its number is never given out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The number that it had.
    pub id: NodeId,
    /// The name that it had; another node may bear it now.
    pub name: String,
    /// When it was removed.
    pub at: Instant,
    /// By whom.
    pub by: String,
}

/// A copy that ended, kept for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Its id.
    pub id: ReplicaId,
    /// Whose copy.
    pub app: AppId,
    /// Where it was.
    pub node: NodeId,
    /// What it ran.
    pub revision: RevisionNumber,
    /// How it ended.
    pub exit: Exit,
    /// Why it ended.
    pub why: Reason,
    /// Why it had been there.
    pub placed: Reason,
    /// When it ended: by its node's clock, or by the leader's when no agent told.
    pub at: Instant,
}

impl Model {
    /// A node as people call it, also after it left; its number when nobody remembers.
    pub fn node_name(&self, id: NodeId) -> Cow<'_, str> {
        let here = self.nodes.get(&id).map(|node| node.name.as_str());
        let name = here.or_else(|| self.removed_node(id).map(|node| node.name.as_str()));
        name.map_or_else(|| id.to_string().into(), Cow::from)
    }

    /// A node that left for good, while that is remembered.
    pub fn removed_node(&self, id: NodeId) -> Option<&RemovedNode> {
        self.removed.iter().rev().find(|node| node.id == id)
    }
}

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:<64 hex>` of the manifest.
    pub digest: String,
    /// Manifest, config and layers together.
    pub size: Bytes,
    /// When it was registered.
    pub at: Instant,
}

/// An answered request, so that its repetition gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The key.
    pub key: String,
    /// The change that was asked for.
    pub change: command::Change,
    /// What was answered.
    pub outcome: Outcome,
}
