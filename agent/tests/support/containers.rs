//! A runtime of memory. The program's name says how a container behaves: `serve` runs until it is asked to end, `stubborn` until it is killed, `crash` returns 3 at once.

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bellows_agent::Containers;
use bellows_runtime::handle::{
    Adopted, Copy, Ended, Error, Execute, Execution, Exit, LogFiles, NodeUsage, Running, Stats, Timings, Usage,
};
use bellows_runtime::{ContainerId, ContainerSpec};

pub struct MemoryContainers {
    logs: PathBuf,
    state: Mutex<BTreeMap<ContainerId, Container>>,
}

struct Container {
    spec: ContainerSpec,
    reader: PipeReader,
    /// Held while it runs: the reader's end becomes readable when it is dropped, as a pidfd does.
    alive: Option<PipeWriter>,
    exit: Exit,
}

impl MemoryContainers {
    pub fn new(logs: PathBuf) -> Arc<Self> {
        Arc::new(Self { logs, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Container>> {
        self.state.lock().expect("no test panics while it holds this")
    }

    /// Names of the containers that run.
    pub fn running(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, c)| c.alive.is_some()).map(|(id, _)| id.to_string()).collect()
    }

    /// The spec that a container was launched with.
    pub fn spec(&self, id: &str) -> Option<ContainerSpec> {
        self.lock().get(&ContainerId::new(id).expect("an id")).map(|c| c.spec.clone())
    }

    pub fn end(&self, id: &ContainerId, exit: Exit) -> Result<(), Error> {
        let mut state = self.lock();
        let container = state.get_mut(id).ok_or_else(|| Error::NoSuchContainer(id.clone()))?;
        if container.alive.take().is_some() {
            container.exit = exit;
        }
        Ok(())
    }

    fn program(&self, id: &ContainerId) -> Result<String, Error> {
        let state = self.lock();
        let container = state.get(id).ok_or_else(|| Error::NoSuchContainer(id.clone()))?;
        Ok(container.spec.args[0].clone())
    }
}

fn running(id: &ContainerId, reader: &PipeReader) -> Running {
    Running {
        id: id.clone(),
        pid: 1,
        pidfd: reader.try_clone().expect("descriptors are left").into(),
        address: Ipv4Addr::new(10, 251, 0, 1),
        started_unix_ms: 1,
        timings: Timings::default(),
    }
}

fn ended(id: &ContainerId, exit: Exit) -> Ended {
    Ended { id: id.clone(), exit, started_unix_ms: 1, ended_unix_ms: 2 }
}

impl Containers for MemoryContainers {
    fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        spec.check()?;
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        let told = running(&spec.id, &reader);
        let (alive, exit) = match spec.args[0].as_str() {
            "crash" => (None, Exit::Code(3)),
            _ => (Some(writer), Exit::Unknown),
        };
        let mut log = std::fs::File::create(self.logs.join(spec.id.as_str())).expect("a log file");
        writeln!(log, "#{:020} {:020}", 0, 0).expect("written");
        writeln!(log, "1 stdout F hello from {}", spec.id).expect("written");
        self.lock().insert(spec.id.clone(), Container { spec: spec.clone(), reader, alive, exit });
        Ok(told)
    }
    fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        match self.program(id)?.as_str() {
            "stubborn" => Ok(()),
            _ => self.end(id, Exit::Signal(signal)),
        }
    }
    fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        self.end(id, Exit::Signal(9))
    }
    fn reap(&self, id: &ContainerId) -> Result<Ended, Error> {
        let state = self.lock();
        let container = state.get(id).ok_or_else(|| Error::NoSuchContainer(id.clone()))?;
        assert!(container.alive.is_none(), "{id} is reaped while it runs");
        Ok(ended(id, container.exit))
    }
    fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        self.lock().remove(id).map(drop).ok_or_else(|| Error::NoSuchContainer(id.clone()))
    }
    fn adopt(&self) -> Result<Vec<Adopted>, Error> {
        let state = self.lock();
        let adopt = |(id, container): (&ContainerId, &Container)| match &container.alive {
            Some(_) => Adopted::Alive(running(id, &container.reader)),
            None => Adopted::Ended(ended(id, container.exit)),
        };
        Ok(state.iter().map(adopt).collect())
    }
    fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        self.program(id)?;
        Ok(Usage { cpu_us: 1_000, memory_bytes: 4_096, processes: 2, connections: 0, busy_mark: false })
    }
    fn node_usage(&self) -> Result<NodeUsage, Error> {
        Ok(NodeUsage {
            cpu_us: 5_000,
            memory_bytes: 1 << 20,
            capacity_cpu_milli: 4_000,
            capacity_memory_bytes: 1 << 30,
            pressure: None,
        })
    }
    fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        self.program(id)?;
        let newer = self.logs.join(id.as_str());
        Ok(LogFiles { older: self.logs.join("none"), newer, rotations: 0, lost_bytes: 0 })
    }
    fn listening(&self, id: &ContainerId, port: u16) -> Result<bool, Error> {
        self.program(id)?;
        Ok(port == 80)
    }
    fn copy(&self, spec: &ContainerSpec, _: Copy) -> Result<Execution, Error> {
        self.program(&spec.id)?;
        Err(Error::Frozen(spec.id.clone())) // nothing in memory can be copied
    }
    fn stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        Ok(Stats { usage: self.usage(id)?, memory_peak_bytes: Some(8_192), ..Stats::default() })
    }
    fn freeze(&self, id: &ContainerId, _wanted: &dyn Fn() -> bool) -> Result<(u64, u64), Error> {
        self.program(id).map(|_| (4_096, 0))
    }
    fn thaw(&self, id: &ContainerId) -> Result<(), Error> {
        self.program(id).map(drop)
    }
    fn execute(&self, spec: &ContainerSpec, _: Execute) -> Result<Execution, Error> {
        self.program(&spec.id)?;
        Err(Error::Frozen(spec.id.clone())) // nothing in memory can be executed
    }
    fn address(&self, id: &ContainerId) -> Result<Ipv4Addr, Error> {
        self.program(id).map(|_| Ipv4Addr::LOCALHOST)
    }
    fn leave(&self) {}
    fn socket(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        Err(Error::NoSuchContainer(id.clone()))
    }

    fn shutdown(&self) -> Result<(), Error> {
        let ids: Vec<ContainerId> = self.lock().keys().cloned().collect();
        ids.iter().try_for_each(|id| self.kill(id))
    }
}
