//! What is asked and told of containers that exist.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, LinuxResources, Spec, State};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;

use crate::oci::config::VERSION;
use crate::oci::state::{self, Files, Record};
use crate::oci::{OciError, hooks, resources};

/// A container as `state` and `list` show it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Version of the specification.
    pub oci_version: &'static str,
    /// Its name.
    pub id: String,
    /// Of its first process; 0 when that has ended.
    pub pid: u32,
    /// creating, created, running, paused or stopped.
    pub status: String,
    /// Where its configuration came from.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, milliseconds since 1970.
    #[serde(skip)]
    pub created_unix_ms: u64,
    /// Who created it.
    pub owner: u32,
    /// Its annotations.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// One container.
pub fn state(root: &Path, id: &str) -> Result<Listed, OciError> {
    let files = Files::open(root, id)?;
    let Some(record) = files.record()? else {
        return Ok(listed(nameless(id), ContainerState::Creating.to_string()));
    };
    let status = files.status(&record);
    let paused = status == ContainerState::Running && record.groups.is_frozen();
    let status = if paused { "paused".to_owned() } else { status.to_string() };
    Ok(listed(record, status))
}

/// All that are there; one that goes meanwhile is not among them.
pub fn list(root: &Path) -> Result<Vec<Listed>, OciError> {
    let mut all = Vec::new();
    for id in Files::names(root)? {
        match state(root, &id) {
            Err(OciError::Unknown(_)) => {}
            other => all.push(other?),
        }
    }
    Ok(all)
}

fn nameless(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        bundle: PathBuf::new(),
        rootfs: PathBuf::new(),
        pid: 0,
        pid_started: 0,
        created_unix_ms: 0,
        owner: 0,
        annotations: HashMap::new(),
        groups: Default::default(),
        creating: true,
    }
}

fn listed(record: Record, status: String) -> Listed {
    let pid = if status == ContainerState::Stopped.to_string() { 0 } else { record.pid };
    Listed {
        oci_version: VERSION,
        id: record.id,
        pid,
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created_unix_ms: record.created_unix_ms,
        owner: record.owner,
        annotations: record.annotations,
    }
}

/// The state as the specification has it, for hooks.
pub(super) fn specified(record: &Record, status: ContainerState) -> State {
    let mut state = State::default();
    state.set_version(VERSION.to_owned());
    state.set_id(record.id.clone());
    state.set_status(status);
    let pid = if status == ContainerState::Stopped { None } else { i32::try_from(record.pid).ok() };
    state.set_pid(pid);
    state.set_bundle(record.bundle.clone());
    state.set_annotations(Some(record.annotations.clone()));
    state
}

/// A signal to the first process, or to all.
pub fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<(), OciError> {
    let files = Files::open(root, id)?;
    let record = files.whole("kill")?;
    if all {
        return record.groups.pids()?.into_iter().try_for_each(|pid| signal_one(pid, signal));
    }
    let status = files.status(&record);
    if !matches!(status, ContainerState::Created | ContainerState::Running) {
        return Err(OciError::Status { what: "kill", id: id.to_owned(), status: status.to_string() });
    }
    signal_one(record.pid, signal)
}

/// Who has ended meanwhile needs no signal.
fn signal_one(pid: u32, signal: i32) -> Result<(), OciError> {
    let what = || format!("send signal {signal} to process {pid}");
    let Ok(pid) = i32::try_from(pid) else { return Ok(()) };
    // SAFETY: a plain call.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(OciError::kernel(what())(error)) }
}

/// Everything that is kept of a container that has ended; with `force`, of any.
pub fn delete(root: &Path, id: &str, force: bool, warn: &mut dyn FnMut(OciError)) -> Result<(), OciError> {
    let files = match Files::open(root, id) {
        Err(OciError::Unknown(_)) if force => return Ok(()),
        other => other?,
    };
    let Some(record) = files.record()? else {
        let status = ContainerState::Creating.to_string();
        let refused = OciError::Status { what: "delete", id: id.to_owned(), status };
        return if force { files.remove() } else { Err(refused) };
    };
    let status = files.status(&record);
    if status != ContainerState::Stopped && !force {
        return Err(OciError::Status { what: "delete", id: id.to_owned(), status: status.to_string() });
    }
    if status != ContainerState::Stopped {
        end(&record)?;
    }
    let spec = files.config().ok();
    clear(&files, &record, spec.as_ref(), warn)
}

/// Kills the first process and waits until it has ended.
fn end(record: &Record) -> Result<(), OciError> {
    let Some(pidfd) = pidfd(record)? else { return Ok(()) };
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        other => other.map_err(|error| OciError::kernel("kill the container's first process")(error.into()))?,
    }
    if record.groups.is_frozen() {
        record.groups.freeze(false)?;
    }
    let mut look = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    while poll(&mut look, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
    Ok(())
}

/// Of the record's process and no other; `None` when it has ended.
pub(super) fn pidfd(record: &Record) -> Result<Option<OwnedFd>, OciError> {
    let Some(pid) = i32::try_from(record.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let opened = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        other => other.map_err(|error| OciError::kernel("open the container's first process")(error.into()))?,
    };
    // Looked at after it was opened: the number cannot have become somebody else's in between.
    Ok(state::is_alive(record).then_some(opened))
}

/// Ends what is left of a container whose first process has ended, and removes all that was made for it.
pub(super) fn clear(
    files: &Files,
    record: &Record,
    spec: Option<&Spec>,
    warn: &mut dyn FnMut(OciError),
) -> Result<(), OciError> {
    // Without a PID namespace of their own its processes outlive the first one.
    const ROUNDS: u32 = 1000;
    let rounds = if record.groups.remove_if_empty() { 0 } else { ROUNDS };
    for _ in 0..rounds {
        let left = record.groups.pids()?;
        if left.is_empty() {
            break;
        }
        left.into_iter().try_for_each(|pid| signal_one(pid, libc::SIGKILL))?;
        std::thread::yield_now();
    }
    record.groups.remove()?;
    files.remove()?;
    let hooks = spec.and_then(|spec| spec.hooks().as_ref()).and_then(|hooks| hooks.poststop().as_ref());
    for hook in hooks.into_iter().flatten() {
        let state = specified(record, ContainerState::Stopped);
        if let Err(error) = hooks::run("poststop", Some(&vec![hook.clone()]), &state) {
            warn(error);
        }
    }
    Ok(())
}

/// Every process of a container, as the host numbers them.
pub fn processes(root: &Path, id: &str) -> Result<Vec<u32>, OciError> {
    Files::open(root, id)?.whole("look into")?.groups.pids()
}

/// Stops everything in it.
pub fn pause(root: &Path, id: &str) -> Result<(), OciError> {
    freeze(root, id, "pause", true)
}

/// Lets everything in it go on.
pub fn resume(root: &Path, id: &str) -> Result<(), OciError> {
    freeze(root, id, "resume", false)
}

fn freeze(root: &Path, id: &str, what: &'static str, frozen: bool) -> Result<(), OciError> {
    let files = Files::open(root, id)?;
    let record = files.whole(what)?;
    let status = files.status(&record);
    let is = record.groups.is_frozen();
    if status != ContainerState::Running || is == frozen {
        let status = if is { "paused".to_owned() } else { status.to_string() };
        return Err(OciError::Status { what, id: id.to_owned(), status });
    }
    record.groups.freeze(frozen)
}

/// Other limits for a container that exists.
pub fn update(root: &Path, id: &str, resources: &LinuxResources) -> Result<(), OciError> {
    let record = Files::open(root, id)?.whole("update")?;
    let writes = match record.groups.one_tree {
        true => resources::one_tree(resources)?,
        false => resources::many_trees(resources)?,
    };
    record.groups.write(&writes)
}
