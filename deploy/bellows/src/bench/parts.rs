//! A cluster of two processes, as on real servers: `bellows controller`, and one `bellows agent` that can be killed, upgraded and started again.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bellows_runtime::handle::Capacity;
use bellows_runtime::{Runtime, RuntimeConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::{Failure, chain};
use crate::globals::Globals;

/// Its addresses: nobody else's on this machine.
const RANGE: &str = "10.213.0.0/20";
/// The first of its host ids; with those of 4,096 addresses, 65,536 each.
const UID_BASE: u32 = 1 << 30;
/// Of the node.
const NAME: &str = "bench";
/// What the node has to promise.
const MEMORY_BYTES: u64 = 64 << 30;

/// What a controller says when it serves, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Ready {
    controller: String,
    credential: PathBuf,
    token: String,
}

/// Stopped, with everything that runs in it, when dropped.
#[derive(Debug)]
pub struct Parts {
    controller: Child,
    agent: Child,
    arguments: Vec<String>,
    /// What verbs need.
    pub credential: PathBuf,
    cpu_milli: u64,
    /// Everything of it.
    pub state: TempDir,
}

impl Parts {
    /// Starts both, with so much CPU to promise.
    pub fn start(cpu_milli: u64) -> Result<Self, Failure> {
        let state =
            tempfile::Builder::new().prefix("bellows-bench-").tempdir().map_err(failed("making a folder for"))?;
        let own = std::env::current_exe().map_err(failed("finding this program for"))?;
        fs::copy(own, program(state.path())).map_err(failed("copying this program for"))?;
        let mut controller = spawn(state.path(), &words(CONTROLLER), Stdio::piped())?;
        let Some(ready) = first_line(&mut controller).and_then(|line| serde_json::from_str::<Ready>(&line).ok()) else {
            return Err(Failure::failed(format!("a controller to measure did not come up; {}", said(state.path()))));
        };
        let mut arguments = words(AGENT);
        let address = ready.controller.trim_start_matches("https://").to_owned();
        let (cpu, memory) = (format!("{cpu_milli}m"), MEMORY_BYTES.to_string());
        for (flag, value) in
            [("--controller", &address), ("--token", &ready.token), ("--cpu", &cpu), ("--memory", &memory)]
        {
            arguments.extend([flag.to_owned(), value.clone()]);
        }
        arguments.extend(words(&format!("--name {NAME} --subnet {RANGE} --uid-base {UID_BASE} --cgroup {}", cgroup())));
        let mut agent = spawn(state.path(), &arguments, Stdio::piped())?;
        let up = first_line(&mut agent).is_some();
        let credential = state.path().join(ready.credential);
        let parts = Self { controller, agent, arguments, credential, cpu_milli, state };
        if up {
            Ok(parts)
        } else {
            Err(Failure::failed(format!("an agent to measure did not come up; {}", parts.said())))
        }
    }

    /// How verbs reach it.
    pub fn globals(&self, globals: &Globals) -> Globals {
        Globals { credential: Some(self.credential.clone()), ..globals.clone() }
    }

    /// The agent's process.
    pub fn agent(&self) -> u32 {
        self.agent.id()
    }

    /// As the out-of-memory killer does.
    pub fn kill_agent(&mut self) -> Result<(), Failure> {
        self.agent.kill().and_then(|()| self.agent.wait()).map(drop).map_err(failed("killing the agent of"))
    }

    /// As a service manager does, and the executable is another file afterwards.
    pub fn upgrade_agent(&mut self) -> Result<(), Failure> {
        told(&self.agent, Signal::SIGTERM);
        self.agent.wait().map_err(failed("stopping the agent of"))?;
        let (current, next) = (program(self.state.path()), self.state.path().join("next"));
        let replaced = (|| {
            fs::copy(&current, &next)?;
            OpenOptions::new().append(true).open(&next)?.write_all(b"\n")?;
            fs::rename(&next, &current)
        })();
        replaced.map_err(failed("upgrading the program of"))
    }

    /// Starts the next agent, and does not wait for it.
    pub fn start_agent(&mut self) -> Result<(), Failure> {
        self.agent = spawn(self.state.path(), &self.arguments, Stdio::null())?;
        Ok(())
    }

    /// Launchers of the agent that runs.
    pub fn launchers(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| parent(*pid) == Some(self.agent.id()) && is_launcher(*pid)).collect()
    }

    /// What its processes complained of.
    pub fn said(&self) -> String {
        said(self.state.path())
    }

    fn end_all(&self) -> Result<(), bellows_runtime::handle::Error> {
        let subnet = RANGE.parse().expect("a constant subnet");
        let state = self.state.path().join("agent/runtime");
        let mut config = RuntimeConfig::new(state, cgroup(), subnet, crate::execution::launcher());
        config.uid_base = UID_BASE;
        config.capacity = Some(Capacity { cpu_milli: self.cpu_milli, memory_bytes: MEMORY_BYTES });
        let runtime = Runtime::start(config)?;
        runtime.adopt()?;
        runtime.shutdown()
    }
}

impl Drop for Parts {
    /// Whatever state it is in: what the agent left, or did not let go of, is adopted here and ended.
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.controller] {
            told(child, Signal::SIGTERM);
            if let Err(error) = child.wait() {
                eprintln!("warning: a part of the measured cluster may run on: {error}");
            }
        }
        if let Err(error) = self.end_all() {
            eprintln!("warning: the measured cluster may have left something running: {}", chain(&error));
        }
    }
}

const CONTROLLER: &str =
    "controller --output json --listen 127.0.0.1:0 --dashboard 127.0.0.1:0 --state controller --store images";
const AGENT: &str = "agent --output json --state agent --store images";

fn cgroup() -> String {
    format!("bellows-bench-parts-{}", std::process::id())
}

/// Where its executable is.
fn program(state: &Path) -> PathBuf {
    state.join("bellows")
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn spawn(state: &Path, arguments: &[String], stdout: Stdio) -> Result<Child, Failure> {
    let log = OpenOptions::new().create(true).append(true).open(state.join("log")).map_err(failed("logging"))?;
    let mut command = Command::new(program(state));
    command.args(arguments).current_dir(state).stdin(Stdio::null()).stdout(stdout).stderr(log);
    command.spawn().map_err(failed("starting"))
}

/// It prints one line when it is up, or ends.
fn first_line(child: &mut Child) -> Option<String> {
    let mut line = String::new();
    io::BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    Some(line).filter(|line| !line.is_empty())
}

/// A process that has ended is told nothing.
fn told(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

fn said(state: &Path) -> String {
    let text = fs::read_to_string(state.join("log")).unwrap_or_default();
    let mut last: Vec<&str> = text.lines().rev().take(10).collect();
    last.reverse();
    format!("it said\n{}", last.join("\n"))
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_launcher(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(crate::LAUNCHER.as_bytes())
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::failed(format!("{what} a cluster to measure: {error}"))
}
