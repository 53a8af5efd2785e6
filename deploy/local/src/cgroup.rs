//! The cluster's directory in every cgroup hierarchy: who is in it, how one gets in, how all of it ends. Limits are the agents' business.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::processes::{self, Pid};

/// Where the kernel's hierarchies are.
const ROOT: &str = "/sys/fs/cgroup";

/// Hierarchies that a host's own processes join: those whose counters and limits make its size. Not `devices`: agents make devices' owners.
const JOINED: [&str; 5] = ["pids", "cpu", "cpuacct", "memory", "freezer"];

/// How long the end of everything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What went wrong, at which directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither shape is there.
    #[error("no cgroups are mounted at {ROOT}; mount cgroup2 there")]
    NotMounted,
    /// A directory could not be made.
    #[error("cannot make the cgroup {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A process could not join.
    #[error("cannot join the cgroup {path}; is the cluster still up?")]
    Join {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something is left.
    #[error("the cgroup {path} does not end: {left} processes are left after {} s", PATIENCE.as_secs())]
    Remains {
        /// Which.
        path: PathBuf,
        /// How many processes.
        left: usize,
        /// The kernel's last answer.
        #[source]
        source: io::Error,
    },
}

/// Makes `below` and everything above it in each hierarchy that hosts join. Is the first part new, or was it there before? The first
/// hierarchy decides: of two who make it at once exactly one is told that it is new.
pub fn make(below: &str) -> Result<bool, Error> {
    let mut new = false;
    for (hierarchy, root) in joined(Path::new(ROOT))?.into_iter().enumerate() {
        let mut path = root;
        for (depth, part) in below.split('/').enumerate() {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => new |= depth == 0 && hierarchy == 0,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Make { path, source }),
            }
        }
    }
    Ok(new)
}

/// Moves this process there.
pub fn join(below: &str) -> Result<(), Error> {
    for root in joined(Path::new(ROOT))? {
        let path = root.join(below);
        fs::write(path.join("cgroup.procs"), "0").map_err(|source| Error::Join { path, source })?;
    }
    Ok(())
}

/// Is there such a directory in any hierarchy?
pub fn exists(below: &str) -> bool {
    roots(Path::new(ROOT)).iter().any(|root| root.join(below).is_dir())
}

/// Names of the directories directly below the root of any hierarchy that begin with `prefix`, without it.
pub fn with_prefix(prefix: &str) -> BTreeSet<String> {
    let all = roots(Path::new(ROOT)).into_iter().flat_map(|root| children(&root));
    all.filter_map(|path| path.file_name()?.to_str()?.strip_prefix(prefix).map(str::to_owned)).collect()
}

/// All processes in the directory and below it, in any hierarchy. A v2 hierarchy says 0 for one that ends while it is read.
pub fn members(below: &str) -> BTreeSet<Pid> {
    let directories = roots(Path::new(ROOT)).into_iter().flat_map(|root| subtree(&root.join(below)));
    let lists = directories.filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
    let numbers = lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<Pid>>());
    numbers.filter(|pid| *pid != 0).collect()
}

/// Ends every process in it and removes it, with all directories below it, in all hierarchies. A process that joins meanwhile ends too.
pub fn end(below: &str) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        thaw(below);
        let members = members(below);
        processes::kill_and_wait(&members, deadline.saturating_duration_since(Instant::now()));
        let removed = roots(Path::new(ROOT)).into_iter().map(|root| remove(&root.join(below))).find_map(Result::err);
        match removed {
            None => return Ok(()),
            Some((path, source)) if Instant::now() >= deadline => {
                return Err(Error::Remains { path, left: members.len(), source });
            }
            // The last process is on its way out still, which the kernel calls busy for some microseconds.
            Some(_) => std::thread::yield_now(),
        }
    }
}

/// Frozen processes of a v1 hierarchy do not even die.
fn thaw(below: &str) {
    for directory in roots(Path::new(ROOT)).into_iter().flat_map(|root| subtree(&root.join(below))) {
        let state = directory.join("freezer.state");
        if fs::read_to_string(&state).is_ok_and(|state| state.trim() != "THAWED") {
            // It may end by itself at this moment; what stays frozen is seen by `end`, which does not get rid of it.
            let _ = fs::write(&state, "THAWED");
        }
    }
}

fn remove(top: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut directories = subtree(top);
    directories.reverse();
    for directory in directories {
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err((directory, error)),
            _ => {}
        }
    }
    Ok(())
}

/// The directory and all below it, each before those below it; none where it does not exist.
fn subtree(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = if top.is_dir() { vec![top.to_owned()] } else { Vec::new() };
    while let Some(directory) = next.pop() {
        next.extend(children(&directory));
        found.push(directory);
    }
    found
}

/// What vanishes while one looks is gone, as it should be.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// All hierarchies: one at the root (v2), or one in each directory below it (v1).
fn roots(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    children(root).into_iter().filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Those that hosts join; controllers that are mounted together are one.
fn joined(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let all = roots(root);
    if all == [root] {
        return Ok(all);
    }
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split(',').any(|controller| JOINED.contains(&controller))
    };
    let found: Vec<PathBuf> = all.into_iter().filter(named).collect();
    if found.is_empty() { Err(Error::NotMounted) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchies(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in names {
            fs::create_dir_all(root.path().join(name)).expect("writable");
            fs::write(root.path().join(name).join("cgroup.procs"), "").expect("writable");
        }
        root
    }

    fn names(root: &Path) -> BTreeSet<String> {
        let joined = joined(root).expect("there are some");
        joined.iter().map(|path| path.strip_prefix(root).expect("below the root").display().to_string()).collect()
    }

    #[test]
    fn one_tree_for_all_is_joined_at_its_root() {
        let root = hierarchies(&["", "system.slice"]);
        assert_eq!(names(root.path()), BTreeSet::from([String::new()]));
    }

    #[test]
    fn of_one_tree_each_those_are_joined_that_make_a_size() {
        let root = hierarchies(&["cpu,cpuacct", "memory", "pids", "freezer", "devices", "unified", "net_cls"]);
        fs::create_dir(root.path().join("no-hierarchy")).expect("writable");
        let expected = ["cpu,cpuacct", "memory", "pids", "freezer"].map(str::to_owned);
        assert_eq!(names(root.path()), BTreeSet::from(expected));
    }

    #[test]
    fn nothing_mounted_is_an_error() {
        assert!(matches!(joined(hierarchies(&[]).path()), Err(Error::NotMounted)));
    }

    #[test]
    fn what_is_below_goes_first() {
        let top = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(top.path().join("a/n1/s1")).expect("writable");
        fs::create_dir_all(top.path().join("a/n2")).expect("writable");
        remove(&top.path().join("a")).expect("nothing but directories");
        assert!(!top.path().join("a").exists());
        remove(&top.path().join("a")).expect("who is gone is gone");
    }
}
