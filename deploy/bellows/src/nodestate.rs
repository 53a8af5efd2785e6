//! What `drain`, `cordon` and `uncordon` have in common: they say what people want of a node.

use bellows_proto::operator::SetNodeStateRequest;
use bellows_proto::operator::set_node_state_request::State;
use serde_json::json;

use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

/// Says it to the controller.
pub async fn declare(connection: &mut Connection, node: &str, state: State, deadline_ms: u64) -> Result<u32, Failure> {
    let idempotency_key = connection::idempotency_key();
    let request = SetNodeStateRequest { node: node.to_owned(), state: state.into(), deadline_ms, idempotency_key };
    Ok(connection.ask(async |client| client.set_node_state(request.clone()).await).await?.id)
}

/// Says what came of it.
pub fn told(id: u32, node: &str, state: &str, sentence: &str, globals: &Globals) -> Result<(), Failure> {
    match globals.json() {
        true => output::json(&json!({ "id": format!("n{id}"), "node": node, "state": state })),
        false => output::line(&format!("{node} {sentence}")),
    }
}
