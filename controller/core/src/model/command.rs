//! What raft replicates: facts that people said, and facts that no living agent could tell a new leader.
//!
//! Time and ids are stamped by the proposer; `apply` is a function of the model and the command alone.
//! Deliberately absent: placements, victims, routes, load. They are derived.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Gone;
use super::spec::AppSpec;
use crate::ids::{AppId, Generation, NodeId, RevisionNumber, SpecDigest};
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::Bytes;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's clock; only for people to read and for expiry, never for order.
    pub at: Instant,
    /// Who asked: a credential's name, a node, or "leader".
    pub by: String,
    /// Repeating a request with one key changes nothing and gets the first answer. Empty: none.
    pub key: String,
    /// What changes.
    pub change: Change,
}

/// What a command changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The first command of a cluster's life.
    FoundCluster {
        /// For people and certificates.
        cluster: String,
        /// 1, or one more than the life that a backup came from.
        incarnation: u64,
    },
    /// Declare an app, or a new revision of it.
    ApplyApp {
        /// Checked at the door.
        spec: Box<AppSpec>,
        /// Of the canonical encoding.
        digest: SpecDigest,
        /// Refuse when the app is at another generation (0: must not exist yet).
        expected: Option<Generation>,
    },
    /// Declare a count. For an elastic app this is refused with the remedy.
    ScaleApp {
        /// `tenant/name` resolved by apply.
        tenant: String,
        /// The app's name.
        name: String,
        /// Copies wanted.
        replicas: u32,
        /// Refuse when the app is at another generation.
        expected: Option<Generation>,
    },
    /// The app and all its copies shall end.
    RemoveApp {
        /// The app's tenant.
        tenant: String,
        /// The app's name.
        name: String,
        /// Refuse when the app is at another generation.
        expected: Option<Generation>,
    },
    /// The last wanted counts of policies, so that a new leader has a floor. One batched entry, at most every 10 s.
    RecordWanted {
        /// By app.
        wanted: BTreeMap<AppId, Decision>,
    },
    /// Ends that no agent can tell a new leader: of copies on removed nodes, and of orders that never became a copy. Batched.
    RecordEnded {
        /// Oldest first.
        ended: Vec<Gone>,
    },
    /// A rollout's verdict: every wanted copy of this revision was ready at once.
    RecordGood {
        /// The app.
        app: AppId,
        /// The revision that proved itself.
        revision: RevisionNumber,
    },
    /// A server joined. The same machine that joins again under its name keeps its id.
    JoinNode {
        /// Unique name.
        name: String,
        /// The agent's own random identity, kept in its state folder.
        machine: String,
        /// For constraints and spread.
        labels: BTreeMap<String, String>,
    },
    /// Schedule on a node, or not, or move its copies away.
    SetNodeState {
        /// Which.
        node: NodeId,
        /// To what.
        state: NodeState,
    },
    /// The node left for good.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// An image was verified and stored under a name.
    RegisterImage {
        /// E.g. `web:1.2`.
        name: String,
        /// `sha256:<64 hex>` of the manifest.
        digest: String,
        /// Manifest, config and layers together.
        size: Bytes,
    },
    /// Forget a name. Refused while an app is pinned to it.
    RemoveImage {
        /// The name.
        name: String,
    },
    /// A join token; only its hash is kept.
    CreateToken {
        /// SHA-256 of the secret, hex.
        hash: String,
        /// After this it is refused.
        expires: Instant,
    },
    /// Leave observe mode after a restored backup.
    Resume,
}

/// A count that policies decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Copies wanted.
    pub replicas: u32,
    /// When it was decided.
    pub at: Instant,
    /// With the figures.
    pub why: Reason,
}

/// What people want of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeState {
    /// Takes copies.
    #[default]
    Active,
    /// Keeps what it has, takes no more.
    Cordoned,
    /// Its copies are replaced elsewhere and retired; at the deadline they are stopped all the same.
    Draining {
        /// When patience ends.
        deadline: Instant,
    },
}

/// How apply answered. The same on every member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// An app was declared, changed, scaled or removed (or already was as asked).
    App {
        /// Its id.
        app: AppId,
        /// Its generation now.
        generation: Generation,
        /// False when nothing changed.
        changed: bool,
    },
    /// A node joined or changed.
    Node {
        /// Its id.
        node: NodeId,
    },
    /// Done, with nothing more to say.
    Done,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why apply changed nothing. Each reads as a sentence that says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such app.
    #[error("there is no app \"{name}\" in tenant \"{tenant}\"{}; `bellows apps` lists them", near(.nearest))]
    UnknownApp {
        /// The tenant asked for.
        tenant: String,
        /// The name asked for.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// No such node.
    #[error("there is no node \"{name}\"{}; `bellows nodes` lists them", near(.nearest))]
    UnknownNode {
        /// The name asked for.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// No such image.
    #[error("there is no image \"{name}\"{}; `bellows image load` brings one, `bellows image ls` lists them", near(.nearest))]
    UnknownImage {
        /// The name asked for.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// Somebody else changed the app meanwhile.
    #[error(
        "app \"{name}\" is at generation {actual}, not {expected}: somebody changed it; look at it again and repeat with the new generation"
    )]
    WrongGeneration {
        /// The app.
        name: String,
        /// What the request expected.
        expected: Generation,
        /// What is.
        actual: Generation,
    },
    /// A count for an app whose policies decide.
    #[error(
        "app \"{name}\" is scaled by its policies between {min} and {max}; change these with `bellows apply`, or declare `replicas` instead of `policy`"
    )]
    ScaledByPolicy {
        /// The app.
        name: String,
        /// Its lower bound.
        min: u32,
        /// Its upper bound.
        max: u32,
    },
    /// An image that apps run.
    #[error("image \"{name}\" is what app \"{app}\" runs; remove or change the app first")]
    ImageInUse {
        /// The image's name.
        name: String,
        /// One app that is pinned to it.
        app: String,
    },
    /// Another machine has the name.
    #[error(
        "a node named \"{name}\" with another identity is known; a cloned disk? Remove the folder `identity` in the new agent's state folder, or name it differently, or `bellows node rm {name}` when the old server is gone"
    )]
    NodeNameTaken {
        /// The name.
        name: String,
    },
    /// A key seen before, for another request.
    #[error("idempotency key \"{key}\" was used for a different request; use a new one")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The spec is unsound; the door should have seen it.
    #[error("{0}")]
    BadSpec(String),
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default()
}
