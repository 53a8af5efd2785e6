//! What the kernel shows of a cluster's copies, whatever the controller says: every container's init and its program, the launchers,
//! and processes that ended and that nobody has collected.

use std::fs;
use std::path::Path;

use super::cli::text;

/// A process, for good: its number alone may be another's a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks after boot.
    pub started: u64,
}

/// The program of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub app: String,
    pub replica: String,
    pub process: Process,
    /// The container's first process.
    pub init: u32,
}

/// Everything of one cluster.
#[derive(Debug, Default)]
pub struct Copies {
    pub programs: Vec<Program>,
    pub inits: Vec<Process>,
    pub launchers: Vec<Process>,
    /// Ended, and not yet collected by the parts of the cluster that they belong to.
    pub zombies: Vec<Process>,
}

impl Copies {
    /// Of all containers in cgroups whose names hold `tag`, and the zombies of these parents.
    pub fn of(tag: &str, parents: &[u32]) -> Self {
        let mut copies = Self::default();
        let own = Status::read(Path::new("/proc/self")).map_or(1, |status| status.numbers.len());
        for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
            let folder = entry.path();
            let belongs = || fs::read_to_string(folder.join("cgroup")).is_ok_and(|text| text.contains(tag));
            let Some(status) = Status::read(&folder) else { continue };
            // A zombie has left its cgroups.
            if status.zombie && parents.contains(&status.parent) || !status.zombie && belongs() {
                copies.take(&folder, &status, own);
            }
        }
        copies
    }

    fn take(&mut self, folder: &Path, status: &Status, own: usize) {
        let process = Process { pid: status.numbers[0], started: status.started };
        // Inside its container a process has one number more than here: 1 is the init, 2 the program.
        let inside = status.numbers.get(own).copied();
        match inside {
            _ if status.zombie => self.zombies.push(process),
            Some(1) => self.inits.push(process),
            Some(2) => self.programs.extend(program(folder, process, status.parent)),
            Some(_) => {}
            None => self.launchers.push(process),
        }
    }

    /// Of one app.
    pub fn programs_of<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Program> {
        self.programs.iter().filter(move |program| program.app == app)
    }
}

/// Its environment says whose it is; nothing when it has not executed yet, or is gone.
fn program(folder: &Path, process: Process, init: u32) -> Option<Program> {
    let environment = text(&fs::read(folder.join("environ")).ok()?);
    let value = |name: &str| Some(environment.split('\0').find_map(|entry| entry.strip_prefix(name))?.to_owned());
    Some(Program { app: value("BELLOWS_APP=")?, replica: value("BELLOWS_REPLICA=")?, process, init })
}

/// Is this very process still there, and not as a zombie?
pub fn lives(process: Process) -> bool {
    let status = Status::read(&Path::new("/proc").join(process.pid.to_string()));
    status.is_some_and(|status| status.started == process.started && !status.zombie)
}

/// Does the process do something of its own at this signal?
pub fn catches(process: Process, signal: nix::sys::signal::Signal) -> bool {
    // What has ended catches nothing.
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    caught.is_some_and(|caught| caught >> (signal as u32 - 1) & 1 == 1)
}

/// Ends it as the out-of-memory killer does, unless its number is another's by now.
pub fn kill_nine(process: Process) {
    if lives(process) {
        signal(process, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Sends a signal; who is gone does not need it.
pub fn signal(process: Process, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(process.pid.try_into().expect("process ids are small"));
    match nix::sys::signal::kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("signalling {process:?}: {error}"),
    }
}

struct Status {
    parent: u32,
    zombie: bool,
    started: u64,
    /// Its numbers, from the outermost namespace that is seen from here to its own.
    numbers: Vec<u32>,
}

impl Status {
    /// Nothing for what is no process, or has gone meanwhile.
    fn read(folder: &Path) -> Option<Self> {
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let numbers: Vec<u32> = line("NSpid:")?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name, in parentheses, may hold anything; the start is the 22nd field, the state the 3rd.
        let (_, fields) = stat.rsplit_once(')')?;
        let started = fields.split_whitespace().nth(19)?.parse().ok()?;
        let zombie = line("State:")?.trim_start().starts_with(['Z', 'X']);
        (!numbers.is_empty()).then_some(Self { parent: line("PPid:")?.trim().parse().ok()?, zombie, started, numbers })
    }
}
