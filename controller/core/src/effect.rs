//! Everything that the leader's mind can want done. The shell performs; it has no choices left.

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, Fence, NodeId, OrderSequence, ReplicaId, RevisionNumber, SessionId, SpecDigest, Token};
use crate::model::command::{Command, Outcome};
use crate::plan::allow::Allowance;
use crate::plan::routes::{Entrance, RouteUpdate};
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::{Millis, Resources};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Give this to raft. With a token, tell us its fate by `Committed { token, .. }` or `ProposalDropped`.
    Propose {
        /// Correlates; `None` for the leader's own records.
        token: Option<Token>,
        /// What.
        command: Command,
    },
    /// Answer a request.
    Reply {
        /// Whose.
        token: Token,
        /// What.
        outcome: Outcome,
    },
    /// Answer a request that was not decided: it may or may not take effect later, or somebody else leads.
    Unanswered {
        /// Whose.
        token: Token,
        /// In words.
        why: String,
    },
    /// Send the hello of this leader: fence and session.
    Greet {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// The leader's fence.
        fence: Fence,
    },
    /// Send orders, in sequence, in one batch.
    Orders {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// Under which fence.
        fence: Fence,
        /// What; sequences ascend without gaps.
        orders: Vec<Order>,
    },
    /// The agent may forget these ended replicas.
    Acknowledge {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// Which.
        ended: Vec<ReplicaId>,
    },
    /// Ask the agent of this connection whether it is there; answered by `Input::Alive`.
    Probe {
        /// Whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// For whose sake: another agent with the same identity waits there.
        newcomer: SessionId,
    },
    /// End a connection, saying why.
    CloseSession {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// Says what, where and how to mend it.
        why: String,
        /// Shall the agent try again by itself?
        retry: bool,
    },
    /// Tell an ingress where requests come in.
    Entrances {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// The leader's fence.
        fence: Fence,
        /// What is not named is gone.
        whole: bool,
        /// New and changed ones.
        apps: Vec<Entrance>,
        /// Apps that nobody can ask for any more.
        gone: Vec<AppId>,
        /// The latest nodes that left for good, whose certificates are worth nothing; none when there is no news of that.
        removed: Vec<NodeId>,
    },
    /// Tell a subscriber of its apps' copies.
    Routes {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// The leader's fence.
        fence: Fence,
        /// By app.
        updates: Vec<RouteUpdate>,
    },
    /// Tell an agent what it may start by itself; replaces what it was told before.
    Allowances {
        /// To whom.
        node: NodeId,
        /// Which connection.
        session: SessionId,
        /// The leader's fence.
        fence: Fence,
        /// Counts within the session.
        version: u64,
        /// One for each copy.
        allowances: Vec<Allowance>,
    },
    /// Something that people may want to know.
    Event(Event),
}

/// A fenced instruction about one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Place in the session.
    pub sequence: OrderSequence,
    /// Whose.
    pub replica: ReplicaId,
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// What to do with a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Run it. The shell adds the spec when this session has not carried that digest yet.
    Start {
        /// The app.
        app: AppId,
        /// The revision.
        revision: RevisionNumber,
        /// Names the spec.
        digest: SpecDigest,
        /// What is set aside for it.
        resources: Resources,
    },
    /// No new requests; keep it alive.
    Park,
    /// Take requests again.
    Unpark,
    /// End it.
    Stop {
        /// Refuse when it is not idle.
        only_if_idle: bool,
        /// From SIGTERM to SIGKILL.
        grace: Millis,
    },
}

/// Something that people may want to know, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What kind.
    pub kind: EventKind,
    /// About which app, when about one.
    pub app: Option<AppId>,
    /// About which replica, when about one.
    pub replica: Option<ReplicaId>,
    /// About which node, when about one.
    pub node: Option<NodeId>,
    /// Why.
    pub reason: Reason,
}

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// An app was declared, changed or removed.
    AppChanged,
    /// The wanted count changed.
    Scaled,
    /// A replica was placed.
    Placed,
    /// Copies cannot be placed.
    Unplaced,
    /// A replica runs.
    Started,
    /// A replica is ready.
    Ready,
    /// A replica is no longer ready.
    Unready,
    /// A health check fails, or ended an attempt; why, in words.
    Unhealthy,
    /// A replica's attempt crashed and is tried again.
    Restarted,
    /// A replica was taken out of rotation.
    Parked,
    /// A replica came back into rotation.
    Unparked,
    /// A replica is being stopped.
    Stopping,
    /// A replica ended.
    Ended,
    /// An agent refused an order.
    Refused,
    /// A node joined, left, or changed state.
    NodeChanged,
    /// A node is unheard and given up.
    NodeLost,
    /// A node is heard again.
    NodeReturned,
    /// Replicas of unknown apps or revisions were seen.
    Orphan,
    /// This member leads, or leads no more.
    Leader,
    /// An image was stored or removed.
    ImageChanged,
    /// A new revision takes over, is stuck, or has proved itself.
    Rollout,
    /// Replacement was slowed down, or is at full rate again.
    Brake,
}
