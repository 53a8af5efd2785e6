//! Everything that an agent's mind can want done. The shell performs in order; it has no choices left.
//!
//! Whatever a step persists is written, and synced where [`crate::Record::durable`] says so, before anything else of that step is performed.

use serde::{Deserialize, Serialize};

use crate::demand::Asked;
use crate::health::Probe;
use crate::ids::{AppId, Fence, ReplicaId, SessionId, SpecDigest};
use crate::input::Allowance;
use crate::journal::Record;
use crate::report::{ReplicaReport, Report};
use crate::units::Millis;

/// How a copy of this node stands, for its ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Who.
    pub id: ReplicaId,
    /// Whose.
    pub app: AppId,
    /// Its present attempt.
    pub attempt: u32,
    /// Its own address; empty while it has no process.
    pub address: String,
    /// Does it answer?
    pub ready: bool,
    /// Nobody new is let in.
    pub parked: bool,
    /// It has ended for good.
    pub over: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Append to the journal.
    Persist(Record),
    /// Answer the greeting; the shell adds what the server is.
    Hello {
        /// As persisted.
        fence: Fence,
        /// Which connection.
        session: SessionId,
        /// Every replica that runs, or whose end no leader has acknowledged.
        inventory: Vec<ReplicaReport>,
        /// The latest ended ones that were acknowledged: for a leader who does not know them, to explain them.
        remembered: Vec<ReplicaReport>,
        /// What this agent may still start by itself.
        allowances: Vec<Allowance>,
    },
    /// Ask the leader for the routes of apps that were asked for here.
    Subscribe {
        /// The fence of the leader it is meant for.
        fence: Fence,
        /// Which connection.
        session: SessionId,
        /// Apps.
        apps: Vec<AppId>,
        /// Apps that nobody has asked for here for long: what the ingress knows of their copies elsewhere gets old from now on.
        dropped: Vec<AppId>,
    },
    /// Tell the leader of demand that has changed.
    Traffic {
        /// The fence of the leader it is meant for.
        fence: Fence,
        /// Which connection.
        session: SessionId,
        /// At this node's ingress.
        apps: Vec<(AppId, Asked)>,
        /// Requests in flight in copies of this node.
        replicas: Vec<(ReplicaId, u32)>,
    },
    /// Tell the ingress of this node how a copy here stands. Comes before whatever the leader is told of it.
    Serve(Serving),
    /// Send a report, to this session only: a shell whose stream is another one drops it.
    Report {
        /// The fence of the leader it is meant for.
        fence: Fence,
        /// Which connection.
        session: SessionId,
        /// What.
        report: Report,
    },
    /// End this connection and open another.
    CloseSession {
        /// Which.
        session: SessionId,
        /// What, where, how to mend it.
        why: String,
    },
    /// Fetch and unpack an image; answered by `ImageReady` or `ImageFailed`.
    Pull {
        /// Its manifest digest.
        image: String,
    },
    /// Start an attempt; answered by `Launched` or `LaunchFailed`, later `Exited`.
    Launch {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Names the spec.
        digest: SpecDigest,
    },
    /// Tell by `Listening` when the port is listened on, and at every sample when that changed.
    Watch {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Which port.
        port: u16,
    },
    /// Make this health check, in its time; answered by `Checked`.
    Check {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Which check of its spec.
        probe: Probe,
    },
    /// Stop all its processes in their tracks, or let them go on; a person waits for it.
    Freeze {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Stopped, or to go on.
        frozen: bool,
        /// Of the wish.
        ticket: u64,
    },
    /// A wish to freeze or thaw is not done.
    RefuseFreeze {
        /// Of the wish.
        ticket: u64,
        /// Why, and how to mend it.
        why: String,
    },
    /// Let it go on, before anything that follows: it is taken back into rotation.
    Thaw {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
    },
    /// Read this replica's counters now; answered by `Sampled`.
    Sample {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
    },
    /// Ask the app to end (its stop signal); `Kill` follows when it does not within the grace.
    Stop {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Information: the core keeps the time.
        grace: Millis,
    },
    /// End every process of it.
    Kill {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
    },
    /// Nobody asks for this attempt's log and record any more; it may be unknown to the runtime.
    Forget {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
    },
    /// No replica and no live session refers to this spec any more.
    DropSpec {
        /// Which.
        digest: SpecDigest,
    },
    /// The runtime runs something that the journal knows nothing of. It is left alone; people should look.
    Stray {
        /// Who it says it is.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
    },
}
