//! The ingress as the agent's driver sees it, and the runtime as the ingress sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::traffic::{Entrance, HereCopy, Update};
use bellows_agent_core::{AppId, ReplicaId};

use super::{Dial, Ingress};
use crate::containers::{Containers, container};
use crate::traffic::{Changed, DataPlane};

/// Sockets in containers' networks.
pub(crate) struct Inside(pub(crate) Arc<dyn Containers>);

impl Dial for Inside {
    fn socket(&self, replica: ReplicaId, attempt: u32) -> io::Result<OwnedFd> {
        self.0.socket(&container(replica, attempt)).map_err(io::Error::other)
    }
}

impl DataPlane for Ingress {
    fn entrances(&self, whole: bool, changed: Vec<Entrance>, gone: &[AppId]) {
        self.entrances(whole, changed, gone);
    }
    fn removed_nodes(&self, nodes: &[u32]) {
        self.removed_nodes(nodes);
    }
    fn routes(&self, app: AppId, update: Update) {
        self.routes(app, update);
    }
    fn forget(&self, app: AppId) {
        self.forget(app);
    }
    fn here(&self, app: AppId, copy: HereCopy) {
        self.here(app, copy);
    }
    fn here_no_more(&self, replica: ReplicaId) {
        self.here_no_more(replica);
    }
    fn in_flight(&self, replica: ReplicaId) -> u32 {
        self.in_flight(replica)
    }
    fn connections(&self, replica: ReplicaId) -> u32 {
        self.connections(replica)
    }
    fn finish(&self, within: Duration) {
        self.finish(within);
    }
    fn changed(&self) -> Changed<'_> {
        Box::pin(self.changed())
    }
}
