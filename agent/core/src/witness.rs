//! How a copy and its peers on this node stand: what is written down when one is parked or stopped, for whoever judges the choice afterwards.

use crate::core::AgentCore;
use crate::ids::{AppId, ReplicaId};
use crate::replica::{Phase, Replica};

/// How one copy stands, and how many others of its app could go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub app: AppId,
    /// Requests in it.
    pub requests: u32,
    /// Why it is busy; nothing when it is idle.
    pub busy: Option<String>,
    /// Other copies of the app on this node that run, are not being stopped and are idle, parked ones among them.
    pub idle_others: u32,
}

impl AgentCore {
    /// Of a copy that is known here.
    pub fn witness(&self, id: ReplicaId) -> Option<Standing> {
        let copy = self.replicas.get(&id)?;
        let idle = |other: &&Replica| {
            let stays = other.wanted.stop.is_none() && other.seen.phase == Phase::Running;
            other.id != id && other.app == copy.app && stays && other.seen.work.busy().is_none()
        };
        let idle_others = u32::try_from(self.replicas.values().filter(idle).count()).unwrap_or(u32::MAX);
        let work = &copy.seen.work;
        Some(Standing { app: copy.app, requests: work.in_flight(), busy: work.busy(), idle_others })
    }
}
