//! What the agent needs of a runtime. The one seam of the live agent: tests without root put a runtime of memory here.

use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_runtime::handle::{Adopted, Ended, Error, LogFiles, NodeUsage, Running, Runtime, Usage};
use bellows_runtime::{ContainerId, ContainerSpec};

/// A runtime, as [`bellows_runtime::Runtime`] is one; see there for what each method promises.
pub trait Containers: Send + Sync + 'static {
    /// Starts a container; returns once its program has been executed.
    fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error>;
    /// Sends a signal to the program.
    fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error>;
    /// Ends every process of it.
    fn kill(&self, id: &ContainerId) -> Result<(), Error>;
    /// Collects how it ended and frees what it held.
    fn reap(&self, id: &ContainerId) -> Result<Ended, Error>;
    /// Removes log and record.
    fn forget(&self, id: &ContainerId) -> Result<(), Error>;
    /// What an earlier runtime left.
    fn adopt(&self) -> Result<Vec<Adopted>, Error>;
    /// What one container uses.
    fn usage(&self, id: &ContainerId) -> Result<Usage, Error>;
    /// What the node uses and has.
    fn node_usage(&self) -> Result<NodeUsage, Error>;
    /// Where its output is.
    fn log(&self, id: &ContainerId) -> Result<LogFiles, Error>;
    /// Is this port listened on?
    fn listening(&self, id: &ContainerId, port: u16) -> Result<bool, Error>;
    /// Ends everything and removes what was made.
    fn shutdown(self: Arc<Self>) -> Result<(), Error>;
}

impl Containers for Runtime {
    fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        Runtime::launch(self, spec)
    }
    fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        Runtime::signal(self, id, signal)
    }
    fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        Runtime::kill(self, id)
    }
    fn reap(&self, id: &ContainerId) -> Result<Ended, Error> {
        Runtime::reap(self, id)
    }
    fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        Runtime::forget(self, id)
    }
    fn adopt(&self) -> Result<Vec<Adopted>, Error> {
        Runtime::adopt(self)
    }
    fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        Runtime::usage(self, id)
    }
    fn node_usage(&self) -> Result<NodeUsage, Error> {
        Runtime::node_usage(self)
    }
    fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        Runtime::log(self, id)
    }
    fn listening(&self, id: &ContainerId, port: u16) -> Result<bool, Error> {
        Runtime::listening(self, id, port)
    }
    fn shutdown(self: Arc<Self>) -> Result<(), Error> {
        match Arc::try_unwrap(self) {
            Ok(runtime) => Runtime::shutdown(runtime),
            Err(_) => Err(Error::Machine("whether the runtime is still in use", std::io::Error::other("it is"))),
        }
    }
}

/// The container of one attempt: `1-2-57.1`.
pub(crate) fn container(replica: ReplicaId, attempt: u32) -> ContainerId {
    ContainerId::new(format!("{replica}.{attempt}")).expect("digits, dashes and a dot are a container id")
}

/// The reverse; nothing for containers that are not ours.
pub(crate) fn attempt_of(id: &ContainerId) -> Option<(ReplicaId, u32)> {
    let (replica, attempt) = id.as_str().rsplit_once('.')?;
    Some((replica.parse().ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_have_container_names_and_back() {
        let id: ReplicaId = "1-2-57".parse().expect("a replica id");
        assert_eq!(container(id, 3).as_str(), "1-2-57.3");
        assert_eq!(attempt_of(&container(id, 3)), Some((id, 3)));
        assert_eq!(attempt_of(&ContainerId::new("bench.1").expect("an id")), None);
    }
}
