//! Everything that can happen to the leader's mind. One closed enum; `Core::step` takes nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    AppId, Fence, LogIndex, NodeId, OrderSequence, ReplicaId, RevisionNumber, SessionId, SpecDigest, Token,
};
use crate::model::Model;
use crate::model::command::{Command, NodeState};
use crate::model::spec::AppSpec;
use crate::plan::allow::Allowance;
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::{Bytes, CpuMilli, Millis, Permille, Resources};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Time went by. The shell sends one at least every `Limits::tick`.
    Tick,
    /// Raft committed a command; every member applies it in log order.
    Committed {
        /// Its place.
        index: LogIndex,
        /// When this process proposed it: the token of its request.
        token: Option<Token>,
        /// What.
        command: Command,
    },
    /// A snapshot replaces the model (start-up, or a member that lagged behind).
    Restored {
        /// The last index it contains.
        index: LogIndex,
        /// The model.
        model: Box<Model>,
    },
    /// This member leads, and has applied everything committed before its term.
    BecameLeader {
        /// Raft's term.
        term: u64,
    },
    /// This member leads no more: sessions and observations are dropped.
    SteppedDown,
    /// Did a quorum answer within the election timeout? Without one no order leaves.
    Quorum {
        /// The answer.
        heard: bool,
    },
    /// A proposal will not be committed (leadership lost, or the log refused it).
    ProposalDropped {
        /// The token it bore.
        token: Token,
        /// What went wrong, for the person who asked.
        why: String,
    },
    /// A person or a service asks.
    Request {
        /// Given back in `Effect::Reply`.
        token: Token,
        /// Who, from the credential.
        by: String,
        /// May be empty.
        key: String,
        /// What.
        request: Request,
    },
    /// An agent opened a stream; its certificate says which node it is. Answered by `Effect::Greet` or `Effect::CloseSession`.
    Connecting {
        /// From the certificate.
        node: NodeId,
        /// Made by the shell, unique in this process's time as leader.
        session: SessionId,
        /// Which one of the agents that may have this identity.
        agent: AgentIdentity,
        /// The highest fence that the agent has obeyed.
        fence: Fence,
    },
    /// The agent persisted our fence and took its inventory.
    Hello {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// What the server is.
        facts: NodeFacts,
        /// All replicas it runs, and ended ones that no leader has acknowledged.
        inventory: Vec<ReplicaReport>,
        /// The latest ended ones that an earlier leader acknowledged: only to be explained.
        remembered: Vec<ReplicaReport>,
    },
    /// The agent of a live session answers a probe: it is there.
    Alive {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// For whose sake it was asked.
        newcomer: SessionId,
    },
    /// A heartbeat, or news between two heartbeats.
    Report {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// What.
        report: Report,
    },
    /// An ingress subscribes to apps' routes. Ends with the session.
    Subscribe {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// Apps that it takes requests for from now on.
        apps: Vec<AppId>,
        /// Apps that it has had no request for in a long time.
        dropped: Vec<AppId>,
    },
    /// Demand, counted where it arrives.
    Traffic {
        /// Whose.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// What.
        report: TrafficReport,
    },
    /// The stream ended.
    Disconnected {
        /// Whose.
        node: NodeId,
        /// Which connection; another session of the node may be live already.
        session: SessionId,
    },
}

/// What people and services ask for. Answered by one `Effect::Reply` with the same token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Declare an app.
    Apply {
        /// Already checked in form by the shell; the core checks sense.
        spec: Box<AppSpec>,
        /// Of the canonical encoding.
        digest: SpecDigest,
        /// Expected generation.
        expected: Option<crate::ids::Generation>,
    },
    /// Declare a count.
    Scale {
        /// The app's tenant.
        tenant: String,
        /// The app's name.
        name: String,
        /// Copies wanted.
        replicas: u32,
        /// Expected generation.
        expected: Option<crate::ids::Generation>,
    },
    /// End an app.
    Remove {
        /// The app's tenant.
        tenant: String,
        /// The app's name.
        name: String,
        /// Expected generation.
        expected: Option<crate::ids::Generation>,
    },
    /// Cordon, drain or activate a node, named as people name it.
    SetNodeState {
        /// The node's name.
        node: String,
        /// To what.
        state: NodeState,
    },
    /// A node left for good.
    RemoveNode {
        /// The node's name.
        node: String,
    },
    /// A server asks to join; its token was checked by the shell against the model.
    Join {
        /// Unique name.
        name: String,
        /// The server's random identity.
        machine: String,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
    /// An image is stored.
    RegisterImage {
        /// Its name.
        name: String,
        /// Its manifest digest.
        digest: String,
        /// Its size.
        size: Bytes,
    },
    /// Forget an image.
    RemoveImage {
        /// Its name.
        name: String,
    },
    /// Keep the hash of a join token.
    CreateToken {
        /// SHA-256 of the secret, hex.
        hash: String,
        /// After this it is refused.
        expires: Instant,
    },
    /// Leave observe mode.
    Resume,
}

/// An agent among all that may ever show one node's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// Random, made with the identity and kept beside it; a cloned disk has it too.
    pub machine: String,
    /// Changes at every boot of the server; a clone on another server has another one.
    pub boot: String,
    /// Random, made at every start of the agent: a reconnect has the same, every other agent another one.
    pub instance: String,
}

/// The order that an agent obeyed last for a replica. Session ids are unique within a fence only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obeyed {
    /// Of the leader that gave it.
    pub fence: Fence,
    /// In which session.
    pub session: SessionId,
    /// Its place there.
    pub sequence: OrderSequence,
}

/// What a server is; told in hello.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Changes at every boot of the server.
    pub boot: String,
    /// What its cgroup subtree may use.
    pub capacity: Resources,
    /// Labels from the agent's configuration; they replace those of the join.
    pub labels: BTreeMap<String, String>,
    /// The agent's version, for people.
    pub version: String,
    /// Where other nodes' ingresses reach its ingress; empty: they cannot.
    #[serde(default)]
    pub ingress: String,
    /// What its agent may still start by itself, by the word of an earlier leader.
    #[serde(default)]
    pub allowances: Vec<Allowance>,
}

/// Counts of requests: in full after a hello, later what has changed. What is not named is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// By this node's ingress.
    pub apps: Vec<AppTraffic>,
    /// Requests in flight in copies of this node, counted by their owner.
    pub replicas: Vec<(ReplicaId, u32)>,
}

/// What an ingress counts of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppTraffic {
    /// Which.
    pub app: AppId,
    /// Requests that wait now, because no copy can take them.
    pub held: u32,
    /// Requests that have come since the session began.
    pub arrivals: u64,
    /// How long the oldest of the waiting ones has waited.
    pub oldest_held: Millis,
    /// Requests that the ingress refused since the session began.
    #[serde(default)]
    pub refused: u64,
    /// Why it refused the last one, and how long ago.
    #[serde(default)]
    pub last_refusal: Option<(String, Millis)>,
}

/// News of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The highest order sequence of this session that the agent has taken in, whatever its outcome.
    pub acknowledged: OrderSequence,
    /// Present in heartbeats: the node's own use, when it was read.
    pub load: Option<NodeUse>,
    /// In heartbeats every replica of the node, else those that changed.
    pub replicas: Vec<ReplicaReport>,
    /// Orders that the agent would not carry out.
    pub refused: Vec<RefusedOrder>,
    /// The last version of its allowances that the agent has taken in.
    #[serde(default)]
    pub allowed: u64,
}

/// A node's measured use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUse {
    /// Used in the last interval, everything in the node's subtree counted.
    pub used: Resources,
    /// How old the reading was when it was sent.
    pub age: Millis,
    /// Share of time in which some task waited for CPU, memory or disk (PSI, the largest); absent where the kernel has none.
    pub pressure: Option<Permille>,
}

/// Where an attempt stands. Only advances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lifecycle {
    /// The leader decided; the agent has not said anything yet.
    #[default]
    Ordered,
    /// The agent fetches the image.
    Pulling,
    /// The runtime launches, or the next attempt waits for its back-off.
    Starting,
    /// The app's own process was executed.
    Running,
    /// SIGTERM was sent.
    Stopping,
    /// No process is left.
    Ended,
}

/// Seen by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Requests in flight, or a busy mark, or CPU above the idle threshold (then 0 requests).
    Busy {
        /// Requests in flight and held.
        requests: u32,
    },
    /// Nothing to do for this long.
    Idle {
        /// How long.
        length: Millis,
    },
}

impl Default for Activity {
    fn default() -> Self {
        Self::Idle { length: Millis(0) }
    }
}

/// What an agent knows of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Whose copy, first of all.
    pub id: ReplicaId,
    /// The app.
    pub app: AppId,
    /// The revision it runs.
    pub revision: RevisionNumber,
    /// Its digest.
    pub digest: SpecDigest,
    /// The last order for it that the agent obeyed.
    pub obeyed: Obeyed,
    /// Counts from 1.
    pub attempt: u32,
    /// How the last attempt before this one ended whose end was seen; unknown when there was none but attempts were lost.
    #[serde(default)]
    pub last_exit: Option<Exit>,
    /// Of the present attempt.
    pub lifecycle: Lifecycle,
    /// Does it answer?
    pub ready: bool,
    /// Is it out of rotation?
    pub parked: bool,
    /// Does it work?
    pub activity: Activity,
    /// Its own address, node-local; empty until it has one.
    pub address: String,
    /// Since the start of the present attempt.
    pub running_for: Millis,
    /// Measured in the last interval.
    pub used: Resources,
    /// What its start order set aside for it, so that a new leader counts it even when it knows no such revision.
    pub resources: Resources,
    /// Why it was placed here, as ordered.
    pub reason: Reason,
    /// Set when it ended for good.
    pub ended: Option<Ended>,
    /// Which health check fails, or ended the attempt before this one, in words; empty while all pass.
    #[serde(default)]
    pub unhealthy: String,
}

/// How a replica ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What the last attempt's process said.
    pub exit: Exit,
    /// Ordered, or by itself.
    pub why: Reason,
    /// Not by itself: an order stopped it, perhaps of an earlier leader, or its own terms did when it was cut off.
    #[serde(default)]
    pub wanted: bool,
    /// By the agent's clock.
    pub at: Instant,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it for memory.
    OutOfMemory,
    /// It never started.
    NotStarted,
    /// Nobody saw it (the server rebooted).
    Unknown,
}

/// An order that the agent would not carry out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedOrder {
    /// The order.
    pub sequence: OrderSequence,
    /// Its replica.
    pub replica: ReplicaId,
    /// Why.
    pub why: OrderRefusal,
    /// In words.
    pub text: String,
}

/// Why an agent refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderRefusal {
    /// Stop: the copy works again.
    Busy,
    /// Start: no room, measured here and now.
    NoRoom,
    /// The copy is not known or has ended.
    UnknownReplica,
    /// Start: the image cannot be had.
    NoImage,
    /// The runtime failed.
    Failed,
    /// Below the fence.
    Fenced,
}

/// CPU of a node in whole numbers, for the shell's convenience.
pub const ONE_CPU: CpuMilli = CpuMilli(1000);
