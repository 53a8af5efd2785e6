//! Real load on a host: processes in its cgroup subtree that burn CPU or hold memory. They end with the test, or with their host.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::local::{self, Local};

/// Ended when dropped.
#[derive(Debug)]
pub struct Burn {
    child: Child,
    group: Option<PathBuf>,
}

impl Burn {
    /// So much CPU, for as long as it lives: an endless loop below a quota of its own. Less than the host's, or its agent would not get any.
    pub fn cpu(local: &Local, host: &str, milli: u64) -> Self {
        let group = directory(local, host, "cpu").join("burn");
        fs::create_dir(&group).unwrap_or_else(|e| panic!("{}: {e}", group.display()));
        let quota_us = milli * 100;
        let limited = if group.join("cpu.max").exists() {
            fs::write(group.join("cpu.max"), format!("{quota_us} 100000"))
        } else {
            fs::write(group.join("cpu.cfs_quota_us"), quota_us.to_string())
        };
        limited.unwrap_or_else(|e| panic!("a quota for {}: {e}", group.display()));
        favour(&group);
        favour(&directory(local, host, "cpu"));
        let script = format!("echo $$ > {}/cgroup.procs && while :; do :; done", group.display());
        Self { child: start(local, host, &script), group: Some(group) }
    }

    /// So much memory: read by a program that must keep it all until it may say the first of it, which nobody listens to.
    pub fn memory(local: &Local, host: &str, mebibytes: u64) -> Self {
        let script = format!("head -c {mebibytes}M /dev/zero | tail -c {mebibytes}M | sleep 100000");
        Self { child: start(local, host, &script), group: None }
    }
}

impl Drop for Burn {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().try_into().expect("process ids are small"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        // Fails when the host is gone, and the directory with it.
        let _ = self.group.as_ref().map(fs::remove_dir);
    }
}

fn start(local: &Local, host: &str, script: &str) -> Child {
    let mut command = local::command(&local.name, "exec", &[host, "--", "sh", "-c", script]);
    // A group of its own, so that all of a pipeline can be ended.
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the executable was built")
}

/// A host's directory in the hierarchy of this controller.
pub fn directory(local: &Local, host: &str, controller: &str) -> PathBuf {
    hierarchy(controller).join(format!("bellows-local-{}/{host}", &*local.name))
}

fn hierarchy(controller: &str) -> PathBuf {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return root;
    }
    let all = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|part| part == controller))
    };
    all.into_iter().find(named).unwrap_or_else(|| panic!("no hierarchy of {controller}"))
}

/// A whole cluster has the weight of one process of those beside it: on a busy machine its hosts would be late, and burn little.
pub fn favour_cluster(name: &str) {
    favour(&hierarchy("cpu").join(format!("bellows-local-{name}")));
}

fn favour(group: &Path) {
    let weighed = if group.join("cpu.weight").exists() {
        fs::write(group.join("cpu.weight"), "10000")
    } else {
        fs::write(group.join("cpu.shares"), "100000")
    };
    weighed.unwrap_or_else(|e| panic!("a weight for {}: {e}", group.display()));
}

/// Memory that a host uses, from the kernel's own counter.
pub fn memory_bytes(local: &Local, host: &str) -> u64 {
    let directory = directory(local, host, "memory");
    let files = ["memory.current", "memory.usage_in_bytes"].map(|name| directory.join(name));
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("no counter in {}", directory.display()))
}
