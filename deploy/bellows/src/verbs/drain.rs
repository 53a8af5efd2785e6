//! `bellows drain`.

use std::time::Duration;

use bellows_proto::operator::ListNodesRequest;
use bellows_proto::operator::set_node_state_request::State;
use clap::Args;

use crate::connection::Connection;
use crate::failure::{Failure, Kind};
use crate::globals::Globals;
use crate::nodestate::{declare, told};
use crate::units;

const AFTER: &str = "\
Its copies are replaced elsewhere first, then parked, then ended when idle; those still busy at the deadline are ended all the same.

Examples:
  bellows drain n1 --wait                until the node has no copies left
  bellows drain n1 --deadline 30s        with little patience for busy copies
  bellows uncordon n1                    take it back

JSON: {id, node, state}";

/// How often the node's copies are counted: a person does not notice the difference.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// With `--wait`: what stopping takes after the deadline (the longest usual grace and a margin).
const AFTER_DEADLINE: Duration = Duration::from_secs(60);

/// Move a node's replicas elsewhere
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which node
    node: String,

    /// How long busy copies may take to become idle
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration_ms)]
    deadline: u64,

    /// Wait until the node has no copies left
    #[arg(long)]
    wait: bool,
}

/// Says so, and waits if asked.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let node = &arguments.node;
    let id = declare(&mut connection, node, State::Draining, arguments.deadline).await?;
    if !arguments.wait {
        return told(id, node, "draining", "is draining; `bellows nodes` shows how many copies it still has", globals);
    }
    let patience = Duration::from_millis(arguments.deadline) + AFTER_DEADLINE;
    match tokio::time::timeout(patience, until_empty(&mut connection, node)).await {
        Ok(emptied) => emptied.and_then(|()| told(id, node, "draining", "has no copies left", globals)),
        Err(_) => Err(Failure::new(
            Kind::TimedOut,
            format!("node \"{node}\" still has copies {} after its deadline", units::show_ms(60_000)),
        )
        .mend(format!("`bellows explain {node}` says why; it goes on draining"))),
    }
}

async fn until_empty(connection: &mut Connection, name: &str) -> Result<(), Failure> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let answer = connection.ask(async |client| client.list_nodes(ListNodesRequest {}).await).await?;
        match answer.nodes.iter().find(|node| node.name == name) {
            None => return Err(Failure::not_found(format!("node \"{name}\" left while it was drained"))),
            Some(node) if node.replicas == 0 => return Ok(()),
            Some(_) => {}
        }
    }
}
