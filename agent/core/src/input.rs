//! Everything that can happen to an agent's mind. One closed enum; `AgentCore::step` takes nothing else.

use serde::{Deserialize, Serialize};

use crate::health::{Health, Probe};
use crate::ids::{AppId, Fence, OrderSequence, ReplicaId, RevisionNumber, SessionId, SpecDigest};
use crate::journal::Record;
use crate::report::{Exit, NodeUse, Reason};
use crate::traffic::Demand;
use crate::units::{Bytes, Instant, Millis, Resources};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Once, before everything else: what the journal kept and what the runtime found.
    Adopted {
        /// The journal, oldest first; empty at the very first start.
        records: Vec<Record>,
        /// Attempts that the runtime still knows.
        found: Vec<Found>,
        /// When this node was last known to have a leader: from then on it counts as cut off.
        heard: Instant,
        /// Changes at every boot of the server: no process outlives it.
        boot: String,
    },
    /// Time went by; see `AgentCore::wake_at`.
    Tick,
    /// A leader greets on a new stream. Answered by `Persist(Fence)` when the fence is new, then `Hello`, in one step.
    Greeting {
        /// Its fence.
        fence: Fence,
        /// This connection, as it calls it.
        session: SessionId,
    },
    /// The stream ended.
    Disconnected {
        /// Which; another one may be live already.
        session: SessionId,
    },
    /// A batch of orders.
    Orders {
        /// Of the leader that sends.
        fence: Fence,
        /// The connection it belongs to.
        session: SessionId,
        /// Specs that this session has not carried before.
        specs: Vec<(SpecDigest, RunSpec)>,
        /// Ascending.
        orders: Vec<Order>,
    },
    /// The leader has taken note of these ends.
    Acknowledged {
        /// The connection it belongs to.
        session: SessionId,
        /// Which.
        ended: Vec<ReplicaId>,
    },
    /// The image is unpacked.
    ImageReady {
        /// Its manifest digest.
        image: String,
    },
    /// The image cannot be had.
    ImageFailed {
        /// Its manifest digest.
        image: String,
        /// Worth another try?
        retry: bool,
        /// What went wrong, in words.
        why: String,
    },
    /// The attempt's program was executed.
    Launched {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Its own address.
        address: String,
    },
    /// The attempt could not be started; nothing of it is left.
    LaunchFailed {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Why.
        failure: LaunchFailure,
    },
    /// No process of the attempt is left.
    Exited {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// What became of it.
        exit: Exit,
    },
    /// The port that decides readiness is, or is no longer, listened on.
    Listening {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Is it?
        listening: bool,
    },
    /// A health check came to an end. Answers `Effect::Check`.
    Checked {
        /// Who.
        replica: ReplicaId,
        /// Which attempt.
        attempt: u32,
        /// Which check.
        probe: Probe,
        /// Success, or why not, in words.
        outcome: Result<(), String>,
    },
    /// Requests in flight changed, as the ingress counts them.
    Requests {
        /// Who.
        replica: ReplicaId,
        /// In flight and held.
        requests: u32,
    },
    /// The ingress counted anew what an app is asked for here.
    Demand {
        /// Which.
        app: AppId,
        /// What.
        demand: Demand,
    },
    /// What this agent may start by itself, in place of what it was told before.
    Allowances {
        /// Of the leader that sends.
        fence: Fence,
        /// The connection it belongs to.
        session: SessionId,
        /// Counts within the session.
        version: u64,
        /// Specs that this session has not carried before.
        specs: Vec<(SpecDigest, RunSpec)>,
        /// One for each copy.
        allowances: Vec<Allowance>,
    },
    /// Counters were read. Answers `Effect::Sample`, and comes by itself once per interval.
    Sampled {
        /// One per replica that could be asked.
        readings: Vec<Reading>,
    },
    /// A person wants a replica stopped in its tracks, or to go on. Answered by `Effect::Freeze`, or `Effect::RefuseFreeze`.
    Freeze {
        /// Who.
        replica: ReplicaId,
        /// Stopped, or to go on.
        frozen: bool,
        /// Also when it is in rotation.
        force: bool,
        /// The shell's own, for the answer.
        ticket: u64,
    },
    /// It is time for a heartbeat.
    Heartbeat {
        /// The node's own use.
        load: NodeUse,
    },
}

/// One copy that this agent may start without asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The id that it shall have: given out by the leader, for this copy only.
    pub id: ReplicaId,
    /// Whose copy.
    pub app: AppId,
    /// Which revision.
    pub revision: RevisionNumber,
    /// Names a spec that this session has carried.
    pub digest: SpecDigest,
}

/// Why an attempt could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchFailure {
    /// It can never work here (no such program, an impossible limit): the replica ends.
    Impossible(String),
    /// It may work the next time: counts as a crash.
    Failed(String),
}

/// Counters of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Who.
    pub replica: ReplicaId,
    /// Which attempt.
    pub attempt: u32,
    /// What was read; nothing when it could not be read.
    pub counters: Option<Counters>,
}

/// What the kernel says of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// CPU time since its start, in microseconds.
    pub cpu_us: u64,
    /// Memory charged to it.
    pub memory: Bytes,
    /// Processes and threads.
    pub processes: u32,
    /// Established TCP connections.
    pub connections: u32,
    /// Does the app hold its busy mark open?
    pub busy_mark: bool,
}

/// An attempt that the runtime still knew at start-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Who.
    pub replica: ReplicaId,
    /// Which attempt.
    pub attempt: u32,
    /// How it is.
    pub state: FoundState,
}

/// How a found attempt is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundState {
    /// It runs.
    Alive {
        /// Its own address.
        address: String,
        /// Since when.
        since: Instant,
    },
    /// It ended while nobody looked.
    Ended(Exit),
}

/// A fenced instruction about one replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Place in the session, ascending.
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
    /// Run it.
    Start {
        /// The app.
        app: AppId,
        /// The revision.
        revision: RevisionNumber,
        /// Names a spec that this session has carried.
        digest: SpecDigest,
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

/// What deciding needs of a spec; the shell keeps the whole of it under its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Manifest digest of the image.
    pub image: String,
    /// Declared use, which is also the limit.
    pub resources: Resources,
    /// The port whose listening means ready; without one, running does.
    pub ready_port: Option<u16>,
    /// From SIGTERM to SIGKILL when the agent ends it by itself (cut off).
    pub stop_grace: Millis,
    /// Without a controller.
    pub when_cut_off: WhenCutOff,
    /// What it is asked, again and again.
    #[serde(default)]
    pub health: Health,
}

/// What to do with replicas when no controller answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenCutOff {
    /// Serve on.
    #[default]
    KeepRunning,
    /// End them after this long.
    StopAfter(Millis),
}
