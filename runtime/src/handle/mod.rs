//! The runtime as its users see it: start, launch, signal, reap, adopt, account. Every method blocks and may be called from several threads.

mod adopt;
mod config;
mod containers;
mod error;
mod execution;
mod folders;
mod here;
mod kept;
mod launchers;
mod lent;
mod log;
mod machine;
mod record;
mod remains;
mod reserve;
mod slots;
mod stats;
mod surplus;
mod types;

pub use config::{Capacity, Ipv4Subnet, LauncherCommand, PoolSizes, RuntimeConfig, SubnetError};
pub use error::Error;
pub use execution::{Copy, Execute, Execution, ExecutionStreams, Window};
pub use launchers::LauncherError;
pub use log::{LogPart, LogReader};
pub use slots::SlotError;
pub use types::{Adopted, Ended, Exit, Feature, LogFiles, NodeUsage, Pressure, Running, Stats, Timings, Usage};

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::containers::{Containers, Life};
use self::folders::{Folder, Place};
use self::kept::{Made, Wanted};
use self::launchers::{Launchers, Outcome};
use self::record::Record;
use self::reserve::Reserve;
use self::slots::{Maker, Slot, Slots};
use crate::kernel::cgroup::{Cgroups, Joining};
use crate::launch::wire::Order;
use crate::launch::{CGROUP_ROOT, Moment, Origin};
use crate::net;
use crate::spec::{ContainerId, ContainerSpec};

/// A runtime: containers under one cgroup, one subnet, one state folder. Dropping it leaves its containers running; when there are none, nothing
/// but logs and records is left.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    containers: Containers,
    // Dropped before the slots, which then remove the node's cgroup when nothing runs in it: a launcher would.
    launchers: Launchers,
    slots: Slots,
    adopted: Mutex<Vec<Adopted>>,
    reserve: Reserve,
}

impl Runtime {
    /// Finds what an earlier runtime left, makes the node's cgroup (or takes the one they run in, wherever it is), starts the launchers and begins to fill the pool.
    ///
    /// Makes this process the one that inherits orphans (PR_SET_CHILD_SUBREAPER), so that containers whose launcher died are its children.
    pub fn start(config: RuntimeConfig) -> Result<Self, Error> {
        machine::inherit_orphans()?;
        crate::launch::raise_open_files();
        let reserve = Reserve::keep().map_err(|source| Error::Machine("descriptors in reserve", source))?;
        let containers = Containers::open(&config.state)?;
        let left = adopt::Left::read(&containers)?;
        let top = left.cgroup_top(&config.cgroup_parent)?;
        let root = Path::new(CGROUP_ROOT);
        let cgroups = Cgroups::prepare(root, &config.cgroup_parent, config.capacity, top.as_deref())?;
        let maker = Maker::new(cgroups, config.subnet, config.uid_base)?;
        let launchers = Launchers::start(config.launcher.clone(), config.launchers, &maker.cgroups);
        let launchers = launchers.map_err(Error::Start)?;
        let found = adopt::find(&containers, &maker, left)?;
        let slots = Slots::start(maker, config.pool, &found.slots)?;
        Ok(Self { config, containers, slots, launchers, adopted: Mutex::new(found.adopted), reserve })
    }

    /// Returns when as much is made ahead as [`RuntimeConfig::pool`] wants, or no more can be; at the latest after `most`. With containers that run already
    /// it returns at once: they are not to wait.
    pub fn await_pool(&self, most: Duration) {
        if self.containers.running().is_empty() {
            self.slots.await_first(most);
        }
    }

    /// What it was started with.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// Process numbers of the launchers that are not at work.
    pub fn launcher_pids(&self) -> Vec<u32> {
        self.launchers.pids()
    }

    /// Probes the kernel: what is there, what it is needed for, what works without it. Needs no runtime. `images` is where images are, or will be.
    pub fn check(images: &Path) -> Vec<Feature> {
        crate::probe::features(images)
    }

    /// Starts a container; returns once its program has been executed. On an error everything is undone.
    pub fn launch(&self, spec: &ContainerSpec) -> Result<Running, Error> {
        let began_ns = crate::launch::now_ns();
        spec.check()?;
        let _reserved = self.containers.reserve(&spec.id)?;
        let wanted = Wanted::by(spec).map_err(|source| unusable(spec, source))?;
        let _under_way = self.slots.launching();
        let mut slot = self.slots.take(&spec.tenant, wanted)?;
        let have_slot_ns = crate::launch::now_ns();
        let folder = match self.prepare(&slot, spec) {
            Ok(folder) => folder,
            Err(error) => {
                self.slots.give_back(slot, &spec.tenant);
                return Err(error);
            }
        };
        match self.start_in(&mut slot, wanted, spec, &folder) {
            Ok((mut running, pidfd)) => {
                running.timings = timings(began_ns, have_slot_ns, running.timings);
                self.slots.spare_descriptors(&mut slot, pidfd.as_fd());
                let life = Life::new(pidfd, slot, folder.record, folder.place, spec.tenant.clone());
                self.containers.insert(spec.id.clone(), life);
                Ok(running)
            }
            Err(error) => Err(self.reserve.lend(|| self.undo(slot, folder.place, spec, error))),
        }
    }

    /// Limits, and a folder whose record says whose it is.
    fn prepare(&self, slot: &Slot, spec: &ContainerSpec) -> Result<Folder, Error> {
        self.slots.maker().networks.set_egress(&slot.network, spec.egress)?;
        slot.group.limit_for_start(&spec.limits)?;
        slot.group.limit_io(spec.limits.io, &self.config.state)?;
        let before = slot.group.oom_kills()?;
        let record = Record::new(spec.id.clone(), slot.number, self.containers.boot(), before);
        self.containers.folder(&record)
    }

    /// After a launch that failed with `error`. A slot in which something may still live serves nobody: it and the record stay for the next start.
    fn undo(&self, slot: Slot, place: Place, spec: &ContainerSpec, error: Error) -> Error {
        if let Err(left) = adopt::end_strangers(&slot.group) {
            let (slot, left) = (slot.number, &left as &dyn std::error::Error);
            tracing::error!(id = %spec.id, slot, error = left, "a launch that failed is not undone: its slot is out of use until the next start");
            return error;
        }
        let discarded = self.containers.discard(place);
        self.slots.give_back(slot, &spec.tenant);
        discarded.err().unwrap_or(error)
    }

    fn start_in(
        &self,
        slot: &mut Slot,
        wanted: Wanted,
        spec: &ContainerSpec,
        folder: &Folder,
    ) -> Result<(Running, OwnedFd), Error> {
        let kept = slot.keep(&spec.root, wanted).map_err(|source| unusable(spec, source))?;
        let may_come_back = is_as_usual(spec) && self.slots.lent().has_room();
        let (made, _let_go_of_afterwards) = kept.take_root(&spec.tenant);
        let made = made.map(|made| if may_come_back { made } else { made.for_good() });
        let (running, ours) = self.ask_launcher(slot, made.as_ref(), spec, folder)?;
        slot.group.limit(&spec.limits)?;
        let process = machine::Identity::of(running.pid, running.pidfd.as_fd())
            .map_err(|source| Error::Machine("what tells a container's process from others", source))?;
        Record::set_process(&folder.record, process, slot.number, running.started_unix_ms)
            .map_err(|source| Error::State { what: "write", path: folder.place.record(), source })?;
        if let Some(worn) = made.filter(|_| may_come_back).and_then(|made| made.worn_by(&spec.tenant)) {
            self.slots.lent().add(slot.number, worn);
        }
        Ok((running, ours))
    }

    fn ask_launcher(
        &self,
        slot: &Slot,
        made: Option<&Made>,
        spec: &ContainerSpec,
        files: &Folder,
    ) -> Result<(Running, OwnedFd), Error> {
        let image = slot.image().ok_or_else(|| unusable(spec, std::io::ErrorKind::NotFound.into()))?;
        let joining = slot.group.joining()?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![
            image,
            slot.network.namespace.as_fd(),
            slot.network.sys.as_fd(),
            files.logs[0].as_fd(),
            files.logs[1].as_fd(),
            files.record.as_fd(),
        ];
        fds.extend(slot.devices.as_ref().map(AsFd::as_fd));
        fds.extend(made.into_iter().flat_map(|made| [made.root.scratch.as_fd(), made.root.tree.as_fd()]));
        match &joining {
            Joining::Write(procs) => fds.extend(procs.iter().map(|procs| procs.as_fd())),
            Joining::Into(dir) => fds.push(dir.as_fd()),
        }
        let order = Order {
            spec,
            address: slot.network.address,
            first_id: slot.first_id,
            nameservers: if spec.egress { &self.config.nameservers } else { &[] },
            layers: self.slots.maker().layers(),
            root: made.map_or(Origin::Launch, Made::origin),
            into_cgroup: matches!(joining, Joining::Into(_)),
        };
        let asked_ns = crate::launch::now_ns();
        let outcome = self.launchers.ask(&order, &fds, &self.slots.maker().cgroups);
        match outcome.map_err(|source| Error::Launcher { id: spec.id.clone(), source })? {
            Outcome::Failed(failure) => Err(Error::Step { id: spec.id.clone(), failure }),
            Outcome::Entered(_) => Err(Error::Machine("the launcher's answer", std::io::ErrorKind::InvalidData.into())),
            Outcome::Started { pid, pidfd, started_unix_ms, moments_ns } => {
                let ours = pidfd.try_clone().map_err(|source| Error::Machine("a pidfd", source))?;
                let named = moments_ns.into_iter().map(|(moment, at)| (moment.name(), at));
                let own = [(Moment::Asked, asked_ns), (Moment::Answered, crate::launch::now_ns())];
                let own = own.map(|(moment, at)| (moment.name(), at));
                let timings = Timings { moments_ns: named.chain(own).collect() };
                Ok((
                    Running {
                        id: spec.id.clone(),
                        pid,
                        pidfd,
                        address: slot.network.address,
                        started_unix_ms,
                        timings,
                    },
                    ours,
                ))
            }
        }
    }

    /// Sends a signal to the program's process group, by way of its init. 9 is [`Self::kill`]; 19 would stop the init and is refused.
    pub fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL {
            return self.kill(id);
        }
        self.containers.alive(id)?.signal(id, signal)
    }

    /// Ends every process of the container at once; the init drains the output and writes the record first, unless it does not answer.
    pub fn kill(&self, id: &ContainerId) -> Result<(), Error> {
        self.containers.alive(id)?.kill(id, &self.reserve)
    }

    /// Waits until it has ended: until its first process is gone, the last of all.
    pub fn await_end(&self, id: &ContainerId) -> Result<(), Error> {
        self.containers.alive(id).map_or_else(ended_is_fine, |life| life.await_end())
    }

    /// Collects how it ended and frees its cgroups, slot and scratch; log and record stay until [`Runtime::forget`]. Waits for the end if it still runs.
    pub fn reap(&self, id: &ContainerId) -> Result<Ended, Error> {
        let (ended, freed) = self.containers.reap(id)?;
        if let Some((slot, tenant)) = freed {
            self.slots.give_back(slot, &tenant);
        }
        Ok(ended)
    }

    /// Removes the log and the record of a container that was reaped.
    pub fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        self.containers.forget(id)
    }

    /// Waits until nothing is left of the containers that were forgotten: their files go in the background.
    pub fn settle(&self) {
        self.slots.settle();
        self.containers.settle();
    }

    /// Takes over what an earlier runtime with this state folder left: running, or ended and not forgotten. Call once, before the first launch.
    pub fn adopt(&self) -> Result<Vec<Adopted>, Error> {
        Ok(std::mem::take(&mut *self.adopted.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What the container uses.
    pub fn usage(&self, id: &ContainerId) -> Result<Usage, Error> {
        let life = self.containers.alive(id)?;
        life.with_slot(id, |slot| {
            Ok(Usage {
                cpu_us: slot.group.cpu_us()?.saturating_sub(slot.cpu_before_us),
                memory_bytes: slot.group.memory_bytes()?,
                processes: slot.group.processes()?,
                connections: net::established(&slot.network, self.slots.maker().networks.home())?,
                busy_mark: life.holds_mark(),
            })
        })
    }

    /// As [`Self::usage`], and what costs more to read: some tens of microseconds, and five for each process.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        let usage = self.usage(id)?;
        self.containers.alive(id)?.with_slot(id, |slot| stats::read(slot, usage))
    }

    /// Asks the kernel to take what memory it can from a container, best a frozen one. Gives what is charged to it before and after.
    pub fn reclaim(&self, id: &ContainerId) -> Result<(u64, u64), Error> {
        let life = self.containers.alive(id)?;
        let (before, reclaim) = life.with_slot(id, |slot| Ok((slot.group.memory_bytes()?, slot.group.reclaim()?)))?;
        // Not inside: who is to be thawed does not wait for this.
        reclaim.perform()?;
        life.with_slot(id, |slot| Ok((before, slot.group.memory_bytes()?)))
    }

    /// What the node uses and has.
    pub fn node_usage(&self) -> Result<NodeUsage, Error> {
        machine::usage(&self.slots.maker().cgroups, self.config.capacity)
    }

    /// Where its output is; also after its end, until it is forgotten.
    pub fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        self.containers.log(id)
    }

    /// Stops all its processes in their tracks.
    pub fn freeze(&self, id: &ContainerId) -> Result<(), Error> {
        self.freeze_if(id, || true)
    }

    /// As [`Self::freeze`], if that is still `wanted` then: whoever makes that untrue, and thaws, signals or kills afterwards, has the last word.
    pub fn freeze_if(&self, id: &ContainerId, wanted: impl FnOnce() -> bool) -> Result<(), Error> {
        self.containers.alive(id)?.freeze(id, wanted)
    }

    /// Lets them go on.
    pub fn thaw(&self, id: &ContainerId) -> Result<(), Error> {
        self.containers.alive(id)?.thaw(id)
    }

    /// Executes a program beside the app, as the app is executed: in its namespaces and cgroups, with the limits, capabilities and filter of `spec`, whose
    /// `id` says in which container; its `root` and `tenant` are not looked at. Returns once the program has been executed.
    pub fn execute(&self, spec: &ContainerSpec, how: Execute) -> Result<Execution, Error> {
        spec.check()?;
        let life = self.containers.alive(&spec.id)?;
        if !is_as_usual(spec) {
            let worn = life.with_slot(&spec.id, |slot| Ok(self.slots.lent().take(slot.number)))?;
            drop(worn);
        }
        execution::start(&self.launchers, &self.slots.maker().cgroups, &life, spec, how)
    }

    /// Whether something inside listens on this TCP port (of any address that is not loopback). Costs about a microsecond, when first asked some more.
    pub fn listening(&self, id: &ContainerId, port: u16) -> Result<bool, Error> {
        let home = self.slots.maker().networks.home();
        self.containers.alive(id)?.with_slot(id, |slot| Ok(net::listening(&slot.network, home, port)?))
    }

    /// A TCP socket made inside the container's network, not connected and not blocking: what it connects to is found there. Takes 2 us.
    pub fn socket(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        let life = self.containers.alive(id)?;
        let home = self.slots.maker().networks.home();
        life.with_slot(id, |slot| Ok(net::socket_inside(home, &slot.network)?))
    }

    /// A connection to the container's own address, made inside its network namespace.
    pub fn dial(&self, id: &ContainerId, port: u16, timeout: Duration) -> Result<TcpStream, Error> {
        let life = self.containers.alive(id)?;
        let home = self.slots.maker().networks.home();
        let socket = life.with_slot(id, |slot| Ok(net::socket_inside(home, &slot.network)?))?;
        Ok(net::connect(socket, life.address(id)?, port, timeout)?)
    }

    /// Copies files, by a process that has entered the container: no link of the app's leads it out. Bounded as the app is, in memory and room too.
    pub fn copy(&self, spec: &ContainerSpec, what: Copy) -> Result<Execution, Error> {
        spec.check()?;
        let life = self.containers.alive(&spec.id)?;
        execution::copy(&self.launchers, &self.slots.maker().cgroups, &life, spec, what)
    }

    /// The container's own address.
    pub fn address(&self, id: &ContainerId) -> Result<std::net::Ipv4Addr, Error> {
        self.containers.alive(id)?.address(id)
    }

    /// Ends every container and removes all that was made: cgroups, slots, links, launchers. Logs and records stay.
    pub fn shutdown(self) -> Result<(), Error> {
        let running = self.containers.running();
        let killed = running.iter().map(|id| self.kill(id).or_else(ended_is_fine)).fold(Ok(()), Result::and);
        let reaped = running.iter().map(|id| self.reap(id).map(drop)).fold(Ok(()), Result::and);
        let Self { mut slots, launchers, .. } = self;
        drop(launchers);
        let closed = slots.close();
        let removed = slots.maker().cgroups.remove();
        let opened = slots.maker().networks.close();
        let made = closed.and(removed).map_err(Error::from).and(opened.map_err(Error::from));
        killed.and(reaped).and(made)
    }
}

/// Whether its root may serve another container: what io_uring was asked to do, say, may go on after the end of who asked.
fn is_as_usual(spec: &ContainerSpec) -> bool {
    spec.add_capabilities.is_empty() && spec.add_calls.is_empty()
}

fn ended_is_fine(error: Error) -> Result<(), Error> {
    match error {
        Error::HasEnded(_) => Ok(()),
        other => Err(other),
    }
}

fn timings(began_ns: u64, have_slot_ns: u64, launcher: Timings) -> Timings {
    let mut all = launcher.moments_ns;
    all.push((Moment::SlotTaken.name(), have_slot_ns));
    all.push((Moment::Recorded.name(), crate::launch::now_ns()));
    all.sort_by_key(|(_, at)| *at);
    Timings { moments_ns: all.into_iter().map(|(what, at)| (what, at.saturating_sub(began_ns))).collect() }
}

/// Shared by value: a container's life outlives the lock of the table it is in.
type Shared<T> = Arc<T>;

fn unusable(spec: &ContainerSpec, source: std::io::Error) -> Error {
    Error::Image { id: spec.id.clone(), root: spec.root.clone(), source }
}
