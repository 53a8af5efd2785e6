//! The control groups of a container that is run from a bundle: where they are, what they are told, how processes get in, how all of it goes.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use super::resources::{self, Write};
use super::{OciError, filesystem};
use crate::kernel::cgroup::devices::{Program, Rule};
use crate::kernel::cgroup::{CgroupError, await_stop, tree};

const ROOT: &str = "/sys/fs/cgroup";
/// With a tree per controller, a container is in these whatever it asks for; in others when it asks for something there.
const ALWAYS: [&str; 7] = ["cpu", "cpuacct", "memory", "pids", "freezer", "devices", "blkio"];
/// What a new group in one tree can limit.
const ENABLED: [&str; 7] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"];

/// The directories of one container, which outlive every command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// One tree for all controllers.
    pub one_tree: bool,
    /// Name of the tree below `/sys/fs/cgroup`, and the container's directory in it.
    pub dirs: Vec<(String, PathBuf)>,
    /// With one tree, where they are no files: what is said of devices.
    #[serde(skip)]
    pub devices: Vec<Rule>,
}

impl Groups {
    /// Computes where a container's groups are; nothing is made yet.
    pub fn plan(id: &str, linux: &Linux) -> Result<(Self, Vec<Write>), OciError> {
        let below = below(id, linux)?;
        let one_tree = Path::new(ROOT).join("cgroup.controllers").exists();
        let asked = linux.resources().as_ref();
        if one_tree {
            let writes = asked.map(resources::one_tree).transpose()?.unwrap_or_default();
            let dirs = vec![(String::new(), Path::new(ROOT).join(below))];
            let devices = asked.map(resources::device_rules).transpose()?.unwrap_or_default();
            return Ok((Self { one_tree, dirs, devices }, writes));
        }
        let writes = asked.map(resources::many_trees).transpose()?.unwrap_or_default();
        let wanted =
            |controller: &str| ALWAYS.contains(&controller) || writes.iter().any(|w| w.controller == controller);
        let root = Path::new(ROOT);
        let mut dirs = Vec::new();
        for name in tree::children(root)? {
            if name.split(',').any(wanted) {
                let dir = root.join(&name).join(&below);
                dirs.push((name, dir));
            }
        }
        let has = |write: &Write| dirs.iter().any(|(name, _)| name.split(',').any(|part| part == write.controller));
        match writes.iter().find(|write| !has(write)) {
            Some(write) => Err(OciError::refused(
                format!("linux.resources ({})", write.file),
                format!("no tree of the controller {} is mounted below {ROOT}", write.controller),
            )),
            None => Ok((Self { one_tree, dirs, devices: Vec::new() }, writes)),
        }
    }

    /// What mounts of type `cgroup` show.
    pub fn host(&self) -> filesystem::Host {
        filesystem::Host { one_tree: self.one_tree, cgroups: self.dirs.clone() }
    }

    /// Makes what is missing and writes all limits. What was made is taken away again when something fails.
    pub fn make(&self, writes: &[Write]) -> Result<(), OciError> {
        let all = self.dirs.iter().try_for_each(|(name, dir)| self.make_one(name, dir));
        let made = all.and_then(|()| self.write(writes)).and_then(|()| self.list_devices());
        if let Err(error) = made {
            return match self.remove() {
                Ok(()) => Err(error),
                Err(undo) => {
                    tracing::error!(%undo, "a cgroup stays behind");
                    Err(error)
                }
            };
        }
        Ok(())
    }

    fn list_devices(&self) -> Result<(), OciError> {
        let (false, Some((_, dir))) = (self.devices.is_empty(), self.dirs.first()) else { return Ok(()) };
        let attached = Program::load_rules(&self.devices).and_then(|program| program.attach(File::open(dir)?.as_fd()));
        attached.map_err(OciError::kernel("bound the devices by a program of the kernel"))
    }

    fn make_one(&self, tree: &str, dir: &Path) -> Result<(), OciError> {
        if let Ok(()) = std::fs::create_dir(dir) {
            return prepare(tree, dir);
        }
        let mut path = PathBuf::from(ROOT);
        let below = dir.strip_prefix(ROOT).unwrap_or(dir);
        for part in below.components() {
            if self.one_tree {
                enable(&path);
            }
            path.push(part);
            if !path.exists() {
                tree::make(&path)?;
                prepare(tree, &path)?;
            }
        }
        Ok(())
    }

    /// Writes limits, in their order.
    pub fn write(&self, writes: &[Write]) -> Result<(), OciError> {
        for same in writes.chunk_by(|one, next| (one.controller, &one.file) == (next.controller, &next.file)) {
            if let Some(dir) = self.dir(same[0].controller) {
                let file = tree::Kept::writing(dir.join(&same[0].file))?;
                same.iter().try_for_each(|write| file.set(&write.value))?;
            }
        }
        Ok(())
    }

    /// Where a controller's files are.
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        let of = |(name, _): &&(String, PathBuf)| self.one_tree || name.split(',').any(|part| part == controller);
        self.dirs.iter().find(of).map(|(_, dir)| dir.as_path())
    }

    /// Puts a process into all of them.
    pub fn join(&self, pid: u32) -> Result<(), OciError> {
        let pid = pid.to_string();
        self.dirs.iter().try_for_each(|(_, dir)| Ok(tree::write(&dir.join("cgroup.procs"), &pid)?))
    }

    /// Every process in them, also in groups that the container made below its own.
    pub fn pids(&self) -> Result<Vec<u32>, OciError> {
        let Some(dir) = self.dir("pids").or_else(|| self.dir("devices")) else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect(dir, &mut pids)?;
        Ok(pids)
    }

    /// Removes the one that counts processes; false where there are some in it. A shorter question than to list them.
    pub fn remove_if_empty(&self) -> bool {
        let counting = self.dir("pids").or_else(|| self.dir("devices"));
        counting.is_none_or(|dir| std::fs::remove_dir(dir).is_ok())
    }

    /// Stops or continues everything in them; returns when it has happened.
    pub fn freeze(&self, frozen: bool) -> Result<(), OciError> {
        let none = || OciError::refused("cgroups", "no freezer: the container cannot be paused");
        let dir = self.dir("freezer").ok_or_else(none)?;
        let (file, value, state, want) = match (self.one_tree, frozen) {
            (true, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (true, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
            (false, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
        };
        tree::write(&dir.join(file), value)?;
        let state = dir.join(state);
        let stopped = await_stop(&state, want, || Ok(read(&state)?.lines().any(|line| line == want)));
        // What cannot be stopped goes on, all of it.
        if frozen { stopped.or_else(|error| self.freeze(false).and(Err(error))) } else { stopped }
    }

    /// Whether everything in them is stopped.
    pub fn is_frozen(&self) -> bool {
        let Some(dir) = self.dir("freezer") else { return false };
        let (state, want) = if self.one_tree { ("cgroup.events", "frozen 1") } else { ("freezer.state", "FROZEN") };
        read(&dir.join(state)).is_ok_and(|text| text.lines().any(|line| line == want))
    }

    /// Removes them with all groups below; who is still in them is on the way out.
    pub fn remove(&self) -> Result<(), OciError> {
        self.dirs.iter().try_for_each(|(_, dir)| remove(dir))
    }
}

/// A new group of CPUs and memory nodes is empty in a tree of its own, and nobody can join it, until it is told some: those of the group above.
fn prepare(tree: &str, dir: &Path) -> Result<(), OciError> {
    if !tree.split(',').any(|controller| controller == "cpuset") {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = read(&dir.parent().unwrap_or(dir).join(file))?;
        tree::write(&dir.join(file), above.trim())?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, OciError> {
    std::fs::read_to_string(path).map_err(OciError::file("read", path))
}

fn remove(dir: &Path) -> Result<(), OciError> {
    if let Err(error) = std::fs::remove_dir(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        match tree::children(dir) {
            Ok(below) => below.iter().try_for_each(|name| remove(&dir.join(name)))?,
            Err(CgroupError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        tree::remove(dir)?;
    }
    Ok(())
}

fn collect(dir: &Path, pids: &mut Vec<u32>) -> Result<(), OciError> {
    match tree::pids(dir) {
        Ok(own) => pids.extend(own),
        Err(CgroupError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for name in tree::children(dir)? {
        collect(&dir.join(name), pids)?;
    }
    Ok(())
}

/// For all controllers that are there. One that cannot be (as processes are in this very group) is missed when a limit of it is written.
fn enable(dir: &Path) {
    let have = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in have.split_whitespace().filter(|name| ENABLED.contains(name)) {
        if let Err(error) = tree::write(&dir.join("cgroup.subtree_control"), &format!("+{controller}")) {
            tracing::debug!(%error, "a controller is not passed on");
        }
    }
}

/// From the root of each tree. A path of systemd's form means that somebody else would have to make the groups.
fn below(id: &str, linux: &Linux) -> Result<PathBuf, OciError> {
    let Some(path) = linux.cgroups_path().as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Path::new("bellows-oci").join(id));
    };
    let text = path.to_string_lossy();
    if !text.contains('/') && text.matches(':').count() == 2 {
        let reason = format!(
            "{text:?} is for systemd, which is not asked here: use cgroupfs (podman: --cgroup-manager=cgroupfs)"
        );
        return Err(OciError::refused("linux.cgroupsPath", reason));
    }
    let parts = super::mounts::inside(path);
    if parts.is_empty() {
        return Err(OciError::refused("linux.cgroupsPath", "is the root of all groups"));
    }
    use std::os::unix::ffi::OsStrExt;
    Ok(parts.iter().map(|part| std::ffi::OsStr::from_bytes(part)).collect())
}
