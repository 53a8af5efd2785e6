//! Sockets inside copies' networks.

use std::os::fd::OwnedFd;

use bellows_agent_core::ReplicaId;

/// What an ingress needs of the runtime. Tests put plain sockets here.
pub trait Dial: Send + Sync + 'static {
    /// A TCP socket, not connected and not blocking, made in the network of this attempt. Takes microseconds.
    fn socket(&self, replica: ReplicaId, attempt: u32) -> std::io::Result<OwnedFd>;
}
