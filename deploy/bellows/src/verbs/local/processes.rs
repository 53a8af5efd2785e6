//! `bellows local exec`, `kill`, `restart` and `down`.

use std::ffi::OsString;

use bellows_local::processes::What;
use bellows_local::{Cluster, ClusterName, cluster, enter};
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use serde_json::json;

use super::failure;
use crate::failure::{Failure, Kind, chain};
use crate::globals::Globals;
use crate::output;

/// Run a program on a host: in its network and its cgroup
#[derive(Args, Debug)]
#[command(after_help = "\
The program sees this machine's files and processes, but the host's network and limits; its input, output and exit code are its own. \
Replicas are reached from their own host only, at the addresses that `bellows replicas` shows.

Examples:
  bellows local exec n1 -- wget -qO- http://10.96.0.1:8080/
  bellows local exec n1 -- ping -c 3 10.98.0.2
  bellows local exec n2 -- sh -c 'while :; do :; done'     burns n2's CPU")]
pub struct Exec {
    /// Which host
    host: String,

    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Becomes it.
pub fn exec(arguments: Exec, cluster: &Cluster) -> Result<(), Failure> {
    let plan = &cluster.plan;
    let host = plan.host(&arguments.host).map_err(|error| failure(error.into()))?;
    enter::enter(&plan.name, &host.name).map_err(|error| failure(error.into()))?;
    let error = enter::become_program(&arguments.program);
    let kind = match &error {
        enter::Error::Execute { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Failed,
    };
    Err(Failure::new(kind, chain(&error)))
}

/// Whom to kill.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Whom {
    /// The agent: replicas run on, and the next agent adopts them.
    Agent,
    /// The controller.
    Controller,
    /// The agent's launchers: it starts others.
    Launchers,
    /// Everything on the host, replicas too, as if the power had failed.
    All,
}

/// Kill processes of a host
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bellows local kill n1 -9                      everything on n1 is gone, as if the power had failed
  bellows local kill n1 -9 --what agent         its replicas run on; `bellows local restart n1` adopts them
  bellows local kill m1 -9; bellows local restart m1

JSON: {host, killed}")]
pub struct Kill {
    /// Which host
    host: String,

    /// Which of its processes
    #[arg(long, value_enum, default_value = "all")]
    what: Whom,

    /// With SIGKILL instead of SIGTERM
    #[arg(short = '9', long = "hard")]
    hard: bool,
}

/// Kills, and says how many.
pub fn kill(arguments: Kill, cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let what = match arguments.what {
        Whom::Agent => What::Agent,
        Whom::Controller => What::Controller,
        Whom::Launchers => What::Launchers,
        Whom::All => What::All,
    };
    let signal = if arguments.hard { Signal::KILL } else { Signal::TERM };
    let killed = cluster.kill(&arguments.host, what, signal).map_err(failure)?;
    match globals.json() {
        true => output::json(&json!({ "host": arguments.host, "killed": killed })),
        false => output::line(&format!("processes on {} that have ended: {killed}", arguments.host)),
    }
}

/// Start a host's controller or agent anew
#[derive(Args, Debug)]
#[command(after_help = "\
One that runs is told to end first. Replicas run on, and the new agent adopts them. Returns when it serves.

Examples:
  bellows local restart n1
  bellows local restart m1

JSON: {host, pid}")]
pub struct Restart {
    /// Which host
    host: String,
}

/// Restarts it.
pub fn restart(arguments: Restart, cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let host = arguments.host;
    let ended = || Failure::failed(format!("{host} began to serve and ended"));
    let pid = cluster.restart(&host).map_err(failure)?.ok_or_else(ended)?;
    match globals.json() {
        true => output::json(&json!({ "host": host, "pid": pid })),
        false => output::line(&format!("{host} serves again, as process {pid}")),
    }
}

/// End a local cluster: nothing of it is left
#[derive(Args, Debug)]
#[command(after_help = "\
Works from the name alone, also when what was kept of the cluster is lost, or the tool was killed while it made it. Its folder below \
/var/lib/bellows/local is removed as well, with what was declared and all logs.

Examples:
  bellows local down
  bellows local down --name other

JSON: {name}")]
pub struct Down {}

/// Ends it.
pub fn down(name: &ClusterName, globals: &Globals) -> Result<(), Failure> {
    cluster::end(name).map_err(failure)?;
    match globals.json() {
        true => output::json(&json!({ "name": name })),
        false => output::line(&format!("local cluster {name} is gone")),
    }
}
