//! cgroup v2: one tree; a container's directory holds every controller.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::tree::{self, Kept, Rare};
use super::{Capacity, CgroupError, delegation, devices};
use crate::spec::{IoLimits, Limits};

const PERIOD_US: u64 = 100_000;

/// The node's directory.
#[derive(Debug)]
pub struct Parent {
    /// Where it begins: see [`delegation`].
    top: PathBuf,
    dir: PathBuf,
    below: String,
    /// For every group; none where the kernel takes no such program.
    devices: Option<devices::Program>,
}

/// Whether `root` is a v2 tree with the controllers that containers need.
pub fn is_mounted(root: &Path) -> bool {
    let have = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    ["cpu", "memory", "pids"].iter().all(|wanted| have.split_whitespace().any(|name| name == *wanted))
}

/// Rather than files that look like it, to which no program can be attached.
fn is_real(root: &Path) -> bool {
    const CGROUP2_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(root).is_ok_and(|system| system.f_type == CGROUP2_MAGIC)
}

impl Parent {
    pub fn prepare(
        root: &Path,
        parent: &str,
        capacity: Option<Capacity>,
        top: Option<&Path>,
    ) -> Result<Self, CgroupError> {
        let known = top.map(|below| root.join(below)).filter(|top| top.is_dir());
        let top = known.unwrap_or_else(|| delegation::top(root));
        let dir = Self::make(root, &top, parent, capacity).inspect_err(|_| tree::undo(&top, parent))?;
        let refused = |error| tracing::warn!(%error, "no list of allowed devices: the kernel refuses its program");
        let devices = is_real(root).then(|| devices::Program::load().map_err(refused).ok()).flatten();
        Ok(Self { top, dir, below: parent.to_owned(), devices })
    }

    fn make(root: &Path, top: &Path, parent: &str, capacity: Option<Capacity>) -> Result<PathBuf, CgroupError> {
        let mut dir = top.to_owned();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            delegation::enable(&dir, root)?;
            dir.push(part);
            tree::make(&dir)?;
        }
        delegation::enable(&dir, root)?;
        if let Some(capacity) = capacity {
            tree::write(&dir.join("cpu.max"), &quota(capacity.cpu_milli))?;
            tree::write(&dir.join("memory.max"), &capacity.memory_bytes.to_string())?;
        }
        // For all in it: a limit of memory is one of real memory.
        tree::write_if_there(&dir.join("memory.swap.max"), "0")?;
        Ok(dir)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn group(&self, name: &str) -> Result<Group, CgroupError> {
        Group::make(self.dir.join(name), self.devices.as_ref())
    }

    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        Kept::reading(self.dir.join("cpu.stat"))?.keyed("usage_usec")
    }

    /// Without file pages that nobody used lately: the kernel gives them up when anybody wants memory.
    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        let used = Kept::reading(self.dir.join("memory.current"))?.number()?;
        Ok(used.saturating_sub(Kept::reading(self.dir.join("memory.stat"))?.keyed("inactive_file")?))
    }

    pub fn remove(&self) -> Result<(), CgroupError> {
        tree::remove_all(&self.top, &self.below)
    }
}

fn quota(cpu_milli: u64) -> String {
    format!("{} {PERIOD_US}", cpu_milli * PERIOD_US / 1000)
}

/// A container's directory, with what every launch or measurement uses kept open.
#[derive(Debug)]
pub struct Group {
    /// Nobody has had it before.
    pub is_fresh: bool,
    dir: PathBuf,
    opened: Kept,
    pids_max: Rare,
    cpu_max: Rare,
    cpu_weight: Rare,
    memory_max: Rare,
    memory_current: Kept,
    /// Forgetting a peak is a descriptor's own: this one is written and read.
    memory_peak: Option<Kept>,
    memory_events: Kept,
    pids_current: Rare,
    cpu_stat: Kept,
    freezer: Rare,
    events: Rare,
}

impl Group {
    fn make(dir: PathBuf, devices: Option<&devices::Program>) -> Result<Self, CgroupError> {
        let is_fresh = tree::make(&dir)?;
        let opened = Kept::reading(dir.clone())?;
        let directory = opened.file()?.as_fd();
        let attached = devices.map_or(Ok(()), |program| program.attach(directory));
        attached.map_err(|source| CgroupError::Devices { path: dir.clone(), source })?;
        Ok(Self {
            is_fresh,
            opened,
            pids_max: Rare::new(dir.join("pids.max")),
            cpu_max: Rare::new(dir.join("cpu.max")),
            cpu_weight: Rare::new(dir.join("cpu.weight")),
            memory_max: Rare::new(dir.join("memory.max")),
            memory_current: Kept::later(dir.join("memory.current"), false),
            memory_peak: peak(dir.join("memory.peak")),
            memory_events: Kept::reading(dir.join("memory.events"))?,
            pids_current: Rare::new(dir.join("pids.current")),
            cpu_stat: Kept::reading(dir.join("cpu.stat"))?,
            freezer: Rare::new(dir.join("cgroup.freeze")),
            events: Rare::new(dir.join("cgroup.events")),
            dir,
        })
    }

    pub fn directory(&self) -> Result<&File, CgroupError> {
        self.opened.file()
    }

    pub fn close_spare(&mut self) {
        self.opened.close();
    }

    /// All but the CPU.
    pub fn limit_rest(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.pids_max.set(&limits.processes.to_string())?;
        self.memory_max.set(&limits.memory_bytes.to_string())
    }

    pub fn limit_cpu(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.cpu_max.set(&quota(limits.cpu_milli))?;
        self.cpu_weight.set(&weight(limits).to_string())
    }

    pub fn limit_io(&self, limits: IoLimits, disk: &Disk) -> Result<(), CgroupError> {
        let file = self.dir.join("io.max");
        if !file.exists() {
            return Err(CgroupError::NotOffered { path: self.dir.clone(), controller: "io".to_owned() });
        }
        tree::write(&file, &disk.line(limits))
    }

    /// Nobody has bounded its block I/O.
    pub fn is_unbound_io(&self) -> bool {
        self.is_fresh
    }

    /// The file of the limit, and what stands for none.
    pub fn cpu_limit(&self) -> (PathBuf, &'static str) {
        (self.dir.join("cpu.max"), "max")
    }

    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        self.cpu_stat.keyed("usage_usec")
    }

    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        self.memory_current.number()
    }

    pub fn memory_peak_bytes(&self) -> Option<u64> {
        self.memory_peak.as_ref()?.number().ok()
    }

    pub fn forget_peak(&self) {
        // Before Linux 6.12 the file cannot be written: then the peak is of more than one container.
        let _ = self.memory_peak.as_ref().map(|peak| peak.set("0"));
    }

    /// As much as is charged.
    pub fn reclaim(&self) -> Result<(PathBuf, String), CgroupError> {
        Ok((self.dir.join("memory.reclaim"), self.memory_bytes()?.to_string()))
    }

    pub fn processes(&self) -> Result<u64, CgroupError> {
        self.pids_current.reading()?.number()
    }

    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        self.memory_events.keyed("oom_kill")
    }

    /// Kernels before 5.14 have no such file: whoever asks ends processes one by one as well.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match tree::write(&self.dir.join("cgroup.kill"), "1") {
            Err(CgroupError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        tree::pids(&self.dir)
    }

    /// Read in a loop: notifications of this file are held back for 10 ms by the kernel, the state itself is there within 25 us.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let (wanted, said) = (u64::from(frozen), if frozen { "frozen 1" } else { "frozen 0" });
        let events = self.events.reading()?;
        self.freezer.set(&wanted.to_string())?;
        super::await_stop(self.events.path(), said, || Ok(events.keyed("frozen")? == wanted))
    }

    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(self.freezer.reading()?.number()? != 0)
    }

    pub fn remove(self) -> Result<(), CgroupError> {
        tree::remove(&self.dir)
    }
}

fn peak(path: PathBuf) -> Option<Kept> {
    Rare::new(path.clone()).both().or_else(|_| Kept::reading(path)).ok()
}

/// One CPU is the default weight of 100; the kernel takes 1 to 10,000.
fn weight(limits: &Limits) -> u64 {
    match limits.cpu_weight {
        0 => (limits.cpu_milli / 10).clamp(1, 10_000),
        weight => weight.clamp(1, 10_000),
    }
}
