//! `bellows status`.

use bellows_proto::operator::{StatusRequest, StatusResponse};
use clap::Args;
use serde_json::json;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

const AFTER: &str = "\
Example, for a script that waits for a cluster:
  until bellows status > /dev/null 2>&1; do sleep 0.2; done

JSON: {cluster, controller, version, leading, observing, incarnation, term, nodes, nodes_up, apps, replicas_wanted, replicas_ready, \
dashboard}";

/// The cluster in a few lines
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {}

/// Asks and prints.
pub async fn run(_arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let status = connection.ask(async |client| client.status(StatusRequest {}).await).await?;
    if globals.json() {
        return output::json(&as_json(&status, connection.address()));
    }
    text(&status, connection.address()).iter().try_for_each(|line| output::line(line))
}

fn as_json(status: &StatusResponse, controller: &str) -> serde_json::Value {
    let fence = status.fence.unwrap_or_default();
    json!({
        "cluster": status.cluster,
        "controller": controller,
        "version": status.version,
        "leading": status.leading,
        "observing": status.observing,
        "incarnation": fence.incarnation,
        "term": fence.term,
        "nodes": status.nodes,
        "nodes_up": status.nodes_up,
        "apps": status.apps,
        "replicas_wanted": status.replicas_wanted,
        "replicas_ready": status.replicas_ready,
        "dashboard": status.dashboard,
    })
}

fn text(status: &StatusResponse, controller: &str) -> Vec<String> {
    let fence = status.fence.unwrap_or_default();
    let role = match (status.observing, status.leading) {
        (true, _) => "observes only; it orders nothing",
        (false, true) => "leads",
        (false, false) => "follows",
    };
    let mut lines = vec![
        format!("cluster     {} (life {}, term {})", status.cluster, fence.incarnation, fence.term),
        format!("controller  {controller}, {}, {role}", version(&status.version)),
        format!("nodes       {} of {} up", status.nodes_up, status.nodes),
        format!("apps        {}", status.apps),
        format!("replicas    {} of {} ready", status.replicas_ready, status.replicas_wanted),
    ];
    if !status.dashboard.is_empty() {
        lines.push(format!("page        {}", status.dashboard));
    }
    lines
}

fn version(theirs: &str) -> String {
    match theirs {
        ours if ours == env!("CARGO_PKG_VERSION") => format!("version {ours}"),
        other => format!("version {other} (this is {})", env!("CARGO_PKG_VERSION")),
    }
}
