//! `bellows local up`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellows_local::cluster;
use bellows_local::plan::{Plan, RangeError};
use bellows_local::{Cluster, ClusterName, Error, Range, Role};
use bellows_runtime::Runtime;
use clap::Args;
use serde_json::json;

use super::{failure, program, wishes};
use crate::connection::Connection;
use crate::dev::{need_kernel, requests};
use crate::failure::{Failure, chain};
use crate::globals::Globals;
use crate::output::{self, Table};
use crate::signals::Ends;
use crate::{execution, logging, units};

const AFTER: &str = "\
Waits until every node is up. What was made before a failure, or before Ctrl-C, is removed again. The cluster runs on in the background \
until `bellows local down`.

Examples:
  bellows local up
  bellows local up --agents 5 --cpu 500m --memory 512MiB
  bellows local up --name other --host big:cpu=4,memory=8GiB,zone=a --host small:cpu=1,memory=512MiB,zone=b

JSON: {name, range, controller, dashboard, credential, took_ms, hosts: [{host, role, address, cpu_milli, memory_bytes, labels}]}";

/// How long nodes that have joined may take until the leader hears of them: a heartbeat.
const PATIENCE: Duration = Duration::from_secs(60);

/// Make a local cluster: one controller, several agents, each on a host of its own
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// How many agents, called n1, n2, ... [default: 3, or none beside --host]
    #[arg(long, value_name = "N")]
    agents: Option<u32>,

    /// An agent's host with its size and labels; may be given several times
    #[arg(long = "host", value_name = "NAME[:cpu=CPU,memory=SIZE,LABEL=VALUE]", value_parser = wishes::host)]
    hosts: Vec<wishes::Asked>,

    /// CPU of each host that says nothing else [default: all of the machine's, lent to every host]
    #[arg(long, value_name = "CPU", value_parser = units::cpu_milli)]
    cpu: Option<u64>,

    /// Memory of each host that says nothing else [default: 80% of the machine's, divided by the hosts]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    memory: Option<u64>,

    /// Addresses of the hosts, a /24 [default: the first free one of 10.98.0.0/16]
    #[arg(long, value_name = "SUBNET", value_parser = range)]
    range: Option<Range>,
}

fn range(text: &str) -> Result<Range, RangeError> {
    text.parse()
}

/// Makes it, or leaves nothing.
pub fn run(arguments: Arguments, name: ClusterName, globals: &Globals) -> Result<(), Failure> {
    need_kernel(&Runtime::check(&name.folder()))?;
    cluster::need_nft().map_err(failure)?;
    let hosts = wishes::all(arguments.agents, arguments.hosts, arguments.cpu, arguments.memory)?;
    // Which addresses it will be is known when they are taken.
    let range = arguments.range.or_else(|| Range::candidates().next()).expect("there are candidates");
    let plan = Plan::new(name, range, &hosts).map_err(|error| Failure::usage(error.to_string()))?;
    if cluster::exists(&plan.name) {
        return Err(failure(Error::Taken(plan.name)));
    }
    execution::client(make(plan, arguments.range, program()?, globals))
}

async fn make(plan: Plan, range: Option<Range>, program: PathBuf, globals: &Globals) -> Result<(), Failure> {
    logging::begin_quietly();
    let began = Instant::now();
    let name = plan.name.clone();
    let mut ends = Ends::catch()?;
    let (cluster, page) = match serving(plan, range, program, &mut ends).await {
        Ok(served) => served,
        // Somebody else was faster: what there is of this name is theirs.
        Err(error @ Error::Taken(_)) => return Err(failure(error)),
        Err(error) => return Err(undone(failure(error), &name).await),
    };
    let up = tokio::select! {
        up = nodes_up(&cluster, globals) => up,
        () = ends.told() => Err(failure(Error::Interrupted)),
    };
    match up {
        Ok(()) => tell(&cluster, &page, began.elapsed(), globals),
        Err(why) => Err(undone(why, &name).await),
    }
}

/// Hosts with servers on them that have said that they serve. What was made stays, also on failure.
async fn serving(
    plan: Plan,
    range: Option<Range>,
    program: PathBuf,
    ends: &mut Ends,
) -> Result<(Cluster, String), Error> {
    let name = plan.name.clone();
    let go_on = Arc::new(AtomicBool::new(true));
    let mut making = tokio::task::spawn_blocking({
        let go_on = go_on.clone();
        move || servers(plan, range, &program, &go_on)
    });
    tokio::select! {
        made = &mut making => unless_panicked(made),
        () = ends.told() => {
            go_on.store(false, Ordering::Relaxed);
            // What it waits for ends, so that it does. That it fails now is of our making; whoever undoes it all sees what is left.
            let _ = end(&name).await;
            let _ = unless_panicked(making.await);
            Err(Error::Interrupted)
        }
    }
}

/// A panic of a blocking thread goes on in the one that waits for it.
fn unless_panicked<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Blocks.
fn servers(plan: Plan, range: Option<Range>, program: &Path, go_on: &AtomicBool) -> Result<(Cluster, String), Error> {
    let cluster = Cluster::make(plan, range, program, &|| go_on.load(Ordering::Relaxed))?;
    let greeting = cluster.start_members()?;
    cluster.start_agents()?;
    Ok((cluster, greeting.dashboard))
}

async fn nodes_up(cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let globals = Globals { credential: Some(cluster.credential()), ..globals.clone() };
    let names: Vec<String> = cluster.plan.of(Role::Agent).map(|host| host.name.to_string()).collect();
    let mut connection = Connection::open(&globals)?;
    match tokio::time::timeout(PATIENCE, requests::nodes_up(&mut connection, &names)).await {
        Ok(up) => up,
        Err(_) => Err(Failure::failed(format!("not all nodes are up after {} s", PATIENCE.as_secs()))),
    }
}

async fn end(name: &ClusterName) -> Result<(), Error> {
    let name = name.clone();
    match unless_panicked(tokio::task::spawn_blocking(move || cluster::end(&name)).await) {
        Err(Error::Unknown { .. }) => Ok(()),
        ended => ended,
    }
}

async fn undone(why: Failure, name: &ClusterName) -> Failure {
    match end(name).await {
        Ok(()) => why,
        Err(error) => {
            why.mend(format!("something is left of it ({}); `bellows local down` tries again", chain(&error)))
        }
    }
}

fn tell(cluster: &Cluster, page: &str, took: Duration, globals: &Globals) -> Result<(), Failure> {
    if globals.json() { output::json(&document(cluster, page, took)) } else { text(cluster, page, took) }
}

fn document(cluster: &Cluster, page: &str, took: Duration) -> serde_json::Value {
    let plan = &cluster.plan;
    let host = |host: &bellows_local::Host| {
        json!({
            "host": host.name, "role": host.role, "address": host.address, "labels": host.labels,
            "cpu_milli": host.size.map(|size| size.cpu_milli),
            "memory_bytes": host.size.map(|size| size.memory_bytes),
        })
    };
    json!({
        "name": plan.name,
        "range": plan.range,
        "controller": bellows_local::servers::controller(plan),
        "dashboard": page,
        "credential": cluster.credential(),
        "took_ms": took.as_millis() as u64,
        "hosts": plan.hosts.iter().map(host).collect::<Vec<_>>(),
    })
}

fn text(cluster: &Cluster, page: &str, took: Duration) -> Result<(), Failure> {
    let plan = &cluster.plan;
    let seconds = took.as_millis();
    output::line(&format!("Local cluster {} is up after {}.{:03} s.\n", plan.name, seconds / 1000, seconds % 1000))?;
    let mut table = Table::new(&["HOST", "ADDRESS", "RUNS", ">CPU", ">MEMORY", "LABELS"]);
    for host in &plan.hosts {
        let labels: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let size = host.size.map(|size| (units::show_cpu(size.cpu_milli), units::show_bytes(size.memory_bytes)));
        let (cpu, memory) = size.unwrap_or_default();
        let runs = host.role.verb().to_owned();
        table.row(vec![host.name.to_string(), host.address.to_string(), runs, cpu, memory, labels.join(" ")]);
    }
    table.print("")?;
    let option = if plan.name.to_string() == "local" { String::new() } else { format!(" --name {}", plan.name) };
    let agent = plan.of(Role::Agent).next().map_or("n1", |host| host.name.as_str());
    output::line(&format!("\npage {page}\n\nTo use it:\n"))?;
    output::line(&format!("  export BELLOWS_CREDENTIAL={}", cluster.credential().display()))?;
    output::line("  bellows nodes")?;
    output::line(&format!("  bellows local status{option}"))?;
    output::line(&format!("  bellows local cut{option} {agent} m1     and `heal`, `slow`, `kill`, `restart`"))?;
    output::line(&format!("  bellows local down{option}           ends all of it"))
}
