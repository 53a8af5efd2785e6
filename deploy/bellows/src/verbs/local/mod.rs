//! `bellows local`: several hosts on this machine. What is done is in the crate `bellows-local`; here are the words for it.

mod faults;
mod processes;
mod status;
mod up;
mod wishes;

use std::path::PathBuf;

use bellows_local::names::NameError;
use bellows_local::{Cluster, ClusterName, Error};
use clap::{Args, Subcommand};

use crate::dev::need_root;
use crate::failure::{Failure, Kind, chain};
use crate::globals::Globals;

const AFTER: &str = "\
Each host is a network namespace with an address of its own and a cgroup subtree of its own size, in which the real controller and \
real agents run as separate processes: pull the plug, cut a cable, and see what the cluster makes of it. Needs root, and `nft` for \
cuts and losses. Ends with nothing left behind, whatever happened before.

Examples:
  bellows local up --agents 5                        a controller (m1) and five agents (n1 to n5)
  bellows local up --host big:cpu=4,memory=8GiB,zone=a --host small:cpu=500m,memory=256MiB,zone=b
  bellows local status
  bellows local cut n1 m1                            n1 and the controller do not hear each other
  bellows local slow n2 --rate 1mbit --loss 5%
  bellows local heal
  bellows local kill n3 -9; bellows local restart n3
  bellows local exec n1 -- wget -qO- http://10.96.0.1:8080/
  bellows local down";

/// Several hosts on this machine: a real cluster to play with, and to hurt
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which local cluster; several can be there at the same time
    #[arg(long, global = true, value_name = "NAME", default_value = "local", value_parser = cluster_name)]
    name: ClusterName,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Up(up::Arguments),
    Down(processes::Down),
    Status(status::Arguments),
    Exec(processes::Exec),
    Cut(faults::Cut),
    Heal(faults::Heal),
    Slow(faults::Slow),
    Kill(processes::Kill),
    Restart(processes::Restart),
}

fn cluster_name(text: &str) -> Result<ClusterName, NameError> {
    text.parse()
}

/// Does it.
pub fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    need_root("`bellows local`")?;
    let name = arguments.name;
    match arguments.verb {
        Verb::Up(arguments) => up::run(arguments, name, globals),
        Verb::Down(_) => processes::down(&name, globals),
        Verb::Status(_) => status::run(&open(&name)?, globals),
        Verb::Exec(arguments) => processes::exec(arguments, &open(&name)?),
        Verb::Cut(arguments) => faults::cut(arguments, &open(&name)?, globals),
        Verb::Heal(arguments) => faults::heal(arguments, &open(&name)?, globals),
        Verb::Slow(arguments) => faults::slow(arguments, &open(&name)?, globals),
        Verb::Kill(arguments) => processes::kill(arguments, &open(&name)?, globals),
        Verb::Restart(arguments) => processes::restart(arguments, &open(&name)?, globals),
    }
}

fn open(name: &ClusterName) -> Result<Cluster, Failure> {
    Cluster::open(name, &program()?).map_err(failure)
}

/// Hosts run this executable.
fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find this executable's own path: {error}")))
}

/// As a sentence with what mends it.
fn failure(error: Error) -> Failure {
    let kind = match &error {
        Error::Unknown { .. } | Error::Host(_) => Kind::NotFound,
        Error::Itself(_) => Kind::Usage,
        _ => Kind::Failed,
    };
    let failure = Failure::new(kind, chain(&error));
    match error {
        Error::Taken(name) => {
            failure.mend(format!("end it with `bellows local down --name {name}`, or choose another --name"))
        }
        Error::Unknown { all, .. } if all.is_empty() => failure.mend("`bellows local up` makes one"),
        Error::Unknown { .. } => failure.mend("name it with --name, or make it with `bellows local up`"),
        Error::Host(_) => failure.mend("`bellows local status` lists the hosts"),
        Error::NoNft => failure.mend("install the package nftables; cuts and losses are made with it"),
        Error::State(error) if error.is_absence() => {
            failure.mend("only its remains are there; `bellows local down` ends them")
        }
        Error::Remain { .. } => failure.mend("`bellows local kill HOST -9` does not ask them"),
        _ => failure,
    }
}
