//! Where in the v2 tree this process may make groups, and how a group comes to have controllers for those below it.
//!
//! Two rules of the kernel shape this: controllers are handed down level by level, and a group that hands them down holds no process itself, but for
//! the root of the machine. So the agent never lives above its containers. It lives
//! - wherever it was started, most often a service's group, while its containers have a tree of their own at the root; or
//! - in a leaf of a group that systemd delegated (`DelegateSubgroup=`), and its containers in other groups below that. In the delegated group itself it
//!   could not stay: systemd would have to put the next agent there while replicas run; or
//! - at the root of a container's cgroup namespace, from which everything moves into a leaf.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, tree};

/// Without these there is no container.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// These where they are.
const WELCOME: [&str; 1] = ["io"];
/// The leaf for processes that were at the root.
const LEAF: &str = "system";

/// The group below which containers' groups are made: the delegated one whose leaf this process lives in, or the root.
pub fn top(root: &Path) -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(|below| root.join(below));
    let above = own.as_deref().and_then(Path::parent).filter(|above| above.starts_with(root));
    above.filter(|above| is_delegated(above)).map_or_else(|| root.to_owned(), Path::to_owned)
}

/// As systemd marks what it does not touch again.
fn is_delegated(dir: &Path) -> bool {
    let mut value = [0_u8; 8];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(dir, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1")))
}

/// Lets groups below `dir` have controllers. Processes at the root of a namespace move into a leaf for that; elsewhere they are in the way.
pub fn enable(dir: &Path, root: &Path) -> Result<(), CgroupError> {
    let (file, wanted) = (dir.join("cgroup.subtree_control"), wanted(dir)?);
    match tree::write(&file, &wanted) {
        Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            if dir != root {
                return Err(CgroupError::Occupied { path: dir.to_owned(), pids: tree::listed(dir)? });
            }
            vacate(dir)?;
            tree::write(&file, &wanted)
        }
        other => other,
    }
}

fn wanted(dir: &Path) -> Result<String, CgroupError> {
    let path = dir.join("cgroup.controllers");
    let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
    let offered: Vec<&str> = text.split_whitespace().collect();
    if let Some(missing) = NEEDED.iter().find(|name| !offered.contains(*name)) {
        return Err(CgroupError::NotOffered { path: dir.to_owned(), controller: (*missing).to_owned() });
    }
    let all = NEEDED.iter().chain(&WELCOME).filter(|name| offered.contains(*name));
    Ok(all.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" "))
}

/// Moves every process of `dir` into a leaf below it; those that are born meanwhile with the next look.
fn vacate(dir: &Path) -> Result<(), CgroupError> {
    const LOOKS: u32 = 100;
    let leaf = dir.join(LEAF);
    tree::make(&leaf)?;
    let procs = leaf.join("cgroup.procs");
    for _ in 0..LOOKS {
        let pids = tree::pids(dir)?;
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            match tree::write(&procs, &pid.to_string()) {
                Err(CgroupError::Write { source, .. }) if has_ended(&source) => {}
                other => other?,
            }
        }
    }
    match tree::listed(dir)? {
        left if left.is_empty() => Ok(()),
        pids => Err(CgroupError::Occupied { path: dir.to_owned(), pids }),
    }
}

fn has_ended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
