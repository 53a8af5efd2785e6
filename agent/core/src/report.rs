//! What the agent says of itself and of its replicas.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, Obeyed, OrderSequence, ReplicaId, RevisionNumber, SpecDigest};
use crate::units::{Instant, Millis, Permille, Resources};

/// A code for programs and a sentence for people. The sentence holds every figure that the decision was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, snake_case, e.g. `least_loaded`, `crash_loop`.
    pub code: String,
    /// One sentence.
    pub text: String,
}

impl Reason {
    /// A reason with this code and sentence.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where an attempt stands. Only advances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lifecycle {
    /// Taken in; nothing was done yet.
    #[default]
    Ordered,
    /// The image is being fetched.
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

/// Does a replica work?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Requests in flight, an open connection, a busy mark, or CPU above the idle threshold.
    Busy {
        /// Requests in flight and held; 0 when something else keeps it busy.
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

/// How a replica ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What the last attempt's process said.
    pub exit: Exit,
    /// Ordered, or by itself.
    pub why: Reason,
    /// Not by itself: an order stopped it, or its own terms did when it was cut off. The leader that ordered it may be another one, or have
    /// forgotten with its connection.
    #[serde(default)]
    pub wanted: bool,
    /// When the agent took note.
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

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("ended by the kernel: out of memory"),
            Self::NotStarted => f.write_str("never started"),
            Self::Unknown => f.write_str("ended unseen"),
        }
    }
}

/// Everything the agent knows of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Who.
    pub id: ReplicaId,
    /// Whose copy.
    pub app: AppId,
    /// The revision it runs.
    pub revision: RevisionNumber,
    /// Its digest.
    pub digest: SpecDigest,
    /// The last order for it that was obeyed.
    pub obeyed: Obeyed,
    /// Counts from 1.
    pub attempt: u32,
    /// How the last attempt before this one ended whose end was seen; unknown when there was none but attempts were lost.
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
    /// What its start order set aside for it.
    pub resources: Resources,
    /// Why it was placed here, as ordered.
    pub reason: Reason,
    /// Set when it ended for good.
    pub ended: Option<Ended>,
    /// Processes and threads, as last measured.
    pub processes: u32,
    /// Established TCP connections, as last measured.
    pub connections: u32,
    /// Which health check fails, or ended the attempt before this one, in words; empty while all pass.
    #[serde(default)]
    pub unhealthy: String,
}

/// A node's measured use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUse {
    /// Used in the last interval, everything in the node's subtree counted.
    pub used: Resources,
    /// How old the reading is.
    pub age: Millis,
    /// Share of time in which some task waited (the largest of CPU, memory, disk); absent where the kernel has none.
    pub pressure: Option<Permille>,
}

/// News for the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The highest order sequence of this session that was taken in, whatever its outcome.
    pub acknowledged: OrderSequence,
    /// Present in heartbeats.
    pub load: Option<NodeUse>,
    /// In heartbeats every replica, else those that changed.
    pub replicas: Vec<ReplicaReport>,
    /// Orders that were not carried out.
    pub refused: Vec<RefusedOrder>,
    /// The last version of this session's allowances that was taken in.
    pub allowed: u64,
}

/// An order that was not carried out.
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
    /// Start: no room, counted here and now.
    NoRoom,
    /// The copy is not known or has ended.
    UnknownReplica,
    /// Start: the image cannot be had.
    NoImage,
    /// It cannot be done.
    Failed,
    /// Below the fence.
    Fenced,
}
