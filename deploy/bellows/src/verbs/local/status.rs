//! `bellows local status`.

use std::collections::BTreeMap;

use bellows_local::cluster::Seen;
use bellows_local::{Cluster, Role};
use bellows_proto::operator::ListNodesRequest;
use clap::Args;
use serde_json::json;

use super::failure;
use super::faults::show_rate;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views::Node;
use crate::output::{self, Table};
use crate::{execution, units};

/// Show the hosts: what runs, what is cut, what is slow
#[derive(Args, Debug)]
#[command(after_help = "\
Columns: PID is the controller's or the agent's, a dash when it does not run; PROCESSES counts all of the host, replicas too; NODE is what \
the controller says of it, a dash when it does not answer.

Examples:
  bellows local status
  bellows local status -o json | jq -r '.[] | select(.alive | not) | .host'

JSON: a list of {host, role, address, alive, pid, processes, cut: null | [] (from everybody) | [host], rate_bits, loss_permille, node: \
null | {liveness, state, replicas, load_permille}}")]
pub struct Arguments {}

/// Looks and shows.
pub fn run(cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let hosts = cluster.look().map_err(failure)?;
    let leads = hosts.iter().any(|seen| seen.host.role == Role::Member && seen.server.is_some());
    let nodes = if leads { execution::client(nodes(cluster, globals))? } else { BTreeMap::new() };
    if globals.json() {
        return output::json(&hosts.iter().map(|seen| document(seen, &nodes)).collect::<Vec<_>>());
    }
    table(&hosts, &nodes)
}

/// What the controller says; nothing, when it does not answer: what is known of the hosts is shown all the same.
async fn nodes(cluster: &Cluster, globals: &Globals) -> Result<BTreeMap<String, Node>, Failure> {
    let globals = Globals { credential: Some(cluster.credential()), ..globals.clone() };
    let mut connection = Connection::open(&globals)?;
    let asked = connection.ask(async |client| client.list_nodes(ListNodesRequest {}).await).await;
    let nodes = asked.map(|answer| answer.nodes).unwrap_or_default();
    Ok(nodes.into_iter().map(Node::from).map(|node| (node.node.clone(), node)).collect())
}

fn document(seen: &Seen, nodes: &BTreeMap<String, Node>) -> serde_json::Value {
    let node = nodes.get(seen.host.name.as_str()).map(|node| {
        json!({
            "liveness": node.liveness, "state": node.state,
            "replicas": node.replicas, "load_permille": node.load_permille,
        })
    });
    json!({
        "host": seen.host.name,
        "role": seen.host.role,
        "address": seen.host.address,
        "alive": seen.server.is_some(),
        "pid": seen.server,
        "processes": seen.processes,
        "cut": seen.cut,
        "rate_bits": seen.slow.rate_bits,
        "loss_permille": seen.slow.loss_permille,
        "node": node,
    })
}

fn table(hosts: &[Seen], nodes: &BTreeMap<String, Node>) -> Result<(), Failure> {
    let headings = ["HOST", "ADDRESS", "RUNS", ">PID", ">PROCESSES", "CUT FROM", ">RATE", ">LOSS", "NODE", ">LOAD"];
    let mut table = Table::new(&headings);
    for seen in hosts {
        let node = nodes.get(seen.host.name.as_str());
        table.row(vec![
            seen.host.name.to_string(),
            seen.host.address.to_string(),
            seen.host.role.verb().to_owned(),
            seen.server.map(|pid| pid.to_string()).unwrap_or_default(),
            seen.processes.to_string(),
            cut(seen),
            seen.slow.rate_bits.map(show_rate).unwrap_or_default(),
            seen.slow.loss_permille.map(|loss| units::show_permille(loss.into())).unwrap_or_default(),
            node.map(state).unwrap_or_default(),
            node.map(|node| units::show_permille(node.load_permille.into())).unwrap_or_default(),
        ]);
    }
    table.print("There are no hosts.")
}

fn cut(seen: &Seen) -> String {
    match seen.cut.as_deref() {
        None => String::new(),
        Some([]) => "everybody".to_owned(),
        Some(hosts) => hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

fn state(node: &Node) -> String {
    match node.liveness {
        "up" => node.state.clone(),
        other => format!("{}, {other}", node.state),
    }
}
