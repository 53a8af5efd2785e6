//! `bellows node rm`.

use bellows_proto::operator::RemoveNodeRequest;
use clap::Args;
use serde_json::json;

use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

const AFTER: &str = "\
For a server that still lives: `bellows drain NODE --wait` first. One that was removed must join anew, with a token.

Example:
  bellows node rm n1

JSON: {id, node, state: \"removed\"}";

/// Forget a node that left for good; its copies are replaced at once
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which node
    node: String,
}

/// Says so.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let idempotency_key = connection::idempotency_key();
    let request = RemoveNodeRequest { node: arguments.node.clone(), idempotency_key };
    let answer = connection.ask(async |client| client.remove_node(request.clone()).await).await?;
    match globals.json() {
        true => output::json(&json!({ "id": format!("n{}", answer.id), "node": arguments.node, "state": "removed" })),
        false => output::line(&format!("{} is forgotten", arguments.node)),
    }
}
