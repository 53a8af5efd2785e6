//! Processes by their numbers: what they are, and how they are ended so that one knows it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process.
pub type Pid = u32;

/// The hidden verb of the runtime's launchers.
const LAUNCHER: &str = "runtime-launcher";

/// What is meant among the processes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `bellows agent`.
    Agent,
    /// `bellows controller`.
    Controller,
    /// The agent's launchers.
    Launchers,
    /// Everything, replicas too: as if the power had failed.
    All,
}

impl What {
    /// Is this process meant?
    fn means(self, pid: Pid) -> bool {
        let verb = match self {
            Self::All => return true,
            Self::Agent => "agent",
            Self::Controller => "controller",
            Self::Launchers => LAUNCHER,
        };
        command(pid).get(1).is_some_and(|word| word == verb)
    }

    /// Those of `pids` that are meant.
    pub fn among(self, pids: &BTreeSet<Pid>) -> BTreeSet<Pid> {
        pids.iter().copied().filter(|pid| self.means(*pid)).collect()
    }
}

/// The words of its command line; none when it has ended.
pub fn command(pid: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Sends them this signal; returns those that have not ended when `patience` has. A process that has ended already has done what was asked.
pub fn signal_and_wait(pids: &BTreeSet<Pid>, signal: Signal, patience: Duration) -> usize {
    let held: Vec<OwnedFd> = pids.iter().filter_map(|pid| hold(*pid)).collect();
    for process in &held {
        // Refused only to those that have ended since.
        let _ = pidfd_send_signal(process, signal);
    }
    wait(held, patience)
}

/// SIGKILL.
pub fn kill_and_wait(pids: &BTreeSet<Pid>, patience: Duration) -> usize {
    signal_and_wait(pids, Signal::KILL, patience)
}

fn hold(pid: Pid) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed())?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits until all have ended or patience has; how many are left?
fn wait(mut held: Vec<OwnedFd>, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    while let Some(first) = held.last() {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN)];
        let until = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut watched, Some(&until)) {
            Ok(0) => return held.len(),
            Ok(_) => drop(held.pop()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return held.len(),
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_by_its_words_and_ends_when_told() {
        let mut child = Command::new("sleep").args(["100000"]).spawn().expect("every machine has sleep");
        let pids = BTreeSet::from([child.id()]);
        assert_eq!(kill_and_wait(&pids, Duration::from_secs(30)), 0);
        child.wait().expect("it is our child");
        assert_eq!(command(child.id()), [""; 0]);
        assert_eq!(kill_and_wait(&pids, Duration::ZERO), 0, "who has ended is not waited for");
    }

    #[test]
    fn who_does_not_end_is_counted() {
        let mut child = Command::new("sleep").args(["100000"]).spawn().expect("every machine has sleep");
        let pids = BTreeSet::from([child.id()]);
        assert_eq!(signal_and_wait(&pids, Signal::CONT, Duration::from_millis(1)), 1);
        assert_eq!(What::Launchers.among(&pids), BTreeSet::new());
        child.kill().and_then(|()| child.wait()).expect("it is our child");
    }
}
