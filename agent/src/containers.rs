//! What the agent needs of a runtime. The one seam of the live agent: tests without root put a runtime of memory here.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{PoisonError, RwLock};

use bellows_agent_core::ReplicaId;
use bellows_runtime::handle::{
    Adopted, Copy, Ended, Error, Execute, Execution, LogFiles, NodeUsage, Running, Runtime, Stats, Usage,
};
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
    /// Copies files in or out of a container.
    fn copy(&self, spec: &ContainerSpec, what: Copy) -> Result<Execution, Error>;
    /// What one container uses, in full.
    fn stats(&self, id: &ContainerId) -> Result<Stats, Error>;
    /// Stops all its processes in their tracks, and has the kernel take what memory it can; gives the memory before and after.
    fn freeze(&self, id: &ContainerId, wanted: &dyn Fn() -> bool) -> Result<(u64, u64), Error>;
    /// Lets them go on; nothing where they do.
    fn thaw(&self, id: &ContainerId) -> Result<(), Error>;
    /// Executes a program beside a container's app.
    fn execute(&self, spec: &ContainerSpec, how: Execute) -> Result<Execution, Error>;
    /// A TCP socket inside its network, not connected and not blocking.
    fn socket(&self, id: &ContainerId) -> Result<OwnedFd, Error>;
    /// Its own address.
    fn address(&self, id: &ContainerId) -> Result<Ipv4Addr, Error>;
    /// Ends everything and removes what was made. Nothing else is asked of it afterwards.
    fn shutdown(&self) -> Result<(), Error>;
    /// Lets go of everything, running. Nothing else is asked of it afterwards.
    fn leave(&self);
}

/// A runtime until it is shut down: whoever still holds this then, a reader of a log, is told that there is nothing.
pub(crate) struct OpenRuntime(RwLock<Option<Runtime>>);

impl OpenRuntime {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self(RwLock::new(Some(runtime)))
    }

    fn with<T>(&self, ask: impl FnOnce(&Runtime) -> Result<T, Error>) -> Result<T, Error> {
        let runtime = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || Error::Machine("anything", io::Error::other("the agent is shutting down"));
        ask(runtime.as_ref().ok_or_else(closed)?)
    }

    fn take(&self) -> Option<Runtime> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Containers for OpenRuntime {
    fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        self.with(|runtime| runtime.launch(spec))
    }
    fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.with(|runtime| runtime.signal(id, signal))
    }
    fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        self.with(|runtime| runtime.kill(id))
    }
    fn reap(&self, id: &ContainerId) -> Result<Ended, Error> {
        self.with(|runtime| runtime.reap(id))
    }
    fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        self.with(|runtime| runtime.forget(id))
    }
    fn adopt(&self) -> Result<Vec<Adopted>, Error> {
        self.with(Runtime::adopt)
    }
    fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        self.with(|runtime| runtime.usage(id))
    }
    fn node_usage(&self) -> Result<NodeUsage, Error> {
        self.with(Runtime::node_usage)
    }
    fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        self.with(|runtime| runtime.log(id))
    }
    fn listening(&self, id: &ContainerId, port: u16) -> Result<bool, Error> {
        self.with(|runtime| runtime.listening(id, port))
    }
    fn copy(&self, spec: &ContainerSpec, what: Copy) -> Result<Execution, Error> {
        self.with(|runtime| runtime.copy(spec, what))
    }
    fn stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        self.with(|runtime| runtime.stats(id))
    }
    fn freeze(&self, id: &ContainerId, wanted: &dyn Fn() -> bool) -> Result<(u64, u64), Error> {
        self.with(|runtime| runtime.freeze_if(id, wanted).and_then(|()| runtime.reclaim(id)))
    }
    fn thaw(&self, id: &ContainerId) -> Result<(), Error> {
        self.with(|runtime| runtime.thaw(id))
    }
    fn execute(&self, spec: &ContainerSpec, how: Execute) -> Result<Execution, Error> {
        self.with(|runtime| runtime.execute(spec, how))
    }
    fn address(&self, id: &ContainerId) -> Result<Ipv4Addr, Error> {
        self.with(|runtime| runtime.address(id))
    }
    fn socket(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        self.with(|runtime| runtime.socket(id))
    }
    fn shutdown(&self) -> Result<(), Error> {
        self.take().map_or(Ok(()), Runtime::shutdown)
    }
    fn leave(&self) {
        drop(self.take());
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
