//! Hooks that run in the host's namespaces: programs with the container's state on standard input, one after the other, each with its bound.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};

use oci_spec::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::OciError;

/// What can be refused of a hook before anything is done.
pub fn check(phase: &str, hook: &Hook) -> Result<(), OciError> {
    let field = format!("hooks.{phase}");
    if !hook.path().is_absolute() {
        return Err(OciError::refused(field, format!("path {} must be absolute", hook.path().display())));
    }
    match hook.timeout() {
        Some(seconds) if seconds <= 0 => {
            Err(OciError::refused(field, format!("timeout {seconds} must be greater than 0")))
        }
        _ => Ok(()),
    }
}

/// Runs all of a phase; the first that fails is the last.
pub fn run(phase: &str, hooks: Option<&Vec<Hook>>, state: &State) -> Result<(), OciError> {
    let Some(hooks) = hooks else { return Ok(()) };
    let text = serde_json::to_vec(state).map_err(|error| failed(phase, "state", error.to_string()))?;
    hooks.iter().try_for_each(|hook| run_one(phase, hook, &text))
}

fn failed(phase: &str, hook: &str, reason: String) -> OciError {
    OciError::Hook { hook: format!("{phase} hook {hook}"), reason }
}

fn run_one(phase: &str, hook: &Hook, state: &[u8]) -> Result<(), OciError> {
    use std::os::unix::process::CommandExt;
    let name = hook.path().display().to_string();
    let wrong = |reason: String| failed(phase, &name, reason);
    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(first).args(rest);
    }
    let pairs = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(pairs).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|error| wrong(error.to_string()))?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| wrong(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(state) {
            // It need not read it.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(wrong(error.to_string())),
            _ => {}
        }
    }
    let limit = hook.timeout().map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
    let ended = poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], limit.as_ref());
    if !matches!(ended, Ok(1..)) {
        let killed = pidfd_send_signal(&pidfd, Signal::KILL);
        child.wait().map_err(|error| wrong(error.to_string()))?;
        killed.map_err(|error| wrong(error.to_string()))?;
        return Err(wrong(format!("it was ended after {} s, its timeout", hook.timeout().unwrap_or_default())));
    }
    let status: ExitStatus = child.wait().map_err(|error| wrong(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(wrong(status.to_string())) }
}
