//! What reaches the driver: inputs for the core, and what the shell itself must know beside them.

use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::input::Reading;
use bellows_agent_core::{Fence, Input, Lifecycle, ReplicaId, SessionId};
use bellows_proto::node::FromAgent;
use bellows_proto::types::AppSpec;
use bellows_runtime::handle::NodeUsage;
use tokio::sync::{mpsc, oneshot};

use crate::convert::Batch;
use crate::traffic::{AllowancePush, EntrancePush, RoutePush};

/// One piece of news.
pub(crate) enum News {
    /// For the core as it is.
    Core(Input),
    /// A leader greets.
    Greeting(Greeting),
    /// Orders with their whole specs.
    Orders(Batch),
    /// Where requests come in.
    Entrances(EntrancePush),
    /// Copies of apps that are asked for here.
    Routes(RoutePush),
    /// What may be started here.
    Allowances(AllowancePush),
    /// Counters of every attempt, and of the node where they could be read.
    Measured { readings: Vec<Reading>, node: Option<NodeUsage> },
    /// A question of a call: how does this replica stand? Nothing when it is not known.
    Find { replica: ReplicaId, answer: oneshot::Sender<Option<Standing>> },
    /// A call wants a replica frozen or thawed; what became of it goes back.
    Freeze { replica: ReplicaId, frozen: bool, force: bool, answer: FreezeAnswer },
    /// The agent shall end.
    Close,
    /// A controller said no for good. Told through here so that its last orders come first.
    Refused(String),
}

/// The memory of a replica before and after it was frozen; the same twice when it was thawed. Or why not, in words.
pub(crate) type FreezeAnswer = oneshot::Sender<Result<(u64, u64), String>>;

/// How a replica stands, for calls.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) attempt: u32,
    pub(crate) lifecycle: Lifecycle,
    /// What it runs; nothing once it has ended and was forgotten.
    pub(crate) spec: Option<Arc<AppSpec>>,
}

/// A leader greets, and this is how to speak to it.
pub(crate) struct Greeting {
    pub(crate) fence: Fence,
    pub(crate) session: SessionId,
    pub(crate) heartbeat: Duration,
    pub(crate) stream: Outbound,
}

/// The way up to the leader.
pub(crate) struct Outbound {
    pub(crate) messages: mpsc::Sender<FromAgent>,
    /// Says why the stream shall end.
    pub(crate) close: Option<oneshot::Sender<String>>,
}
