//! `bellows uncordon`.

use bellows_proto::operator::set_node_state_request::State;
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::nodestate::{declare, told};

const AFTER: &str = "\
Example:
  bellows uncordon n1

JSON: {id, node, state}";

/// Let a node take replicas again
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which node
    node: String,
}

/// Says so.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let id = declare(&mut connection, &arguments.node, State::Active, 0).await?;
    told(id, &arguments.node, "active", "takes replicas again", globals)
}
