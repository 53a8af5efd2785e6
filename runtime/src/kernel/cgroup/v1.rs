//! cgroup v1: one tree per controller, each with a directory for the node and one for the container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::disk::Disk;
use super::tree::{self, Kept, Rare};
use super::{Capacity, CgroupError, devices};
use crate::spec::{IoLimits, Limits};

/// What every container has a directory in. `devices` has one for all containers of the node: their rules are the same.
const OWN: [&str; 5] = ["pids", "cpu", "cpuacct", "memory", "freezer"];
const NEEDED: [&str; 4] = ["pids", "cpu", "memory", "freezer"];
const PERIOD_US: u64 = 100_000;

/// The node's directories.
#[derive(Debug)]
pub struct Parent {
    /// Controller to the root of its tree; controllers mounted together share one.
    roots: BTreeMap<&'static str, PathBuf>,
    dirs: BTreeMap<&'static str, PathBuf>,
    devices: Option<PathBuf>,
    /// The root of the tree for block I/O, in which only those have a directory that are bounded there.
    blkio: Option<PathBuf>,
    below: String,
}

impl Parent {
    pub fn prepare(root: &Path, parent: &str, capacity: Option<Capacity>) -> Result<Self, CgroupError> {
        let (roots, devices, blkio) = (mounted(root)?, find(root, "devices")?, find(root, "blkio")?);
        let mut made = Self { roots, dirs: BTreeMap::new(), devices, blkio, below: parent.to_owned() };
        match made.make(capacity) {
            Ok(()) => Ok(made),
            Err(error) => {
                made.trees().into_iter().for_each(|root| tree::undo(root, parent));
                Err(error)
            }
        }
    }

    fn make(&mut self, capacity: Option<Capacity>) -> Result<(), CgroupError> {
        for (controller, root) in &self.roots {
            self.dirs.insert(*controller, tree::make_all(root, &self.below)?);
        }
        if let Some(capacity) = capacity {
            self.bound(capacity)?;
        }
        // Every group made in it begins with the same: a limit of memory is one of real memory.
        tree::write_if_there(&self.dir("memory").join("memory.swappiness"), "0")?;
        match &self.devices {
            Some(root) => allow_devices(&tree::make_all(root, &self.below)?),
            None => Ok(()),
        }
    }

    fn trees(&self) -> Vec<&PathBuf> {
        let blkio = self.blkio_dir().and(self.blkio.as_ref());
        let mut roots: Vec<&PathBuf> = self.roots.values().chain(&self.devices).chain(blkio).collect();
        roots.dedup();
        roots
    }

    fn bound(&self, capacity: Capacity) -> Result<(), CgroupError> {
        let quota = capacity.cpu_milli * PERIOD_US / 1000;
        tree::write(&self.dir("cpu").join("cpu.cfs_quota_us"), &quota.to_string())?;
        tree::write(&self.dir("memory").join("memory.limit_in_bytes"), &capacity.memory_bytes.to_string())
    }

    pub fn dir(&self, controller: &str) -> &Path {
        self.dirs.get(controller).map_or(Path::new(""), PathBuf::as_path)
    }

    pub fn adopt_launcher(&self, pid: u32) -> Result<(), CgroupError> {
        match &self.devices {
            Some(root) => tree::write(&root.join(&self.below).join("cgroup.procs"), &pid.to_string()),
            None => Ok(()),
        }
    }

    pub fn group(&self, name: &str) -> Result<Group, CgroupError> {
        let mut dirs: Vec<PathBuf> = self.dirs.values().map(|dir| dir.join(name)).collect();
        dirs.dedup();
        let blkio = self.blkio.as_ref().map(|root| Blkio::new(root, &self.below, name));
        Group::make(dirs, blkio, |controller| self.dirs.get(controller).map(|dir| dir.join(name)))
    }

    /// Where groups that are bounded in block I/O are, if there are any.
    fn blkio_dir(&self) -> Option<PathBuf> {
        self.blkio.as_ref().map(|root| root.join(&self.below)).filter(|dir| dir.exists())
    }

    /// Of groups in any of the trees: who was killed while making or removing one left it in some of them.
    pub fn names(&self) -> Result<Vec<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for dir in self.dirs.values().chain(&self.blkio_dir()) {
            names.extend(tree::children(dir)?);
        }
        Ok(names.into_iter().collect())
    }

    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        match self.dirs.get("cpuacct") {
            Some(dir) => Ok(Kept::reading(dir.join("cpuacct.usage"))?.number()? / 1000),
            None => Ok(0),
        }
    }

    /// Without file pages that nobody used lately: the kernel gives them up when anybody wants memory.
    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        let dir = self.dir("memory");
        let used = Kept::reading(dir.join("memory.usage_in_bytes"))?.number()?;
        Ok(used.saturating_sub(Kept::reading(dir.join("memory.stat"))?.keyed("total_inactive_file")?))
    }

    pub fn remove(&self) -> Result<(), CgroupError> {
        self.trees().into_iter().try_for_each(|root| tree::remove_all(root, &self.below))
    }
}

/// The controllers that containers use, and where each is mounted.
fn mounted(root: &Path) -> Result<BTreeMap<&'static str, PathBuf>, CgroupError> {
    let mut roots = BTreeMap::new();
    for name in OWN {
        if let Some(found) = find(root, name)? {
            roots.insert(name, found);
        }
    }
    if NEEDED.iter().all(|needed| roots.contains_key(needed)) {
        Ok(roots)
    } else {
        Err(CgroupError::NotMounted(root.to_owned()))
    }
}

/// The tree of `controller`: mounted alone, or with others under a joined name such as `cpu,cpuacct`.
pub fn find(root: &Path, controller: &str) -> Result<Option<PathBuf>, CgroupError> {
    let alone = root.join(controller);
    if is_tree(&alone)? {
        return match std::fs::canonicalize(&alone) {
            Ok(found) => Ok(Some(found)),
            Err(source) => Err(CgroupError::Read { path: alone, source }),
        };
    }
    let names = if tree::is_there(root)? { tree::children(root)? } else { Vec::new() };
    let joined = names.into_iter().find(|name| name.split(',').any(|part| part == controller));
    match joined.map(|name| root.join(name)) {
        Some(path) if is_tree(&path)? => Ok(Some(path)),
        _ => Ok(None),
    }
}

fn is_tree(path: &Path) -> Result<bool, CgroupError> {
    tree::is_there(&path.join("cgroup.procs"))
}

fn allow_devices(dir: &Path) -> Result<(), CgroupError> {
    tree::write(&dir.join("devices.deny"), "a")?;
    devices::ALLOWED.iter().try_for_each(|rule| tree::write(&dir.join("devices.allow"), &rule.to_string()))
}

/// 1,024 stand for a CPU or for the usual weight; the kernel takes no fewer than 2.
fn shares(limits: &Limits) -> u64 {
    match limits.cpu_weight {
        0 => (limits.cpu_milli * 1024 / 1000).max(2),
        weight => (weight * 1024 / 100).max(2),
    }
}

/// A container's directory in the tree for block I/O, made when it is first bounded there.
#[derive(Debug)]
struct Blkio {
    root: PathBuf,
    /// The node's directory, from the root.
    below: String,
    dir: PathBuf,
    procs: OnceLock<Kept>,
}

impl Blkio {
    fn new(root: &Path, below: &str, name: &str) -> Self {
        let dir = root.join(below).join(name);
        Self { root: root.to_owned(), below: below.to_owned(), dir, procs: OnceLock::new() }
    }

    /// Makes the directory.
    fn procs(&self) -> Result<&Kept, CgroupError> {
        if let Some(procs) = self.procs.get() {
            return Ok(procs);
        }
        tree::make_all(&self.root, &self.below)?;
        tree::make(&self.dir)?;
        let opened = to_join(&self.dir)?;
        Ok(self.procs.get_or_init(|| opened))
    }
}

fn to_join(dir: &Path) -> Result<Kept, CgroupError> {
    Kept::writing(dir.join("cgroup.procs"))
}

/// A container's directories, with what every launch or measurement uses kept open.
#[derive(Debug)]
pub struct Group {
    /// Nobody has had it before.
    pub is_fresh: bool,
    dirs: Vec<PathBuf>,
    joins: Vec<Kept>,
    pids_max: Rare,
    cpu_quota: Rare,
    cpu_shares: Rare,
    memory_limit: Rare,
    memory_usage: Kept,
    memory_peak: Kept,
    force_empty: PathBuf,
    oom_control: Kept,
    pids_current: Rare,
    cpu_usage: Option<Kept>,
    freezer: Rare,
    blkio: Option<Blkio>,
}

impl Group {
    fn make(
        dirs: Vec<PathBuf>,
        blkio: Option<Blkio>,
        of: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, CgroupError> {
        let mut joins = Vec::with_capacity(dirs.len());
        let mut is_fresh = true;
        for dir in &dirs {
            is_fresh &= tree::make(dir)?;
            joins.push(to_join(dir)?);
        }
        // Whoever bounded it before is found by that.
        if let Some(blkio) = blkio.as_ref().filter(|blkio| blkio.dir.exists()) {
            blkio.procs()?;
        }
        let file = |controller: &str, name: &str| of(controller).unwrap_or_default().join(name);
        let cpu_usage = of("cpuacct").map(|dir| Kept::reading(dir.join("cpuacct.usage"))).transpose()?;
        Ok(Self {
            is_fresh,
            joins,
            pids_max: Rare::new(file("pids", "pids.max")),
            cpu_quota: Rare::new(file("cpu", "cpu.cfs_quota_us")),
            cpu_shares: Rare::new(file("cpu", "cpu.shares")),
            memory_limit: Rare::new(file("memory", "memory.limit_in_bytes")),
            memory_peak: Kept::later(file("memory", "memory.max_usage_in_bytes"), true),
            force_empty: file("memory", "memory.force_empty"),
            memory_usage: Kept::later(file("memory", "memory.usage_in_bytes"), false),
            oom_control: Kept::reading(file("memory", "memory.oom_control"))?,
            pids_current: Rare::new(file("pids", "pids.current")),
            freezer: Rare::new(file("freezer", "freezer.state")),
            cpu_usage,
            dirs,
            blkio,
        })
    }

    pub fn joins(&self) -> Result<Vec<&File>, CgroupError> {
        let blkio = self.blkio.as_ref().and_then(|blkio| blkio.procs.get());
        self.joins.iter().chain(blkio).map(Kept::file).collect()
    }

    pub fn close_spare(&mut self) {
        let blkio = self.blkio.as_mut().and_then(|blkio| blkio.procs.get_mut());
        self.joins.iter_mut().chain(blkio).chain([&mut self.memory_peak]).for_each(Kept::close);
    }

    /// Nobody has bounded its block I/O.
    pub fn is_unbound_io(&self) -> bool {
        self.blkio.as_ref().is_none_or(|blkio| blkio.procs.get().is_none())
    }

    /// All but the CPU.
    pub fn limit_rest(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.pids_max.set(&limits.processes.to_string())?;
        self.memory_limit.set(&limits.memory_bytes.to_string())
    }

    pub fn limit_cpu(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.cpu_quota.set(&(limits.cpu_milli * PERIOD_US / 1000).to_string())?;
        self.cpu_shares.set(&shares(limits).to_string())
    }

    pub fn limit_io(&self, limits: IoLimits, disk: &Disk) -> Result<(), CgroupError> {
        let Some(blkio) = &self.blkio else {
            return Err(CgroupError::NotOffered { path: self.dirs[0].clone(), controller: "blkio".to_owned() });
        };
        blkio.procs()?;
        disk.lines(limits).iter().try_for_each(|(file, line)| tree::write(&blkio.dir.join(file), line))
    }

    /// The file of the limit, and what stands for none.
    pub fn cpu_limit(&self) -> (PathBuf, &'static str) {
        let mut files = self.dirs.iter().map(|dir| dir.join("cpu.cfs_quota_us"));
        (files.find(|file| file.exists()).unwrap_or_default(), "-1")
    }

    pub fn cpu_us(&self) -> Result<u64, CgroupError> {
        self.cpu_usage.as_ref().map_or(Ok(0), |file| Ok(file.number()? / 1000))
    }

    pub fn memory_bytes(&self) -> Result<u64, CgroupError> {
        self.memory_usage.number()
    }

    pub fn memory_peak_bytes(&self) -> Option<u64> {
        self.memory_peak.number().ok()
    }

    pub fn forget_peak(&self) {
        // Then the peak is of more than one container, which is all.
        let _ = self.memory_peak.set("0");
    }

    /// The kernel reclaims all it can of the group when this is written.
    pub fn reclaim(&self) -> Result<(PathBuf, String), CgroupError> {
        Ok((self.force_empty.clone(), "0".to_owned()))
    }

    pub fn processes(&self) -> Result<u64, CgroupError> {
        self.pids_current.reading()?.number()
    }

    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        self.oom_control.keyed("oom_kill")
    }

    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        tree::pids(&self.dirs[0])
    }

    /// The state passes through FREEZING while tasks are on their way into the freezer; reading it moves it on.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        let state = self.freezer.both()?;
        state.set(wanted)?;
        super::await_stop(self.freezer.path(), wanted, || Ok(state.text()?.trim() == wanted))
    }

    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(self.freezer.reading()?.text()?.trim() != "THAWED")
    }

    pub fn remove(self) -> Result<(), CgroupError> {
        let Self { dirs, blkio, .. } = self;
        let blkio = blkio.filter(|blkio| blkio.procs.get().is_some()).map(|blkio| blkio.dir);
        dirs.iter().chain(&blkio).try_for_each(|dir| tree::remove(dir))
    }
}
