//! A cluster of separate processes, as on real servers: one `bellows controller`, several `bellows agent`, each of which can be killed
//! and started again with the same arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::census::{Census, tag};
use super::cli::{BELLOWS, Cli, field, text};
use super::copies::{Copies, kill_nine};
use super::dev::{first_line, next_range};
use super::events::Events;

/// Host ids of one agent: as many as its 4,094 addresses need, 65,537 each.
const UID_STEP: u32 = 1 << 28;

/// A process with its arguments.
#[derive(Debug)]
pub struct Part {
    name: String,
    arguments: Vec<OsString>,
    /// Where everything it complains of goes, over all its lives.
    log: PathBuf,
    child: Child,
}

impl Part {
    fn start(name: &str, arguments: Vec<OsString>, log: PathBuf) -> (Self, Value) {
        let mut part = Self { name: name.to_owned(), child: spawn(&arguments, &log), arguments, log };
        let line = part.await_line();
        (part, line)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As the out-of-memory killer does.
    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it is our child");
    }

    fn kill_if_it_runs(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }

    /// Again with the same arguments, when it was killed; says whether it was.
    pub fn restart(&mut self) -> bool {
        let Some(status) = self.child.try_wait().expect("it is our child") else { return false };
        assert_eq!(status.code(), None, "{} ended by itself: {}", self.name, self.complaints());
        self.child = spawn(&self.arguments, &self.log);
        true
    }

    /// Again, through a program that changes something around it and then becomes it.
    pub fn restart_through(&mut self, wrapper: &[&str]) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("writable");
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(BELLOWS).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        self.child = command.spawn().expect("the wrapper is there");
    }

    /// Another one with some of the same arguments.
    pub fn like(&self, name: &str, log: &Path, changed: &[(&str, &str)]) -> Self {
        let mut arguments = self.arguments.clone();
        for (flag, value) in changed {
            let at = arguments.iter().position(|argument| argument == flag).expect("it has this argument");
            arguments[at + 1] = value.into();
        }
        Self { name: name.to_owned(), child: spawn(&arguments, log), arguments, log: log.to_owned() }
    }

    /// Waits until it has ended by itself; its exit code, none for a signal.
    pub fn code(&mut self) -> Option<i32> {
        let status = self.child.wait().expect("it is our child");
        status.code()
    }

    /// It says one line when it serves.
    pub fn await_line(&mut self) -> Value {
        match first_line(&mut self.child) {
            Some(line) => line,
            None => panic!("{} said nothing: {}", self.name, self.complaints()),
        }
    }

    /// As a service manager does.
    pub fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.pid().try_into().expect("process ids are small"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        self.child.wait().expect("it is our child")
    }

    /// The last of what it wrote to stderr.
    pub fn complaints(&self) -> String {
        let all = text(&std::fs::read(&self.log).unwrap_or_default());
        let last: Vec<&str> = all.lines().rev().take(25).collect();
        last.into_iter().rev().map(|line| format!("\n  {}: {line}", self.name)).collect()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill_if_it_runs();
    }
}

fn spawn(arguments: &[OsString], log: &Path) -> Child {
    let log: File = OpenOptions::new().create(true).append(true).open(log).expect("writable");
    let mut command = Command::new(BELLOWS);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().expect("the executable was built")
}

/// What one process holds.
#[derive(Debug, Clone, Copy)]
pub struct Holds {
    /// Other than these.
    pub descriptors: usize,
    /// Logs and records of containers: of those that run, and those made ahead.
    pub files: usize,
    /// Network namespaces among them.
    pub networks: usize,
    /// Made ahead, or kept for the next copy; each costs descriptors.
    pub slots: usize,
}

/// The cluster.
#[derive(Debug)]
pub struct Parts {
    pub controller: Part,
    pub agents: Vec<Part>,
    /// Where each node takes requests.
    pub doors: Vec<SocketAddr>,
    pub cli: Cli,
    range: String,
    state: tempfile::TempDir,
}

impl Parts {
    /// Starts all; returns when every node is ready for copies.
    pub fn start(agents: u8) -> Self {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (mut controller, ready) = Part::start("controller", controller(state.path()), state.path().join("log"));
        // The next lives have the address of the first one: the agents know no other.
        let listen = field(&ready, "controller").trim_start_matches("https://").to_owned();
        let at = controller.arguments.iter().position(|argument| argument == "127.0.0.1:0").expect("it was given");
        controller.arguments[at] = listen.clone().into();
        let cli = Cli::new(Path::new(&field(&ready, "credential")));
        let range = next_range();
        let door = |number| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), free_port()));
        let doors: Vec<SocketAddr> = (1..=agents).map(door).collect();
        let start = |number| {
            let door = doors[usize::from(number) - 1];
            let (name, mut arguments) = agent(state.path(), number, &range, &listen, &field(&ready, "token"));
            arguments.extend(words(&["--ingress", &door.ip().to_string(), "--ingress-port", &door.port().to_string()]));
            arguments.extend(words(&["--links", &SocketAddr::new(door.ip(), free_port()).to_string()]));
            Part::start(&name, arguments, state.path().join(format!("log-{number}"))).0
        };
        let running = (1..=agents).map(start).collect();
        let parts = Self { controller, agents: running, doors, cli, range, state };
        parts.until_ready(agents.into());
        parts
    }

    /// An agent serves by itself, whoever has heard of it. Waits until the controller counts on so many, and on all that it knows of.
    pub fn until_ready(&self, nodes: usize) {
        Events::follow(&self.cli).until(&format!("{nodes} nodes are ready"), Duration::from_secs(60), |_| {
            let rows = self.cli.rows(&["nodes"]);
            (rows.len() == nodes && rows.iter().all(|node| node["ready"] == true)).then_some(())
        });
    }

    /// What the kernel shows of its containers.
    pub fn copies(&self) -> Copies {
        let parents: Vec<u32> = self.agents.iter().chain([&self.controller]).map(Part::pid).collect();
        Copies::of(&tag(self.state.path()), &parents)
    }

    /// What each process holds.
    pub fn holds(&self) -> BTreeMap<u32, Holds> {
        let cgroups = Census::of(self.state.path(), &self.range).cgroups;
        let count = |part: &Part| {
            let of_node = |cgroup: &&PathBuf| {
                cgroup.parent().is_some_and(|node| node.to_string_lossy().ends_with(&format!("-{}", part.name)))
            };
            let slots: BTreeSet<_> = cgroups.iter().filter(of_node).filter_map(|cgroup| cgroup.file_name()).collect();
            let folder = std::fs::read_dir(format!("/proc/{}/fd", part.pid())).into_iter().flatten().flatten();
            let open: Vec<PathBuf> = folder.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
            let networks: BTreeSet<_> = open.iter().filter(|to| to.to_string_lossy().starts_with("net:[")).collect();
            let files = open.iter().filter(|to| to.to_string_lossy().contains("/runtime/containers/")).count();
            let (descriptors, networks, slots) = (open.len() - files, networks.len(), slots.len());
            (part.pid(), Holds { descriptors, files, networks, slots })
        };
        self.agents.iter().chain([&self.controller]).map(count).collect()
    }

    /// A folder for whatever the test needs.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Part> {
        std::iter::once(&mut self.controller).chain(&mut self.agents)
    }

    /// What every process complained of last.
    pub fn complaints(&self) -> String {
        self.agents.iter().map(Part::complaints).chain([self.controller.complaints()]).collect()
    }

    /// Ends all in order, agents first; nothing may be left, neither processes nor cgroups nor links.
    pub fn end(mut self) {
        for part in self.agents.iter_mut().chain([&mut self.controller]) {
            let status = part.end();
            assert!(status.success(), "{} ended with {status}: {}", part.name, part.complaints());
        }
        // The kernel keeps a network for up to two minutes whose last connection is not answered any more.
        let left = Census::when_empty(self.state.path(), &self.range, Duration::from_secs(150));
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

impl Drop for Parts {
    /// Of a test that failed: what runs would run for ever.
    fn drop(&mut self) {
        self.all().for_each(Part::kill_if_it_runs);
        let copies = self.copies();
        copies.inits.into_iter().chain(copies.launchers).for_each(kill_nine);
        let cgroups = || Census::of(self.state.path(), &self.range).cgroups;
        let end = Instant::now() + Duration::from_secs(5);
        // A cgroup is busy until the kernel has buried its last process, and has its own below it.
        while cgroups().iter().rev().filter(|cgroup| std::fs::remove_dir(cgroup).is_err()).count() > 0
            && Instant::now() < end
        {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// A port of the nodes for this test alone.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn controller(state: &Path) -> Vec<OsString> {
    let mut arguments = words(&["controller", "--output", "json", "--listen", "127.0.0.1:0"]);
    arguments.extend(words(&["--dashboard", "127.0.0.1:0", "--state"]));
    arguments.extend([state.join("controller").into(), "--store".into(), state.join("images").into()]);
    arguments
}

fn agent(state: &Path, number: u8, range: &str, controller: &str, token: &str) -> (String, Vec<OsString>) {
    let name = format!("node-{number}");
    let (first, _) = range.rsplit_once(".0.0").expect("a /16");
    let mut arguments = words(&["agent", "--output", "json", "--name", &name, "--controller", controller]);
    arguments.extend(words(&["--token", token, "--cpu", "2", "--memory", "2Gi"]));
    arguments.extend(words(&["--subnet", &format!("{first}.{}.0/20", 16 * u32::from(number))]));
    arguments.extend(words(&["--uid-base", &(u32::from(number) * UID_STEP).to_string()]));
    arguments.extend(words(&["--cgroup", &format!("bellows-{}-{name}", tag(state))]));
    arguments.extend(["--state".into(), state.join(&name).into(), "--store".into(), state.join("images").into()]);
    (name, arguments)
}
