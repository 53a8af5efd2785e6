//! `bellows dev`: a whole cluster on one machine, in one process: a controller and agents, each agent with its own folder, cgroup,
//! addresses and id range, all with one image store. No setting is needed, and Ctrl-C leaves nothing but the folder.
//!
//! Reading order: [`run`], `requirements` (what the machine must offer), `plan` (who gets what), `cluster` (what is started, in which order
//! it is stopped), `leftovers` (what an earlier start left), `demo`, `announce`.
//!
//! What runs survives `kill -9` of this process; the next start with the same folder adopts it.

mod agents;
mod announce;
mod cluster;
pub mod demo;
mod leftovers;
mod lock;
mod plan;
pub mod requests;
mod requirements;
mod signals;

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bellows_runtime::Runtime;
use bellows_runtime::handle::Ipv4Subnet;
use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::units;
use cluster::{Cluster, Wishes};
use lock::Lock;
use plan::Folders;
use signals::Signals;

pub use requirements::{capacity, kernel as need_kernel, root as need_root};

/// Where verbs look for a credential when nobody names one.
const DEFAULT_STATE: &str = "/var/lib/bellows/dev";

/// A whole cluster on this machine: controller and agents, no setting needed
///
/// Needs root. Prints where its page is and what to try. Ctrl-C stops everything and leaves nothing but the state folder: started
/// again with the same folder, declared apps return.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo bellows dev                       three nodes, and commands to try
  sudo bellows dev --demo                and an app that grows under load
  sudo bellows dev --nodes 5 --cpu 500m --memory 256Mi

With --output json, the first line on stdout says that all is up:
  {\"ready\", \"pid\", \"state\", \"credential\", \"controller\", \"dashboard\", \"nodes\": [], \"demo\"?, \"commands\": [{\"command\", \"does\"}]}")]
pub struct Arguments {
    /// How many nodes: each an agent with its own share of this machine
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(plan::MOST_NODES)), value_name = "N")]
    nodes: u32,
    /// Also run the demo: an app made of this executable that can be told to burn CPU, hold memory, hang, crash
    #[arg(long)]
    demo: bool,
    /// Folder for everything that is kept
    #[arg(long, default_value = DEFAULT_STATE, value_name = "DIR")]
    state: PathBuf,
    /// CPU of each node [default: all of the machine's, lent to every node]
    #[arg(long, value_parser = units::cpu_milli, value_name = "CPU")]
    cpu: Option<u64>,
    /// Memory of each node [default: 80% of the machine's, divided by the nodes]
    #[arg(long, value_parser = units::bytes, value_name = "SIZE")]
    memory: Option<u64>,
    /// Where verbs and agents are answered; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7400", value_parser = units::listening, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the web page and /metrics are; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7480", value_parser = units::listening, value_name = "ADDRESS")]
    dashboard: SocketAddr,
    /// Addresses of replicas, a /16 of which each node gets a /20; another one for each `dev` on a machine
    #[arg(long, default_value = "10.97.0.0/16", value_parser = plan::range, value_name = "SUBNET")]
    range: Ipv4Subnet,
}

/// Runs until Ctrl-C.
pub fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    need_root("`bellows dev`")?;
    requirements::kernel(&Runtime::check(&arguments.state))?;
    let folders = folders(&arguments.state)?;
    let _lock = Lock::take(&folders.lock()).map_err(|error| taken(&error))?;
    let wishes = wishes(&arguments, folders)?;
    crate::execution::server(serve(wishes, globals))
}

fn wishes(arguments: &Arguments, folders: Folders) -> Result<Wishes, Failure> {
    let capacity = requirements::capacity(arguments.nodes, arguments.cpu, arguments.memory)?;
    let nodes = (1..=arguments.nodes).map(|number| plan::node(&folders, number, capacity, arguments.range)).collect();
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("finding this program's own file: {error}")))?;
    let Arguments { demo, listen, dashboard, .. } = *arguments;
    let export = arguments.state != Path::new(DEFAULT_STATE);
    Ok(Wishes { folders, nodes, program, demo, listen, dashboard, export })
}

/// Starts, tells, waits, stops. What was started before a failure is stopped as well.
async fn serve(wishes: Wishes, globals: &Globals) -> Result<(), Failure> {
    crate::logging::begin_quietly();
    let mut signals = Signals::install()?;
    let mut cluster = Cluster::default();
    let started = tokio::select! {
        started = cluster.start(&wishes, globals) => started.map(Some),
        () = signals.next() => Ok(None),
    };
    let served = match started {
        Ok(Some(ready)) => announced(&mut cluster, &mut signals, announce::print(&ready, globals, wishes.export)).await,
        Ok(None) => Ok(()),
        Err(failure) => Err(failure),
    };
    let stopped = tokio::select! {
        stopped = cluster.stop(&wishes) => stopped,
        () = signals.next() => Err(impatient(&wishes.folders)),
    };
    served.and(stopped)
}

/// From the moment in which all is up and told.
async fn announced(cluster: &mut Cluster, signals: &mut Signals, told: Result<(), Failure>) -> Result<(), Failure> {
    told?;
    tokio::select! {
        () = signals.next() => Ok(()),
        why = cluster.stuck() => Err(Failure::failed(format!("a part of the cluster cannot go on: {why}"))),
    }
}

fn impatient(folders: &Folders) -> Failure {
    Failure::failed("told to end while still stopping: replicas, cgroups or links may be left")
        .mend(format!("start again with --state {} and end with one Ctrl-C: that cleans up", folders.root.display()))
}

fn taken(error: &lock::Error) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        lock::Error::Taken { .. } => failure.mend("stop that one with Ctrl-C, or choose another folder with --state"),
        lock::Error::Io { .. } => failure.mend("choose a folder that root can write, with --state"),
    }
}

/// Makes the folder, for root alone.
fn folders(state: &Path) -> Result<Folders, Failure> {
    let unusable = |error: std::io::Error| {
        Failure::failed(format!("the folder {} cannot be made: {error}", state.display()))
            .mend("choose another with --state")
    };
    let root = std::path::absolute(state).map_err(unusable)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(unusable)?;
    let root = root.canonicalize().map_err(unusable)?;
    Ok(Folders { root })
}
