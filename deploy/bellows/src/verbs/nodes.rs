//! `bellows nodes`.

use bellows_proto::operator::ListNodesRequest;
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views::Node;
use crate::output::{self, Table};
use crate::units;

const AFTER: &str = "\
Columns: STATE is active, cordoned or draining, then unheard or down; LOAD is use/capacity of the scarcer resource; CPU and MEMORY \
are used/capacity; DECLARED is what its copies declare.

Examples:
  bellows nodes
  bellows nodes -o json | jq -r '.[] | select(.ready) | .node'

JSON: a list of {id, node, ready, liveness: up|unknown|down, state: active|cordoned|draining, replicas, load_permille, load_age_ms, \
pressure_permille, capacity: {cpu_milli, memory_bytes}, used, declared, labels, version}";

/// List nodes: how loaded each server is
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {}

/// Lists them.
pub async fn run(_arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let answer = connection.ask(async |client| client.list_nodes(ListNodesRequest {}).await).await?;
    let nodes: Vec<Node> = answer.nodes.into_iter().map(Node::from).collect();
    if globals.json() { output::json(&nodes) } else { table(&nodes) }
}

fn table(nodes: &[Node]) -> Result<(), Failure> {
    let mut table = Table::new(&["NODE", "STATE", ">REPLICAS", ">LOAD", ">CPU", ">MEMORY", ">DECLARED", "LABELS"]);
    for node in nodes {
        let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row(vec![
            node.node.clone(),
            state(node),
            node.replicas.to_string(),
            units::show_permille(u64::from(node.load_permille)),
            format!("{}/{}", units::show_cpu(node.used.cpu_milli), units::show_cpu(node.capacity.cpu_milli)),
            format!("{}/{}", units::show_bytes(node.used.memory_bytes), units::show_bytes(node.capacity.memory_bytes)),
            format!("{} {}", units::show_cpu(node.declared.cpu_milli), units::show_bytes(node.declared.memory_bytes)),
            labels.join(" "),
        ]);
    }
    table.print("There are no nodes yet; `bellows token` says how a server joins.")
}

fn state(node: &Node) -> String {
    match node.liveness {
        "up" => node.state.clone(),
        "down" => format!("{}, down", node.state),
        _ => format!("{}, unheard", node.state),
    }
}
