//! Everything that can be due.

use super::wire::{Down, Side, StreamId, Up};
use bellows_agent_core as agent;
use std::rc::Rc;

/// Place of a host in the world.
pub(crate) type HostNumber = usize;

/// Place of a site in the world.
pub(crate) type SiteNumber = usize;

/// One attempt of one replica.
pub(crate) type Attempt = (agent::ReplicaId, u32);

/// What is due. A generation names the life of the process it is meant for: news for an earlier life are void.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A member's clock.
    HostTick { host: HostNumber, life: u64 },
    /// A raft message arrives.
    Letter { from: HostNumber, to: HostNumber, bytes: Rc<[u8]> },
    /// A host's disk has finished a batch.
    Synced { host: HostNumber, life: u64, number: u64 },
    /// A host's process starts.
    HostStart { host: HostNumber },
    /// A message of an agent arrives at its host.
    Up { stream: StreamId, message: Up },
    /// A message of a host arrives at its agent.
    Down { stream: StreamId, message: Rc<Down> },
    /// One side notices that the stream is gone.
    Broken { stream: StreamId, side: Side },
    /// An agent opens a stream.
    Dial { site: SiteNumber, life: u64 },
    /// An agent has waited long enough for a greeting.
    DialTimeout { stream: StreamId },
    /// An agent samples and reports.
    Beat { site: SiteNumber, life: u64 },
    /// An agent's mind asked to be woken.
    Wake { site: SiteNumber, life: u64 },
    /// An agent's process starts.
    AgentStart { site: SiteNumber },
    /// An agent's process dies, and comes back.
    AgentFalls { site: SiteNumber, back_after: u64 },
    /// A server boots.
    Boot { site: SiteNumber },
    /// Something happens on a server.
    Machine { site: SiteNumber, boot: u64, news: News },
    /// People think of something.
    Idea,
    /// A request arrives at a host.
    Request { request: usize, attempt: u32, host: HostNumber },
    /// An answer arrives.
    Answer { request: usize, attempt: u32, answer: Answer },
    /// Nobody answered in time.
    Impatience { request: usize, attempt: u32 },
    /// Something goes wrong.
    Weather,
    /// A cut is mended.
    Heal { cut: u64 },
    /// Is everything as declared?
    Judge,
}

/// What a machine does by itself, or in answer.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// The image is there, or not.
    Pulled { image: String, fails: bool },
    /// The attempt's program runs, or failed to.
    Launched { attempt: Attempt, fate: Fate },
    /// The port is listened on.
    Listens { attempt: Attempt },
    /// The process ends.
    Exits { attempt: Attempt, exit: agent::Exit },
    /// Counters were read.
    Sampled { attempt: Attempt },
}

/// How a launch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Runs,
    Fails,
    Impossible,
}

/// What people hear.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Decided.
    Decided(bellows_core::model::command::Outcome),
    /// Not decided; try again, elsewhere perhaps.
    Undecided,
}
