//! The core's view, in the operators' words. Rows in, rows out; nothing is decided here.

use bellows_core::effect::{Event, EventKind};
use bellows_core::ids::AppId;
use bellows_core::input::{Ended, Lifecycle};
use bellows_core::model::Gone;
use bellows_core::observe::node::Liveness;
use bellows_core::observe::world::AppSeen;
use bellows_core::reason::Reason;
use bellows_core::step::Core;
use bellows_core::view::View;
use bellows_core::view::rows::{AppRow, ImageRow, NodeRow, ReplicaRow};
use bellows_proto::operator as wire;

use crate::convert::{
    activity_to_wire, ended_to_wire, exit_to_wire, lifecycle_to_wire, reason_to_wire, replica_id_to_wire,
    resources_to_wire, spec_to_wire,
};

/// Everything that the page shows.
pub(crate) struct Overview {
    pub(crate) status: wire::StatusResponse,
    pub(crate) apps: Vec<wire::App>,
    pub(crate) nodes: Vec<wire::Node>,
    pub(crate) replicas: Vec<wire::Replica>,
}

/// What the metrics show.
pub(crate) struct Gauges {
    pub(crate) leading: bool,
    /// By liveness.
    pub(crate) nodes: [(&'static str, u64); 3],
    /// By state.
    pub(crate) copies: [(&'static str, u64); 6],
    pub(crate) apps: usize,
    pub(crate) sessions: usize,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    pub(crate) proposals: usize,
    pub(crate) violations: usize,
}

/// Nodes by liveness.
pub(super) fn count_nodes(core: &Core) -> [(&'static str, u64); 3] {
    let nodes = core.view().nodes();
    let count = |liveness: Liveness| nodes.iter().filter(|node| node.liveness == liveness).count() as u64;
    [("up", count(Liveness::Up)), ("unknown", count(Liveness::Unknown)), ("down", count(Liveness::Lost))]
}

/// Copies by state, summed over all apps.
pub(super) fn count_copies(apps: &[wire::App]) -> [(&'static str, u64); 6] {
    let sum = |figure: fn(&wire::App) -> u32| apps.iter().map(|app| u64::from(figure(app))).sum();
    [
        ("wanted", sum(|app| app.wanted)),
        ("ready", sum(|app| app.ready)),
        ("starting", sum(|app| app.starting)),
        ("stopping", sum(|app| app.stopping)),
        ("parked", sum(|app| app.parked)),
        ("unplaced", sum(|app| app.unplaced)),
    ]
}

/// Declared apps, and removed ones whose copies are still ending.
pub(super) fn apps(core: &Core) -> Vec<wire::App> {
    let view = core.view();
    let declared = view.apps().into_iter().map(|row| app_to_wire(core, row));
    let seen = core.world().into_iter().flat_map(|world| &world.apps);
    let removing = seen.filter(|(id, seen)| !core.model().apps.contains_key(id) && seen.tally.alive() > 0);
    declared.chain(removing.map(|(id, seen)| removing_to_wire(*id, seen))).collect()
}

fn app_to_wire(core: &Core, row: AppRow) -> wire::App {
    let known = core.model().apps.get(&row.id);
    // Copies on their way out that demand may still have back are the parked ones.
    let parked = seen(core, row.id).map_or(0, |seen| seen.tally.retiring);
    let unplaced = row.unplaced.as_ref();
    let unplaced_reason = unplaced.map(|unplaced| Reason::new("unplaced", unplaced.text.clone()));
    wire::App {
        id: row.id.0,
        tenant: row.tenant,
        name: row.name,
        image: row.image,
        generation: row.generation.0,
        revision: row.revision.0,
        wanted: row.wanted,
        ready: row.ready,
        starting: row.starting,
        stopping: row.stopping.saturating_sub(parked),
        parked,
        unplaced: unplaced.map_or(0, |unplaced| unplaced.count),
        policy: row.bounds.map(|(min, max)| format!("by policy, {min} to {max}")).unwrap_or_default(),
        reason: unplaced_reason.or(row.scaling).as_ref().map(reason_to_wire),
        spec: known.map(|app| spec_to_wire(&app.current.spec)),
        removing: false,
    }
}

fn removing_to_wire(id: AppId, seen: &AppSeen) -> wire::App {
    wire::App {
        id: id.0,
        name: seen.name.clone(),
        stopping: seen.tally.alive(),
        removing: true,
        reason: Some(reason_to_wire(&Reason::new("removed", "the app was removed; its copies are ending"))),
        ..Default::default()
    }
}

fn seen(core: &Core, app: AppId) -> Option<&AppSeen> {
    core.world()?.apps.get(&app)
}

/// Copies of one app or of all; with `ended`, also those that are still remembered.
pub(super) fn replicas(core: &Core, app: Option<AppId>, ended: bool) -> Vec<wire::Replica> {
    let view = core.view();
    let mut rows: Vec<_> = view.replicas(app, None).into_iter().map(|row| replica_to_wire(core, row)).collect();
    if ended {
        let apps = core.world().into_iter().flat_map(|world| &world.apps);
        let asked = apps.filter(|(id, _)| app.is_none_or(|app| app == **id));
        rows.extend(asked.flat_map(|(id, seen)| seen.gone.iter().map(|gone| gone_to_wire(core, *id, gone))));
    }
    rows
}

fn tenant_of(core: &Core, app: AppId) -> String {
    core.model().apps.get(&app).map(|app| app.current.spec.tenant.clone()).unwrap_or_default()
}

fn replica_to_wire(core: &Core, row: ReplicaRow) -> wire::Replica {
    wire::Replica {
        id: Some(replica_id_to_wire(row.id)),
        tenant: tenant_of(core, row.app),
        app: row.app_name,
        revision: row.revision.0,
        node: row.node_name,
        lifecycle: lifecycle_to_wire(row.lifecycle).into(),
        ready: row.ready,
        parked: row.parked,
        activity: Some(activity_to_wire(row.activity)),
        address: row.address,
        attempt: row.attempt,
        last_exit: row.last_exit.map(exit_to_wire),
        running_ms: row.running_for.0,
        used: Some(resources_to_wire(row.used)),
        reason: Some(reason_to_wire(row.ending.as_ref().unwrap_or(&row.reason))),
        ended: None,
        unknown: matches!(row.state.as_str(), "unknown" | "lost"),
    }
}

fn gone_to_wire(core: &Core, app: AppId, gone: &Gone) -> wire::Replica {
    let ended = Ended { exit: gone.exit, why: gone.why.clone(), wanted: false, at: gone.at };
    wire::Replica {
        id: Some(replica_id_to_wire(gone.id)),
        tenant: tenant_of(core, app),
        app: core.view().app_name(app),
        revision: gone.revision.0,
        node: core.view().node_name(gone.node),
        lifecycle: lifecycle_to_wire(Lifecycle::Ended).into(),
        reason: Some(reason_to_wire(&gone.placed)),
        ended: Some(ended_to_wire(&ended)),
        ..Default::default()
    }
}

pub(super) fn nodes(view: View<'_>) -> Vec<wire::Node> {
    view.nodes().into_iter().map(node_to_wire).collect()
}

fn node_to_wire(row: NodeRow) -> wire::Node {
    let liveness = match row.liveness {
        Liveness::Up => wire::node::Liveness::Up,
        Liveness::Unknown => wire::node::Liveness::Unknown,
        Liveness::Lost => wire::node::Liveness::Down,
    };
    wire::Node {
        id: row.id.0,
        name: row.name,
        liveness: liveness.into(),
        state: row.state,
        capacity: Some(resources_to_wire(row.capacity)),
        used: Some(resources_to_wire(row.used)),
        declared: Some(resources_to_wire(row.reserved)),
        load_permille: row.load.0,
        load_age_ms: row.age.map_or(0, |age| age.0),
        pressure_permille: row.pressure.map(|pressure| pressure.0),
        replicas: row.replicas,
        labels: row.labels,
        version: row.version,
    }
}

pub(super) fn images(view: View<'_>) -> Vec<wire::Image> {
    let image = |row: ImageRow| wire::Image {
        name: row.name,
        digest: row.digest,
        size_bytes: row.size.0,
        at_unix_ms: row.at.0,
    };
    view.images().into_iter().map(image).collect()
}

pub(super) fn event_to_wire(view: View<'_>, event: &Event) -> wire::Event {
    wire::Event {
        sequence: 0, // given by the ring
        at_unix_ms: event.at.0,
        kind: kind_word(event.kind).to_owned(),
        app: event.app.map(|app| view.app_name(app)).unwrap_or_default(),
        replica: event.replica.map(replica_id_to_wire),
        node: event.node.map(|node| view.node_name(node)).unwrap_or_default(),
        reason: Some(reason_to_wire(&event.reason)),
    }
}

/// Stable: programs read it.
fn kind_word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::AppChanged => "app_changed",
        EventKind::Scaled => "scaled",
        EventKind::Placed => "placed",
        EventKind::Unplaced => "unplaced",
        EventKind::Started => "started",
        EventKind::Ready => "ready",
        EventKind::Unready => "unready",
        EventKind::Unhealthy => "unhealthy",
        EventKind::Restarted => "restarted",
        EventKind::Parked => "parked",
        EventKind::Unparked => "unparked",
        EventKind::Stopping => "stopping",
        EventKind::Ended => "ended",
        EventKind::Refused => "refused",
        EventKind::NodeChanged => "node_changed",
        EventKind::NodeLost => "node_lost",
        EventKind::NodeReturned => "node_returned",
        EventKind::Orphan => "orphan",
        EventKind::Leader => "leader",
        EventKind::ImageChanged => "image_changed",
        EventKind::Rollout => "rollout",
        EventKind::Brake => "brake",
    }
}
