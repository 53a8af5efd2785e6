//! Control groups, in the two shapes the kernel has: one tree per controller (v1, also beside an empty v2 tree) and one tree for all (v2).
//!
//! A [`Group`] keeps the files it writes at every launch open: joining through a kept descriptor costs 3 us, by path 13 to 26 us.

mod delegation;
pub mod devices;
pub mod disk;
mod offered;
mod place;
pub mod quick;
pub mod tree;
mod v1;
mod v2;

pub use offered::{clone_into, controller, device_list, freezer, kill_file};
pub use place::{above, of_process};
pub use v1::find as hierarchy_of;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::handle::Capacity;
use crate::spec::{IoLimits, Limits};

/// What went wrong, at which file.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No usable controllers are mounted.
    #[error("no cgroup controllers for CPU, memory and processes are mounted at {0}; mount cgroup2 there")]
    NotMounted(PathBuf),
    /// A group that must hand controllers down holds processes.
    #[error(
        "cgroup {path} holds processes ({pids:?}), so no group below it can have limits: move them into a group of their own (mkdir {path}/system, then write each number to its cgroup.procs), or choose another cgroup"
    )]
    Occupied {
        /// Which.
        path: PathBuf,
        /// Which processes; 0 for those outside of this PID namespace.
        pids: Vec<u32>,
    },
    /// A controller is kept back by whoever owns the group above.
    #[error(
        "cgroup {path} offers no {controller} controller; a service needs Delegate=yes, a container the host's controllers"
    )]
    NotOffered {
        /// Where.
        path: PathBuf,
        /// Which.
        controller: String,
    },
    /// A directory could not be made.
    #[error("cannot make cgroup {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A directory could not be removed.
    #[error("cannot remove cgroup {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The list of allowed devices could not be attached.
    #[error("cannot attach the list of allowed devices to cgroup {path}")]
    Devices {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Limits of block I/O were asked for, and there is nothing they could be of.
    #[error("limits of block I/O cannot be kept for the disk under {folder}")]
    NoDisk {
        /// The node's state folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever traces it, or waits for a disk, is not stopped by the kernel.
    #[error("something in it is held up in the kernel: {path} did not become {wanted} within {} s", STOP_PATIENCE.as_secs())]
    Unmoved {
        /// The file that tells.
        path: PathBuf,
        /// What it was to say.
        wanted: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {value:?} to {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What.
        value: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Mostly everything stands still after some microseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Returns when a group stands still, or goes on, as is `wanted` of the file at `path`.
pub fn await_stop<E: From<CgroupError>>(
    path: &Path,
    wanted: &'static str,
    mut is: impl FnMut() -> Result<bool, E>,
) -> Result<(), E> {
    let until = Instant::now() + STOP_PATIENCE;
    while !is()? {
        if Instant::now() > until {
            return Err(CgroupError::Unmoved { path: path.to_owned(), wanted }.into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// With one CPU the set-up of a container is never held up.
const START_CPU_MILLI: u64 = 1000;

/// The mounted controllers of this machine and the node's own directory in them.
#[derive(Debug)]
pub enum Cgroups {
    /// One tree per controller.
    V1(v1::Parent),
    /// One tree.
    V2(v2::Parent),
}

/// The cgroup (v2) or cgroups (v1) of one container.
#[derive(Debug)]
pub struct Group {
    kind: Kind,
    /// As last written, by nobody but us.
    standing: Mutex<Standing>,
    /// The same of block I/O; unknown of a group that somebody else made.
    io: Mutex<Option<IoLimits>>,
    /// Whoever comes next would be stopped; unknown, and so held for true, of a group that somebody else made.
    may_be_frozen: AtomicBool,
}

/// The limits of a group. Writing one costs an open file and, for the CPU, a look at every group of the machine.
#[derive(Debug, Default)]
enum Standing {
    /// Of others, or half written.
    #[default]
    Unknown,
    /// The kernel's: none.
    Fresh,
    Set(Limits),
}

impl Standing {
    /// Whether the CPU is unbound; with which others.
    fn unbound(&self) -> Option<Option<&Limits>> {
        match self {
            Self::Fresh => Some(None),
            Self::Set(limits) if limits.cpu_milli == UNBOUND => Some(Some(limits)),
            _ => None,
        }
    }
}

/// In the place of a limit of the CPU: none.
const UNBOUND: u64 = u64::MAX;

#[derive(Debug)]
enum Kind {
    V1(v1::Group),
    V2(v2::Group),
}

/// A wish to the kernel, see [`Group::reclaim`].
#[derive(Debug)]
pub struct Reclaim {
    path: PathBuf,
    value: String,
}

impl Reclaim {
    /// Returns when the kernel has done its best; that it could not take all is no fault.
    pub fn perform(&self) -> Result<(), CgroupError> {
        match tree::write(&self.path, &self.value) {
            Err(CgroupError::Write { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

/// How a new process gets into a group.
#[derive(Debug)]
pub enum Joining<'a> {
    /// Its number is written to each of these.
    Write(Vec<&'a File>),
    /// It is created in this directory (CLONE_INTO_CGROUP).
    Into(&'a File),
}

macro_rules! each {
    ($self:expr, $group:ident => $do:expr) => {
        match $self {
            Kind::V1($group) => $do,
            Kind::V2($group) => $do,
        }
    };
}

impl Cgroups {
    /// Finds the controllers below `root` (`/sys/fs/cgroup`) and makes the node's directory `parent` in them: on v2 below `top`, where one is known,
    /// else where a process like this one may.
    pub fn prepare(
        root: &Path,
        parent: &str,
        capacity: Option<Capacity>,
        top: Option<&Path>,
    ) -> Result<Self, CgroupError> {
        if v2::is_mounted(root) {
            return Ok(Self::V2(v2::Parent::prepare(root, parent, capacity, top)?));
        }
        Ok(Self::V1(v1::Parent::prepare(root, parent, capacity)?))
    }

    /// Makes, or takes over when it is there and empty, the group `name`.
    pub fn group(&self, name: &str) -> Result<Group, CgroupError> {
        let kind = match self {
            Self::V1(parent) => Kind::V1(parent.group(name)?),
            Self::V2(parent) => Kind::V2(parent.group(name)?),
        };
        let is_fresh = each!(&kind, group => group.is_fresh);
        let io = each!(&kind, group => group.is_unbound_io()).then(IoLimits::default);
        let standing = if is_fresh { Standing::Fresh } else { Standing::Unknown };
        let may_be_frozen = AtomicBool::new(!is_fresh);
        Ok(Group { kind, standing: Mutex::new(standing), io: Mutex::new(io), may_be_frozen })
    }

    /// Names of the groups that exist.
    pub fn names(&self) -> Result<Vec<String>, CgroupError> {
        match self {
            Self::V1(parent) => parent.names(),
            Self::V2(parent) => tree::children(parent.dir()),
        }
    }

    /// Moves a process of the runtime's own (a launcher) to where its children find the device rules.
    pub fn adopt_launcher(&self, pid: u32) -> Result<(), CgroupError> {
        match self {
            Self::V1(parent) => parent.adopt_launcher(pid),
            Self::V2(_) => Ok(()),
        }
    }

    /// CPU time used by everything in the node's directory, since it was made.
    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        match self {
            Self::V1(parent) => parent.cpu_us(),
            Self::V2(parent) => parent.cpu_us(),
        }
    }

    /// Memory used by everything in the node's directory, without what the kernel only keeps because there is room.
    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        match self {
            Self::V1(parent) => parent.memory_bytes(),
            Self::V2(parent) => parent.memory_bytes(),
        }
    }

    /// Removes the node's directory and the empty ones above it that were made for it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        match self {
            Self::V1(parent) => parent.remove(),
            Self::V2(parent) => parent.remove(),
        }
    }

    /// As [`Self::remove`] when no container's group is in it; whether that was so.
    pub fn remove_if_unused(&self) -> Result<bool, CgroupError> {
        match self.names() {
            Ok(names) if names.is_empty() => self.remove().map(|()| true),
            Ok(_) => Ok(false),
            Err(CgroupError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Group {
    /// How a process gets in.
    pub fn joining(&self) -> Result<Joining<'_>, CgroupError> {
        Ok(match &self.kind {
            Kind::V1(group) => Joining::Write(group.joins()?),
            Kind::V2(group) => Joining::Into(group.directory()?),
        })
    }

    /// For when descriptors are few: what it takes to join is opened again then. What its end is told by stays open.
    pub fn close_spare(&mut self) {
        each!(&mut self.kind, group => group.close_spare());
    }

    /// As [`Self::limit`], but with enough CPU to be set up: what a container's start costs is the node's work, and at 10m the kernel would let it go on
    /// for one millisecond in every hundred. [`Self::limit`] follows when its program runs. A group that was frozen when its last container ended is so no
    /// longer.
    pub fn limit_for_start(&self, limits: &Limits) -> Result<(), CgroupError> {
        if self.may_be_frozen.load(Ordering::Acquire) {
            self.freeze(false)?;
        }
        let mut standing = self.standing();
        let Some(others) = standing.unbound() else {
            drop(standing);
            return self.limit(&Limits { cpu_milli: limits.cpu_milli.max(START_CPU_MILLI), ..limits.clone() });
        };
        let wanted = Limits { cpu_milli: UNBOUND, ..limits.clone() };
        if others != Some(&wanted) {
            *standing = Standing::Unknown;
            each!(&self.kind, group => group.limit_rest(limits))?;
            *standing = Standing::Set(wanted);
        }
        Ok(())
    }

    /// Sets CPU, memory and process limits. Most often those of its last container, which stand already: nothing inside can write them.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut standing = self.standing();
        let before = std::mem::take(&mut *standing);
        let same = matches!(&before, Standing::Set(before) if before == limits);
        let cpu_only = matches!(&before, Standing::Set(before) if differ_in_cpu_only(before, limits));
        if !same {
            each!(&self.kind, group => group.limit_cpu(limits))?;
        }
        if !same && !cpu_only {
            each!(&self.kind, group => group.limit_rest(limits))?;
        }
        *standing = Standing::Set(limits.clone());
        Ok(())
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds what goes between memory and the disk under `folder`. Most often nothing is bounded, nor was for its last container.
    pub fn limit_io(&self, limits: IoLimits, folder: &Path) -> Result<(), CgroupError> {
        let mut standing = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        if *standing == Some(limits) {
            return Ok(());
        }
        let disk = match disk::Disk::under(folder) {
            Ok(disk) => disk,
            // Then nobody can have bounded anything.
            Err(_) if limits == IoLimits::default() => return Ok(()),
            Err(source) => return Err(CgroupError::NoDisk { folder: folder.to_owned(), source }),
        };
        *standing = None;
        each!(&self.kind, group => group.limit_io(limits, &disk))?;
        *standing = Some(limits);
        Ok(())
    }

    /// Forgets the CPU time it has used beyond its limit. The kernel charges what it reclaims of a group's memory without asking, and afterwards lets
    /// nothing of it run, the init neither, until that is paid: at 20m for a minute and more. It settles whenever the limit is written.
    pub fn forgive_cpu(&self) -> Result<(), CgroupError> {
        tree::rewrite(&each!(&self.kind, group => group.cpu_limit()).0)
    }

    /// No limit on its CPU until the next [`Self::limit`]: what is killed needs some to end.
    pub fn unbind_cpu(&self) -> Result<(), CgroupError> {
        let mut standing = self.standing();
        let before = std::mem::take(&mut *standing);
        let (path, unlimited) = each!(&self.kind, group => group.cpu_limit());
        tree::write(&path, unlimited)?;
        if let Standing::Set(before) = before {
            *standing = Standing::Set(Limits { cpu_milli: UNBOUND, ..before });
        }
        Ok(())
    }

    /// CPU time since the group was made.
    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        each!(&self.kind, group => group.cpu_us())
    }

    /// Memory charged now.
    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        each!(&self.kind, group => group.memory_bytes())
    }

    /// The most memory that was charged at any time since the group was made, or since [`Self::forget_peak`] where the kernel lets one forget;
    /// nothing where the kernel does not tell.
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        each!(&self.kind, group => group.memory_peak_bytes())
    }

    /// The next container's peak is its own. Kernels with v2 before 6.12 do not forget.
    pub fn forget_peak(&self) {
        each!(&self.kind, group => group.forget_peak());
    }

    /// How to ask the kernel to take away what memory it can: the file pages, and with swap the rest. To be done without the group at hand, as it may
    /// take a tenth of a second and more.
    pub fn reclaim(&self) -> Result<Reclaim, CgroupError> {
        let (path, value) = each!(&self.kind, group => group.reclaim())?;
        Ok(Reclaim { path, value })
    }

    /// Processes and threads now.
    pub fn processes(&self) -> Result<u64, CgroupError> {
        each!(&self.kind, group => group.processes())
    }

    /// How often the kernel killed something in it for want of memory, since it was made.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        each!(&self.kind, group => group.oom_kills())
    }

    /// Ends everything in it at once, also what is being forked, where the kernel can do that (v2); else does nothing.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match &self.kind {
            Kind::V1(_) => Ok(()),
            Kind::V2(group) => group.kill(),
        }
    }

    /// Process numbers in it.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        each!(&self.kind, group => group.pids())
    }

    /// Stops (true) or continues (false) everything in it; returns when it has happened. What cannot be stopped goes on, all of it.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        if frozen {
            self.may_be_frozen.store(true, Ordering::Release);
            let stopped = each!(&self.kind, group => group.freeze(true));
            return stopped.or_else(|error| self.freeze(false).and(Err(error)));
        }
        each!(&self.kind, group => group.freeze(false))?;
        self.may_be_frozen.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether it is stopped, or about to be.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        each!(&self.kind, group => group.is_frozen())
    }

    /// Lets it go on if it is stopped.
    pub fn thaw_if_frozen(&self) -> Result<(), CgroupError> {
        if self.is_frozen()? { self.freeze(false) } else { Ok(()) }
    }

    /// Whether memory left behind by its last user makes it unfit for the next one.
    pub fn is_stale(&self) -> bool {
        self.memory_bytes().map_or(true, |bytes| bytes > 1 << 20)
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), CgroupError> {
        each!(self.kind, group => group.remove())
    }
}

fn differ_in_cpu_only(before: &Limits, limits: &Limits) -> bool {
    before.cpu_milli != limits.cpu_milli && Limits { cpu_milli: limits.cpu_milli, ..before.clone() } == *limits
}

#[cfg(test)]
mod tests;
