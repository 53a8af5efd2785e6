//! A cluster of the benchmark's own whose parts are processes, as on real servers: one controller and some agents, each of which can be killed, upgraded and
//! started again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bellows_local::cgroup;
use bellows_local::processes::{Pid as Number, What};
use bellows_runtime::handle::Capacity;
use bellows_runtime::{Runtime, RuntimeConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::rival::Rival;
use super::{cgroups, ground};
use crate::failure::{Failure, chain};

/// Its replicas' addresses, a /20 for each node: nobody else's on this machine.
const RANGE: &str = "10.214";

/// Host ids of one agent: as many as its 4,094 addresses need, 65,537 each.
const UID_STEP: u32 = 1 << 28;

/// What a cluster is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How many agents.
    pub nodes: u8,
    /// What each has to promise.
    pub cpu_milli: u64,
    /// Likewise.
    pub memory_mib: u64,
    /// What agents log, as `$BELLOWS_LOG` says it.
    pub log: &'static str,
    /// Shall copies be ended by the rule of others?
    pub rival: bool,
}

impl Wish {
    /// One that has room for so much, and says no more than it must.
    pub fn one_node(cpu_milli: u64) -> Self {
        Self { nodes: 1, cpu_milli, memory_mib: 64 << 10, log: "warn", rival: false }
    }
}

/// Who leads.
#[derive(Debug)]
pub enum Leader {
    Process(Part),
    Rival(Rival),
}

/// One process, with what it was started with.
#[derive(Debug)]
pub struct Part {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    logs: &'static str,
    cgroup: String,
    child: Child,
}

/// A cluster. Whatever is left of it ends when it is dropped.
#[derive(Debug)]
pub struct Parts {
    /// The controller.
    leader: Leader,
    /// The agents.
    pub agents: Vec<Part>,
    /// What verbs need.
    pub credential: PathBuf,
    /// Where each node takes requests.
    pub doors: Vec<SocketAddr>,
    wish: Wish,
    tag: String,
    /// Its folder.
    pub state: TempDir,
}

impl Parts {
    /// Starts all; returns when every agent serves.
    pub fn start(wish: Wish) -> Result<Self, Failure> {
        let state = ground::folder()?;
        let tag = format!("bellows-bench-{}", std::process::id());
        let (leader, ready) = Leader::start(wish, state.path(), &tag)?;
        let listen = field(&ready, "controller")?.trim_start_matches("https://").to_owned();
        let (token, port) = (field(&ready, "token")?, free_port()?);
        let doors = (1..=wish.nodes).map(|number| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), port)));
        let credential = PathBuf::from(field(&ready, "credential")?);
        let doors: Vec<SocketAddr> = doors.collect();
        let mut parts = Self { leader, agents: Vec::new(), credential, doors, wish, tag, state };
        for number in 1..=wish.nodes {
            let arguments = parts.arguments(number, [&listen, &token])?;
            let (part, _) = Part::start(&node(number), arguments, (parts.state.path(), &parts.tag), wish.log)?;
            parts.agents.push(part);
        }
        Ok(parts)
    }

    /// Kills the controller, as the out-of-memory killer does.
    pub fn kill_controller(&mut self) {
        if let Leader::Process(part) = &mut self.leader {
            part.kill();
        }
    }

    /// Starts it again; returns when it serves.
    pub fn restart_controller(&mut self) -> Result<(), Failure> {
        match &mut self.leader {
            Leader::Process(part) => part.restart(),
            Leader::Rival(_) => Ok(()),
        }
    }

    /// Launchers of all agents.
    pub fn launchers(&self) -> BTreeSet<Number> {
        let nodes = (1..=self.wish.nodes).map(|number| self.cgroup(number));
        let all = nodes.flat_map(|cgroup| cgroup::members(&cgroup)).collect();
        What::Launchers.among(&all)
    }

    /// What its agents complained of last.
    pub fn said(&self) -> String {
        self.agents.iter().map(Part::said).collect::<Vec<_>>().join("; ")
    }

    /// Ends all in order, when no replica is left.
    pub fn end(mut self) -> Result<(), Failure> {
        let agents = std::mem::take(&mut self.agents).iter_mut().map(Part::end).fold(Ok(()), Result::and);
        agents.and(match &mut self.leader {
            Leader::Process(part) => part.end(),
            Leader::Rival(rival) => rival.end(),
        })
    }

    fn arguments(&self, number: u8, [controller, token]: [&str; 2]) -> Result<Vec<OsString>, Failure> {
        let (state, name, door) = (self.state.path(), node(number), self.doors[usize::from(number) - 1]);
        let link = SocketAddr::new(door.ip(), free_port()?);
        let mut arguments = words(&["agent", "--output", "json", "--name", &name, "--controller", controller]);
        arguments.extend(words(&["--token", token, "--cpu", &format!("{}m", self.wish.cpu_milli)]));
        arguments.extend(words(&["--memory", &format!("{}MiB", self.wish.memory_mib)]));
        arguments.extend(words(&["--ingress", &door.ip().to_string(), "--ingress-port", &door.port().to_string()]));
        arguments.extend(words(&["--links", &link.to_string(), "--subnet", &subnet(number)]));
        arguments.extend(words(&["--uid-base", &uid_base(number).to_string(), "--cgroup", &self.cgroup(number)]));
        arguments.extend(["--state".into(), state.join(&name).into(), "--store".into(), state.join("images").into()]);
        Ok(arguments)
    }

    /// Where an agent has its replicas.
    fn cgroup(&self, number: u8) -> String {
        format!("{}-{}", self.tag, node(number))
    }

    /// What an agent left, or did not let go of, is adopted here and ended.
    fn end_what_runs(&self, number: u8) -> Result<(), bellows_runtime::handle::Error> {
        let state = self.state.path().join(node(number)).join("runtime");
        let subnet = subnet(number).parse().expect("a constant subnet");
        let mut config = RuntimeConfig::new(state, self.cgroup(number), subnet, crate::execution::launcher());
        config.uid_base = uid_base(number);
        let memory_bytes = self.wish.memory_mib << 20;
        config.capacity = Some(Capacity { cpu_milli: self.wish.cpu_milli, memory_bytes });
        let runtime = Runtime::start(config)?;
        runtime.adopt()?;
        runtime.shutdown()
    }
}

impl Leader {
    /// Starts one; and what it says when it serves.
    fn start(wish: Wish, state: &Path, tag: &str) -> Result<(Self, Value), Failure> {
        if wish.rival {
            return Rival::start(state).map(|(rival, ready)| (Self::Rival(rival), ready));
        }
        let (mut part, ready) = Part::start("controller", controller(state), (state, tag), "warn")?;
        let listen = field(&ready, "controller")?.trim_start_matches("https://").to_owned();
        // The next lives have the address of the first one: the agents know no other.
        for argument in part.arguments.iter_mut().filter(|argument| *argument == "127.0.0.1:0").take(1) {
            *argument = listen.clone().into();
        }
        Ok((Self::Process(part), ready))
    }
}

impl Drop for Parts {
    /// Whatever state it is in.
    fn drop(&mut self) {
        self.agents.iter_mut().for_each(Part::kill);
        self.kill_controller();
        for (number, _) in (1..).zip(&self.agents) {
            if let Err(error) = self.end_what_runs(number) {
                eprintln!("warning: {} of the measured cluster may run on: {}", node(number), chain(&error));
            }
        }
        let own = cgroup::with_prefix(&self.tag).into_iter().map(|rest| format!("{}{rest}", self.tag));
        for error in own.filter_map(|name| cgroup::end(&name).err()) {
            eprintln!("warning: {}", chain(&error));
        }
    }
}

impl Part {
    fn start(
        name: &str,
        arguments: Vec<OsString>,
        (state, tag): (&Path, &str),
        logs: &'static str,
    ) -> Result<(Self, Value), Failure> {
        let (log, cgroup) = (state.join(format!("{name}.log")), format!("{tag}/{name}"));
        cgroup::make(&cgroup).map_err(|error| Failure::from_error(&error))?;
        let program = std::env::current_exe().map_err(failed("finding this program for"))?;
        let child = spawn(&program, &arguments, &log, logs, &cgroup)?;
        let mut part = Self { name: name.to_owned(), program, arguments, log, logs, cgroup, child };
        let line = part.first_line()?;
        Ok((part, line))
    }

    /// The cgroup of this process alone, below the root of each hierarchy.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What it wrote to stderr, in all its lives.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// As the out-of-memory killer does. One that has ended already is as good.
    pub fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("warning: {} (process {}) cannot be ended", self.name, self.child.id());
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Again, with the same arguments; returns when it serves.
    pub fn restart(&mut self) -> Result<(), Failure> {
        self.kill();
        self.begin()?;
        self.first_line().map(drop)
    }

    /// Starts the next one, and does not wait for it.
    pub fn begin(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.program, &self.arguments, &self.log, self.logs, &self.cgroup)?;
        Ok(())
    }

    /// Stopped as a service manager does; the next one's executable is another file, in this folder.
    pub fn upgrade(&mut self, folder: &Path) -> Result<(), Failure> {
        self.end()?;
        let mut name = self.program.file_name().unwrap_or_default().to_owned();
        name.push("+");
        let next = folder.join(name);
        let copied = fs::copy(&self.program, &next).and_then(|_| OpenOptions::new().append(true).open(&next));
        copied.and_then(|mut file| file.write_all(b"\n")).map_err(failed("upgrading a part of"))?;
        self.program = next;
        Ok(())
    }

    /// As a service manager does.
    fn end(&mut self) -> Result<(), Failure> {
        let told = i32::try_from(self.child.id()).map(Pid::from_raw).map(|pid| kill(pid, Signal::SIGTERM));
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            other => Err(self.failed(&format!("ended with {other:?} ({told:?})"))),
        }
    }

    /// It says one line when it serves.
    fn first_line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        let read = self.child.stdout.as_mut().map(|out| BufReader::new(out).read_line(&mut line));
        let said = serde_json::from_str(&line).ok().filter(|_| matches!(read, Some(Ok(1..))));
        said.ok_or_else(|| self.failed("did not come up"))
    }

    /// What it complained of last.
    fn said(&self) -> String {
        let all = fs::read_to_string(&self.log).unwrap_or_default();
        let mut last: Vec<&str> = all.lines().rev().take(10).collect();
        last.reverse();
        format!("{} said {}", self.name, last.join("\n"))
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::failed(format!("the {} of the measured cluster {what}: {}", self.name, self.said()))
    }
}

fn spawn(program: &Path, arguments: &[OsString], log: &Path, logs: &str, cgroup: &str) -> Result<Child, Failure> {
    let log: File = OpenOptions::new().create(true).append(true).open(log).map_err(failed("logging"))?;
    let mut command = Command::new(program);
    command.args(arguments).env("BELLOWS_LOG", logs).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let child = command.spawn().map_err(failed("starting a part of"))?;
    cgroups::enter(cgroup, child.id())?;
    Ok(child)
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::failed(format!("{what} a cluster to measure: {error}"))
}

fn node(number: u8) -> String {
    format!("node-{number}")
}

fn subnet(number: u8) -> String {
    format!("{RANGE}.{}.0/20", 16 * u32::from(number))
}

fn uid_base(number: u8) -> u32 {
    u32::from(number) * UID_STEP
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

/// A port of this machine that nobody has at this moment.
pub fn free_port() -> Result<u16, Failure> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|error| Failure::failed(format!("finding a free port: {error}")))
}

fn field(said: &Value, name: &str) -> Result<String, Failure> {
    let value = said[name].as_str().map(str::to_owned);
    value.ok_or_else(|| Failure::failed(format!("a part of the measured cluster did not say its {name}: {said}")))
}
