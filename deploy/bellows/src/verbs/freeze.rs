//! `bellows freeze` and `bellows thaw`.

use bellows_core::ids::ReplicaId;
use bellows_proto::operator::{FreezeRequest, FreezeResponse};
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, views};
use crate::units;

const AFTER_FREEZE: &str = "\
Examples:
  bellows freeze 1-2-57                  only when it is parked
  bellows freeze 1-2-57 --force          also in rotation: whoever asks it waits until it is thawed

It lasts until `bellows thaw`, until the copy is taken back into rotation or stopped, which thaw it first, or until its agent starts anew.

JSON: {id, frozen, memory_before_bytes, memory_after_bytes}: what the kernel could not take stays; it takes file pages, and the rest only \
with swap";

/// Stop all processes of a parked replica in their tracks, and take back its memory
#[derive(Args, Debug)]
#[command(after_help = AFTER_FREEZE)]
pub struct Freeze {
    /// Its id
    replica: ReplicaId,

    /// Also when it is in rotation
    #[arg(long)]
    force: bool,
}

/// Let a frozen replica go on
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  bellows thaw 1-2-57\n\nJSON: {id, frozen}")]
pub struct Thaw {
    /// Its id
    replica: ReplicaId,
}

/// Freezes it.
pub async fn freeze(arguments: Freeze, globals: &Globals) -> Result<(), Failure> {
    let Freeze { replica, force } = arguments;
    let FreezeResponse { memory_before_bytes: before, memory_after_bytes: after } =
        ask(replica, true, force, globals).await?;
    if globals.json() {
        return output::json(&serde_json::json!({
            "id": replica.to_string(), "frozen": true, "memory_before_bytes": before, "memory_after_bytes": after,
        }));
    }
    let (before, after) = (units::show_bytes(before), units::show_bytes(after));
    output::line(&format!("{replica} is frozen; of {before} of memory {after} stay"))
}

/// Thaws it.
pub async fn thaw(arguments: Thaw, globals: &Globals) -> Result<(), Failure> {
    let replica = arguments.replica;
    ask(replica, false, false, globals).await?;
    if globals.json() {
        return output::json(&serde_json::json!({ "id": replica.to_string(), "frozen": false }));
    }
    output::line(&format!("{replica} goes on"))
}

async fn ask(replica: ReplicaId, frozen: bool, force: bool, globals: &Globals) -> Result<FreezeResponse, Failure> {
    let mut connection = Connection::open(globals)?;
    let request = FreezeRequest { replica: Some(views::wire_replica_id(replica)), frozen, force };
    // It may be asked twice: frozen is frozen.
    connection.ask(async |client| client.freeze(request).await).await
}
