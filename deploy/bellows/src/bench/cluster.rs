//! A `bellows dev` of the benchmark's own, as a process beside this one, ended with it.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::Failure;

/// Its addresses: nobody else's on this machine, and not those of a `dev` with defaults.
const RANGE: &str = "10.212.0.0/16";

/// What it says when all is up, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Ready {
    credential: PathBuf,
}

/// Stopped, and its folder removed, when dropped.
#[derive(Debug)]
pub struct OwnCluster {
    process: Child,
    /// Its folder.
    pub state: TempDir,
    /// What verbs need.
    pub credential: PathBuf,
}

impl OwnCluster {
    /// Its process number: controller and agents are one process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Starts one whose nodes have so much CPU to promise each, and waits until it is up.
    pub fn start(nodes: u32, cpu_milli: u64) -> Result<Self, Failure> {
        let failed =
            |what: &str, error: std::io::Error| Failure::failed(format!("{what} a cluster to measure: {error}"));
        let state = tempfile::Builder::new()
            .prefix("bellows-bench-")
            .tempdir()
            .map_err(|e| failed("making a folder for", e))?;
        let program = std::env::current_exe().map_err(|e| failed("finding this program for", e))?;
        let mut process = Command::new(program)
            .args([
                "dev",
                "--output",
                "json",
                "--listen",
                "127.0.0.1:0",
                "--dashboard",
                "127.0.0.1:0",
                "--range",
                RANGE,
            ])
            .args(["--nodes", &nodes.to_string(), "--cpu", &format!("{cpu_milli}m"), "--state"])
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed("starting", e))?;
        match credential(&mut process) {
            Some(credential) => Ok(Self { process, state, credential }),
            None => {
                let ended = process.wait().map_err(|e| failed("waiting for", e))?;
                Err(Failure::failed(format!(
                    "the cluster to measure did not come up: `bellows dev` ended with {ended}; it says why above"
                )))
            }
        }
    }
}

/// It prints one line when it is up, or ends.
fn credential(process: &mut Child) -> Option<PathBuf> {
    let mut line = String::new();
    std::io::BufReader::new(process.stdout.as_mut()?).read_line(&mut line).ok()?;
    serde_json::from_str::<Ready>(&line).ok().map(|ready| ready.credential)
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).map(Pid::from_raw);
        let told = pid.map(|pid| kill(pid, Signal::SIGINT));
        match self.process.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("warning: the measured cluster may have left something running: {told:?}, {other:?}"),
        }
    }
}
