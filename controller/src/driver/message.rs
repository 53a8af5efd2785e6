//! What can be said to the driver. Closed enums; whoever waits gets the answer through a channel that is dropped when nobody answers.

use bellows_core::ids::{AppId, Fence, NodeId, ReplicaId, SessionId};
use bellows_core::input::{AgentIdentity, NodeFacts, ReplicaReport, Report, Request, TrafficReport};
use bellows_core::model::command::Outcome;
use bellows_core::model::spec::AppSpec;
use bellows_proto::operator as wire;
use tokio::sync::oneshot;
use tonic::Status;

use super::outbox::Outbox;
use super::view::{Gauges, Overview};

/// One thing for the driver to take in.
pub(crate) enum Message {
    /// A person or a service asks for a change.
    Request { by: String, key: String, request: Request, answer: oneshot::Sender<Answer> },
    /// Somebody wants to know.
    Question(Question),
    /// An agent's stream.
    Agent(AgentMessage),
    /// Another member's raft message.
    Raft { bytes: Vec<u8> },
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Committed, or refused by the model.
    Decided(Outcome),
    /// It may or may not take effect later, or somebody else leads.
    Undecided(String),
}

/// What an agent's stream brings.
pub(crate) enum AgentMessage {
    Connecting {
        node: NodeId,
        agent: AgentIdentity,
        fence: Fence,
        outbox: Outbox,
        session: oneshot::Sender<SessionId>,
    },
    Hello {
        node: NodeId,
        session: SessionId,
        facts: NodeFacts,
        inventory: Vec<ReplicaReport>,
        remembered: Vec<ReplicaReport>,
    },
    /// It answers a probe that was made for the sake of another connection.
    Alive {
        node: NodeId,
        session: SessionId,
        newcomer: SessionId,
    },
    Report {
        node: NodeId,
        session: SessionId,
        report: Report,
    },
    Subscribe {
        node: NodeId,
        session: SessionId,
        apps: Vec<AppId>,
        dropped: Vec<AppId>,
    },
    Traffic {
        node: NodeId,
        session: SessionId,
        report: TrafficReport,
    },
    /// What it said cannot be taken; the session ends with these words.
    Unfit {
        node: NodeId,
        session: SessionId,
        why: String,
    },
    Disconnected {
        node: NodeId,
        session: SessionId,
    },
}

type Asked<T> = oneshot::Sender<Result<T, Status>>;

/// What can be asked. Answered from the core's view at once; nothing is changed.
pub(crate) enum Question {
    Apps(Asked<Vec<wire::App>>),
    Replicas {
        tenant: String,
        app: String,
        ended: bool,
        answer: Asked<Vec<wire::Replica>>,
    },
    Nodes(Asked<Vec<wire::Node>>),
    Images(Asked<Vec<wire::Image>>),
    Status(Asked<wire::StatusResponse>),
    Settled {
        tenant: String,
        app: String,
        generation: u64,
        answer: Asked<wire::AwaitProgress>,
    },
    Explain {
        tenant: String,
        subject: String,
        answer: Asked<Vec<wire::Explanation>>,
    },
    Events {
        after: u64,
        app: String,
        answer: Asked<Vec<wire::Event>>,
    },
    /// The digest that an image's name stands for.
    ResolveImage {
        name: String,
        answer: Asked<String>,
    },
    /// What would an apply of this spec do?
    DryRun {
        spec: Box<AppSpec>,
        expected: Option<u64>,
        answer: Asked<wire::AppChanged>,
    },
    /// The node on which a replica runs.
    /// The living copies of an app, on a node, or the one of this id; with nothing said, of the tenant.
    Copies {
        tenant: String,
        subject: String,
        answer: oneshot::Sender<Result<Vec<(NodeId, wire::Replica)>, Status>>,
    },
    Owner {
        replica: ReplicaId,
        answer: Asked<NodeId>,
    },
    /// May somebody join with the secret of this hash?
    TokenHolds {
        hash: String,
        answer: Asked<bool>,
    },
    /// The cluster's name, if the node is part of it.
    Membership {
        node: NodeId,
        answer: Asked<String>,
    },
    /// Everything that the page shows.
    Overview(Asked<Overview>),
    /// What the metrics show.
    Gauges(Asked<Gauges>),
}
