//! What the leader knows of one server.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::roster::Roster;
use crate::ids::{AppId, OrderSequence, ReplicaId, SessionId};
use crate::input::{AgentIdentity, NodeFacts, NodeUse};
use crate::plan::allow::Promise;
use crate::time::Instant;
use crate::units::{Permille, Resources};

/// Is the server there? Unknown is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Liveness {
    /// A live session, heard within the limit.
    Up,
    /// Neither heard nor given up.
    Unknown,
    /// Given up.
    Lost,
}

/// One connection of its agent.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Which agent it is.
    pub agent: AgentIdentity,
    /// Did the hello come?
    pub live: bool,
    /// The last order sent.
    pub sent: OrderSequence,
    /// The last order that a report acknowledged.
    pub acknowledged: OrderSequence,
    /// The last version of the allowances sent.
    pub allowed: u64,
    /// Since when.
    pub since: Instant,
}

/// Another agent with the node's identity, that waits until the first one has answered or is given up.
#[derive(Clone, Debug, Serialize)]
pub struct Newcomer {
    /// Its connection; none while it is about to connect again.
    pub session: Option<SessionId>,
    /// Which agent it is.
    pub agent: AgentIdentity,
    /// Since when it waits.
    pub since: Instant,
}

/// One server as seen by this leader. A placement or a heartbeat needs what stands first, and 10,000 of these are more than a cache
/// holds: hence the order.
#[derive(Clone, Debug, Serialize)]
#[repr(C)]
pub struct NodeSeen {
    /// Is it there?
    pub liveness: Liveness,
    /// Silent for longer than heartbeats explain, but not lost yet.
    pub late: bool,
    /// Did this leader ever hear it?
    pub ever_heard: bool,
    /// Counts what was placed, so that equals are drawn anew.
    pub draws: u32,
    /// Counts changes of what decides whether it serves at all: labels, state, liveness. See `World::touch`.
    pub shape: u32,
    /// Its place among this step's batches of orders, if it has one there.
    #[serde(skip)]
    pub batch: u32,
    /// Declared resources of everything on it, ordered or running or promised.
    pub reserved: Resources,
    /// Use that its counters cannot show yet.
    pub unmeasured: Resources,
    /// From its last heartbeat.
    pub measured: NodeUse,
    /// When that was read; absent before the first heartbeat of a session.
    pub measured_at: Option<Instant>,
    /// When it was last heard; before the first time, when waiting began.
    pub heard: Instant,
    /// From its last hello.
    pub facts: NodeFacts,
    /// What is on it.
    pub replicas: Roster,
    /// Its connection.
    pub session: Option<Session>,
    /// How often it was lost lately, and until when that counts against it; then the level is set to 0.
    pub flaps: (u32, Instant),
    /// The agent that spoke for it last.
    pub spoke: Option<AgentIdentity>,
    /// Who else would.
    pub newcomer: Option<Newcomer>,
    /// What its agent may start by itself.
    #[serde(serialize_with = "crate::pairs::serialize")]
    pub promises: BTreeMap<ReplicaId, Promise>,
    /// Apps that its ingress takes requests for.
    pub asks_for: BTreeSet<AppId>,
}

impl NodeSeen {
    /// A server that was not heard yet.
    pub fn unheard(since: Instant) -> Self {
        Self {
            shape: 0,
            batch: 0,
            liveness: Liveness::Unknown,
            heard: since,
            ever_heard: false,
            session: None,
            facts: NodeFacts::default(),
            measured: NodeUse::default(),
            measured_at: None,
            reserved: Resources::default(),
            unmeasured: Resources::default(),
            replicas: Roster::default(),
            flaps: (0, Instant(0)),
            late: false,
            draws: 0,
            spoke: None,
            newcomer: None,
            promises: BTreeMap::new(),
            asks_for: BTreeSet::new(),
        }
    }

    /// Capacity that nothing has been declared for.
    pub fn room(&self) -> Resources {
        self.facts.capacity - self.reserved
    }

    /// Use / capacity, in the fuller dimension; copies not yet measured count as declared.
    pub fn load(&self) -> Permille {
        let used = self.measured.used + self.unmeasured;
        let cpu = permille(used.cpu.0, self.facts.capacity.cpu.0);
        let memory = permille(used.memory.0, self.facts.capacity.memory.0);
        Permille(cpu.max(memory))
    }

    /// Can orders reach it?
    pub fn reachable(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.live)
    }

    /// How much its history of losses, and its silence, count against it now.
    pub fn flapping(&self) -> u32 {
        self.flaps.0 + u32::from(self.late)
    }
}

fn permille(part: u64, whole: u64) -> u32 {
    if whole == 0 {
        return if part == 0 { 0 } else { 1_000 };
    }
    // In 64 bits as far as they reach: this is asked for each copy placed, and a division in 128 bits is a call.
    let share = match part.checked_mul(1_000) {
        Some(thousands) => thousands / whole,
        None => u64::try_from(u128::from(part) * 1_000 / u128::from(whole)).unwrap_or(u64::MAX),
    };
    u32::try_from(share).unwrap_or(u32::MAX)
}
