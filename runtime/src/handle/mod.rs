//! The runtime as its users see it: start, launch, signal, reap, adopt, account. Every method blocks and may be called from several threads.

mod config;
mod types;

pub use config::{Capacity, Ipv4Subnet, LauncherCommand, PoolSizes, RuntimeConfig, SubnetError};
pub use types::{
    Adopted, Ended, Exit, Feature, LogFiles, NodeUsage, Pressure, Running, Timings, Usage,
};

use std::net::TcpStream;
use std::time::Duration;

use crate::spec::{ContainerId, ContainerSpec, SpecError};

/// What went wrong, for which container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification cannot work.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No container of this name is known here.
    #[error("no container {0} is known to this runtime")]
    NoSuchContainer(ContainerId),
    /// A part that is still being built.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
}

/// A runtime: containers under one cgroup, one subnet, one state folder. Dropping it leaves its containers running.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
}

impl Runtime {
    /// Makes the node's cgroup, starts the launchers and begins to fill the pool.
    pub fn start(config: RuntimeConfig) -> Result<Self, Error> {
        Ok(Self { config })
    }

    /// What it was started with.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// Probes the kernel: what is there, what it is needed for, what works without it. Needs no runtime.
    pub fn check() -> Vec<Feature> {
        Vec::new()
    }

    /// Starts a container; returns once its program has been executed. On an error everything is undone.
    pub fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        spec.check()?;
        Err(Error::NotBuilt("launch"))
    }

    /// Sends a signal to the program's process group, by way of its init.
    pub fn signal(&self, id: &ContainerId, _signal: i32) -> Result<(), Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Ends every process of the container at once.
    pub fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Collects how it ended and frees its cgroups, slot and scratch; log and record stay until [`Runtime::forget`]. Waits for the end if it still runs.
    pub fn reap(&self, id: &ContainerId) -> Result<Ended, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Removes the log and the record of a container that was reaped.
    pub fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Takes over what an earlier runtime with this state folder left: call once, before the first launch.
    pub fn adopt(&self) -> Result<Vec<Adopted>, Error> {
        Ok(Vec::new())
    }

    /// What the container uses.
    pub fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// What the node uses and has.
    pub fn node_usage(&self) -> Result<NodeUsage, Error> {
        Err(Error::NotBuilt("node_usage"))
    }

    /// Where its output is; also after its end, until it is forgotten.
    pub fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Stops all its processes in their tracks.
    pub fn freeze(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Lets them go on.
    pub fn thaw(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Whether something inside listens on this TCP port (of any address that is not loopback). Costs about a microsecond.
    pub fn listening(&self, id: &ContainerId, _port: u16) -> Result<bool, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// A connection to the container's own address, made inside its network namespace.
    pub fn dial(
        &self,
        id: &ContainerId,
        _port: u16,
        _timeout: Duration,
    ) -> Result<TcpStream, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    /// Ends every container and removes all that was made: cgroups, slots, links, launchers. Logs and records stay.
    pub fn shutdown(self) -> Result<(), Error> {
        Ok(())
    }
}
