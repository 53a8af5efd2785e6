//! `bellows replicas`.

use bellows_proto::operator::ListReplicasRequest;
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views::{self, Ended, Exited, Replica};
use crate::output::{self, Table};
use crate::units;

const AFTER: &str = "\
Columns: STATE is ordered, pulling, starting, running, stopping or ended, then parked (takes no new requests) or unheard (its node \
is); AGE counts from its start.

Examples:
  bellows replicas web
  bellows replicas --ended               also those that ended, with their exit
  bellows replicas web -o json | jq -r '.[] | select(.ready) | .address'

JSON: a list of {id, app, tenant, node, state, ready, parked, unknown, activity: busy|idle|null, requests, idle_ms, address, \
revision, attempt, last_exit: {exit: code|signal|out_of_memory|not_started|unknown, exit_code, signal} of the last attempt before whose \
end was seen, running_ms, cpu_milli, memory_bytes, reason: {code, text}, ended: {exit, exit_code, signal, reason, at_unix_ms}}";

/// List replicas: where each copy runs, and why there
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Only of this app
    app: Option<String>,

    /// Also those that ended and are still remembered
    #[arg(long)]
    ended: bool,
}

/// Lists them.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let request = ListReplicasRequest {
        tenant: globals.tenant.clone(),
        app: arguments.app.unwrap_or_default(),
        ended: arguments.ended,
    };
    let answer = connection.ask(async |client| client.list_replicas(request.clone()).await).await?;
    let replicas: Vec<Replica> = answer.replicas.into_iter().map(Replica::from).collect();
    if globals.json() { output::json(&replicas) } else { table(&replicas) }
}

fn table(replicas: &[Replica]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "REPLICA", "APP", "NODE", "STATE", "READY", "ACTIVITY", "ADDRESS", ">CPU", ">MEMORY", ">AGE", "REASON",
    ]);
    for replica in replicas {
        table.row(vec![
            replica.id.clone(),
            replica.app.clone(),
            replica.node.clone(),
            state(replica),
            (if replica.ready { "yes" } else { "no" }).to_owned(),
            activity(replica),
            replica.address.clone().unwrap_or_default(),
            units::show_cpu(replica.cpu_milli),
            units::show_bytes(replica.memory_bytes),
            units::show_ms(replica.running_ms),
            replica.ended.as_ref().map_or_else(|| views::sentence(&replica.reason), exit),
        ]);
    }
    table.print("There are no replicas.")
}

fn state(replica: &Replica) -> String {
    let mut state = replica.state.to_owned();
    if replica.parked {
        state.push_str(", parked");
    }
    if replica.unknown {
        state.push_str(", unheard");
    }
    if replica.attempt > 1 {
        state.push_str(&format!(", attempt {}", replica.attempt));
        let how = replica.last_exit.as_ref().map(|last| format!(" after {}", how(last)));
        state.push_str(&how.unwrap_or_default());
    }
    state
}

fn activity(replica: &Replica) -> String {
    match (replica.activity, replica.idle_ms) {
        (Some("busy"), _) if replica.requests > 0 => format!("busy ({})", replica.requests),
        (Some(_), Some(idle_ms)) => format!("idle {}", units::show_ms(idle_ms)),
        (Some(word), None) => word.to_owned(),
        (None, _) => String::new(),
    }
}

fn how(exited: &Exited) -> String {
    match (exited.exit_code, exited.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => exited.exit.replace('_', " "),
    }
}

fn exit(ended: &Ended) -> String {
    let how = how(&ended.how);
    match views::sentence(&ended.reason) {
        why if why.is_empty() => how,
        why => format!("{how}: {why}"),
    }
}
