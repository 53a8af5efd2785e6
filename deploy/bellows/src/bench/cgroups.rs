//! cgroups of measured processes: who is in one, and how much CPU it has used.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const ROOT: &str = "/sys/fs/cgroup";

/// Moves a process into this cgroup, wherever there is one of that name.
pub fn enter(name: &str, pid: u32) -> Result<(), Failure> {
    for path in everywhere(name) {
        let file = path.join("cgroup.procs");
        fs::write(&file, pid.to_string())
            .map_err(|error| Failure::failed(format!("moving process {pid} to {}: {error}", path.display())))?;
    }
    Ok(())
}

/// CPU seconds that everything in it has used, in user code and in the kernel.
pub fn cpu_seconds(name: &str) -> Result<f64, Failure> {
    let found = everywhere(name).iter().find_map(|path| v1(path).or_else(|| v2(path)));
    found.ok_or_else(|| Failure::failed(format!("no cgroup hierarchy counts the CPU time of {name}")))
}

fn v1(path: &Path) -> Option<f64> {
    let nanoseconds: f64 = fs::read_to_string(path.join("cpuacct.usage")).ok()?.trim().parse().ok()?;
    Some(nanoseconds / 1e9)
}

fn v2(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path.join("cpu.stat")).ok()?;
    let microseconds: f64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
    Some(microseconds / 1e6)
}

/// At the root (v2), or in each hierarchy below it (v1).
fn everywhere(name: &str) -> Vec<PathBuf> {
    let below = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = std::iter::once(PathBuf::from(ROOT)).chain(below);
    roots.map(|root| root.join(name)).filter(|path| path.join("cgroup.procs").exists()).collect()
}
