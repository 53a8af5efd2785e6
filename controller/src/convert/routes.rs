//! What ingresses are told, and what they count.

use bellows_core::ids::{AppId, Fence, NodeId, RevisionNumber, SessionId};
use bellows_core::input::{AppTraffic, TrafficReport};
use bellows_core::plan::allow::Allowance;
use bellows_core::plan::routes::{Entrance, RouteReplica, RouteUpdate};
use bellows_core::units::Millis;
use bellows_proto::node as wire;
use bellows_proto::types;

use super::spec::port_to_wire;
use super::traffic::route_to_wire;
use super::words::{digest_from_wire, fence_to_wire, replica_id_from_wire, replica_id_to_wire, shortened};
use super::{Malformed, Result, each};

/// Apps in one message: ten for each copy of the largest node.
const MAX_APPS: usize = 100_000;

/// Copies in one message, as in a report.
const MAX_COPIES: usize = 20_000;

pub(crate) fn entrances_to_wire(
    (session, fence): (SessionId, Fence),
    whole: bool,
    apps: &[Entrance],
    gone: &[AppId],
    removed: &[NodeId],
) -> wire::Entrances {
    wire::Entrances {
        fence: Some(fence_to_wire(fence)),
        session: session.0,
        whole,
        apps: apps.iter().map(entrance_to_wire).collect(),
        gone: gone.iter().map(|app| app.0).collect(),
        removed_nodes: removed.iter().map(|node| node.0).collect(),
    }
}

fn entrance_to_wire(entrance: &Entrance) -> wire::Entrance {
    wire::Entrance {
        app: entrance.app.0,
        name: entrance.name.clone(),
        tenant: entrance.tenant.clone(),
        routes: entrance.routes.iter().map(route_to_wire).collect(),
        elastic: entrance.elastic,
        ports: entrance.ports.iter().map(port_to_wire).collect(),
    }
}

pub(crate) fn routes_to_wire(session: SessionId, fence: Fence, updates: &[RouteUpdate]) -> wire::Routes {
    let apps = updates.iter().map(update_to_wire).collect();
    wire::Routes { fence: Some(fence_to_wire(fence)), session: session.0, apps }
}

fn update_to_wire(update: &RouteUpdate) -> wire::AppRoutes {
    let terms = &update.terms;
    let hold = types::Hold { requests: terms.hold.requests, bytes: terms.hold.bytes.0, time_ms: terms.hold.time.0 };
    wire::AppRoutes {
        app: update.app.0,
        version: update.version,
        whole: update.whole,
        concurrency: Some(types::Concurrency { limit: terms.limit, target: terms.target }),
        hold: Some(hold),
        slow_start_ms: terms.slow_start.0,
        replicas: update.replicas.iter().map(copy_to_wire).collect(),
        gone: update.gone.iter().map(|id| replica_id_to_wire(*id)).collect(),
        removed: update.removed,
        waiting: update.waiting.clone(),
    }
}

fn copy_to_wire(copy: &RouteReplica) -> wire::RouteReplica {
    wire::RouteReplica {
        id: Some(replica_id_to_wire(copy.id)),
        node: copy.node.0,
        owner: copy.owner.clone(),
        ready: copy.ready,
        parked: copy.parked,
        address: copy.address.clone(),
    }
}

pub(crate) fn allowance_to_wire(allowance: &Allowance) -> wire::Allowance {
    wire::Allowance {
        id: Some(replica_id_to_wire(allowance.id)),
        app: allowance.app.0,
        revision: allowance.revision.0,
        spec_digest: allowance.digest.0.to_vec(),
    }
}

pub(crate) fn allowance_from_wire(allowance: wire::Allowance) -> Result<Allowance> {
    Ok(Allowance {
        id: replica_id_from_wire("id", allowance.id)?,
        app: AppId(allowance.app),
        revision: RevisionNumber(allowance.revision),
        digest: digest_from_wire("spec_digest", &allowance.spec_digest)?,
    })
}

/// Apps asked for, and apps asked for no more.
pub(crate) fn subscription_from_wire(told: wire::Subscribe) -> Result<(Vec<AppId>, Vec<AppId>)> {
    check_count("apps", told.apps.len(), MAX_APPS)?;
    check_count("dropped", told.dropped.len(), MAX_APPS)?;
    let apps = |all: Vec<u32>| all.into_iter().map(AppId).collect();
    Ok((apps(told.apps), apps(told.dropped)))
}

pub(crate) fn traffic_report_from_wire(told: wire::Traffic) -> Result<TrafficReport> {
    check_count("apps", told.apps.len(), MAX_APPS)?;
    check_count("replicas", told.replicas.len(), MAX_COPIES)?;
    let app = |app: wire::AppTraffic| AppTraffic {
        app: AppId(app.app),
        held: app.held,
        arrivals: app.arrivals,
        oldest_held: Millis(app.oldest_held_ms),
        refused: app.refused,
        last_refusal: app.last_refused.map(|last| (shortened(last.why), Millis(last.ago_ms))),
    };
    let copy = |copy: wire::ReplicaTraffic| Ok((replica_id_from_wire("id", copy.id)?, copy.in_flight));
    let replicas = each("replicas", told.replicas, copy)?;
    Ok(TrafficReport { apps: told.apps.into_iter().map(app).collect(), replicas })
}

fn check_count(field: &str, count: usize, most: usize) -> Result<()> {
    match count <= most {
        true => Ok(()),
        false => Err(Malformed::new(field, format!("{count} elements, at most {most} are taken"))),
    }
}
