//! What an ingress is told of an app's copies: by the leader of all, by its own agent of those here.

use super::hold::Hold;
use crate::ids::ReplicaId;
use crate::units::Millis;

/// How an app's requests are shared and held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Never more requests at once in one copy.
    pub limit: Option<u32>,
    /// The oldest copy with fewer requests is preferred.
    pub target: Option<u32>,
    /// Bounds of what waits.
    pub hold: Hold,
    /// A new copy's share grows over this long.
    pub slow_start: Millis,
}

/// Who connects to a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// This agent.
    #[default]
    Here,
    /// The agent whose ingress is reached at this address (`HOST:PORT`).
    At(String),
}

/// A copy as the leader tells of it. Of copies here only this agent's own word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldCopy {
    /// Who.
    pub replica: ReplicaId,
    /// Whose.
    pub owner: Owner,
    /// Does it answer?
    pub ready: bool,
    /// Is it out of rotation?
    pub parked: bool,
}

/// A copy of this node, as its own agent tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HereCopy {
    /// Who.
    pub replica: ReplicaId,
    /// The present attempt.
    pub attempt: u32,
    /// Its own address; empty until it has one.
    pub address: String,
    /// Does it answer?
    pub ready: bool,
    /// Is it out of rotation, or on its way out?
    pub parked: bool,
}

/// A push of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Counts within one leader's time.
    pub version: u64,
    /// What is not named is gone; else it is as it was.
    pub whole: bool,
    /// Of the app.
    pub terms: Terms,
    /// New and changed ones.
    pub copies: Vec<ToldCopy>,
    /// No more.
    pub gone: Vec<ReplicaId>,
    /// Why no copy is ready yet, for those whose requests are held.
    pub waiting: String,
}
