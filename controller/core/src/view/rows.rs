//! Rows of the tables that people and programs read.

use serde::Serialize;

use super::View;
use crate::ids::{AppId, Generation, NodeId, ReplicaId, RevisionNumber};
use crate::input::{Activity, Exit, Lifecycle};
use crate::model::apply::state_name;
use crate::model::spec::Scale;
use crate::observe::node::Liveness;
use crate::observe::replica::{Replica, Sight, Stage, Standing};
use crate::plan::obstacle::Unplaced;
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::{Bytes, Millis, Permille, Resources};

/// One app.
#[derive(Clone, Debug, Serialize)]
pub struct AppRow {
    /// Its id.
    pub id: AppId,
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// Accepted changes.
    pub generation: Generation,
    /// The current revision.
    pub revision: RevisionNumber,
    /// The last revision that was wholly ready.
    pub last_good: Option<RevisionNumber>,
    /// What runs.
    pub image: String,
    /// Copies wanted now.
    pub wanted: u32,
    /// Bounds, when policies decide.
    pub bounds: Option<(u32, u32)>,
    /// Copies that take requests.
    pub ready: u32,
    /// Copies on their way to being ready.
    pub starting: u32,
    /// Copies on their way out.
    pub stopping: u32,
    /// Copies on nodes that are lost.
    pub lost: u32,
    /// Crashed or refused copies that wait for their back-off.
    pub backing_off: u32,
    /// Copies that found no room.
    pub unplaced: Option<Unplaced>,
    /// Used by ready copies.
    pub used: Resources,
    /// Why the count is what it is, when policies decide.
    pub scaling: Option<Reason>,
}

/// One copy.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaRow {
    /// Its id.
    pub id: ReplicaId,
    /// Whose.
    pub app: AppId,
    /// Its name.
    pub app_name: String,
    /// What it runs.
    pub revision: RevisionNumber,
    /// Where.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// One word: ordered, pulling, starting, running, ready, unready, parked, stopping, unknown, lost, orphan.
    pub state: String,
    /// Of the present attempt.
    pub lifecycle: Lifecycle,
    /// Does it answer?
    pub ready: bool,
    /// Is it out of rotation?
    pub parked: bool,
    /// Does it work?
    pub activity: Activity,
    /// Node-local.
    pub address: String,
    /// Runs of its process.
    pub attempt: u32,
    /// How the last run before it ended whose end was seen.
    pub last_exit: Option<Exit>,
    /// Age of the attempt.
    pub running_for: Millis,
    /// Since when this leader knows it.
    pub since: Instant,
    /// Set aside.
    pub declared: Resources,
    /// Measured.
    pub used: Resources,
    /// Why it is there.
    pub reason: Reason,
    /// Why it is being ended.
    pub ending: Option<Reason>,
}

/// One server.
#[derive(Clone, Debug, Serialize)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What people want of it: active, cordoned, draining.
    pub state: String,
    /// Is it there?
    pub liveness: Liveness,
    /// When it was last heard.
    pub heard: Instant,
    /// What it may use.
    pub capacity: Resources,
    /// Declared for copies on it.
    pub reserved: Resources,
    /// Measured.
    pub used: Resources,
    /// In the fuller dimension, copies not yet measured counted as declared.
    pub load: Permille,
    /// Age of the reading; absent before the first.
    pub age: Option<Millis>,
    /// Where the kernel tells.
    pub pressure: Option<Permille>,
    /// Copies on it.
    pub replicas: u32,
    /// Labels in force.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The agent's version.
    pub version: String,
}

/// One image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageRow {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub digest: String,
    /// Its size.
    pub size: Bytes,
    /// When it was registered.
    pub at: Instant,
    /// Apps that run it.
    pub apps: Vec<String>,
}

impl<'a> View<'a> {
    /// All declared apps.
    pub fn apps(&self) -> Vec<AppRow> {
        self.model().apps.keys().filter_map(|app| self.app(*app)).collect()
    }

    /// One app.
    pub fn app(&self, id: AppId) -> Option<AppRow> {
        let known = self.model().apps.get(&id)?;
        let spec = &known.current.spec;
        let seen = self.app_seen(id);
        let tally = seen.map(|seen| seen.tally).unwrap_or_default();
        let ready = tally.fresh_ready + tally.stale_ready;
        let now = self.now();
        let backing_off = seen.map_or(0, |seen| seen.backoff.due.iter().filter(|due| **due > now).count());
        Some(AppRow {
            id,
            tenant: spec.tenant.clone(),
            name: spec.name.clone(),
            generation: known.generation,
            revision: known.current.number,
            last_good: known.last_good.as_ref().map(|good| good.number),
            image: spec.image.clone(),
            wanted: self.scene().map_or(known.wanted, |scene| scene.wanted(id)),
            bounds: match &spec.scale {
                Scale::Declared { .. } => None,
                Scale::Policies(elastic) => Some((elastic.min, elastic.max)),
            },
            ready,
            starting: tally.fresh + tally.stale - ready,
            stopping: tally.retiring + tally.ending,
            lost: tally.lost + tally.held,
            backing_off: u32::try_from(backing_off).unwrap_or(u32::MAX),
            unplaced: seen.and_then(|seen| seen.unplaced.clone()),
            used: Resources { cpu: tally.used_cpu, memory: tally.used_memory },
            scaling: seen.and_then(|seen| seen.elastic.as_ref()).map(|elastic| elastic.reason.clone()),
        })
    }

    /// All copies, or those of one app, or on one node.
    pub fn replicas(&self, app: Option<AppId>, node: Option<NodeId>) -> Vec<ReplicaRow> {
        let Some(world) = self.world() else { return Vec::new() };
        let slots = match (app, node) {
            (Some(app), _) => world.apps.get(&app).map(|seen| seen.replicas.values().copied().collect()),
            (None, Some(node)) => world.node(node).map(|seen| seen.replicas.values().copied().collect()),
            (None, None) => return world.replicas.iter().map(|replica| self.row(replica)).collect(),
        };
        let slots: Vec<_> = slots.unwrap_or_default();
        let all = slots.into_iter().map(|slot| world.replicas.at(slot));
        all.filter(|replica| node.is_none_or(|node| replica.node == node)).map(|replica| self.row(replica)).collect()
    }

    /// One copy that lives.
    pub fn replica(&self, id: ReplicaId) -> Option<ReplicaRow> {
        let world = self.world()?;
        world.replicas.find(id).map(|slot| self.row(world.replicas.at(slot)))
    }

    fn row(&self, replica: &Replica) -> ReplicaRow {
        let seen = &replica.seen;
        ReplicaRow {
            id: replica.id,
            app: replica.app,
            app_name: self.app_name(replica.app),
            revision: replica.revision,
            node: replica.node,
            node_name: self.node_name(replica.node),
            state: state_word(replica).to_owned(),
            lifecycle: seen.lifecycle,
            ready: seen.ready,
            parked: seen.parked,
            activity: seen.activity,
            address: seen.address.clone(),
            attempt: seen.attempt,
            last_exit: seen.last_exit,
            running_for: seen.running_for,
            since: replica.since,
            declared: replica.resources,
            used: seen.used,
            reason: self.scene().map(|scene| scene.placed_reason(replica)).unwrap_or_default(),
            ending: replica.retire.as_ref().map(|retire| retire.reason.clone()),
        }
    }

    /// All nodes of the cluster.
    pub fn nodes(&self) -> Vec<NodeRow> {
        self.model().nodes.keys().filter_map(|node| self.node(*node)).collect()
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<NodeRow> {
        let known = self.model().nodes.get(&id)?;
        let unheard = crate::observe::node::NodeSeen::unheard(known.joined);
        let seen = self.node_seen(id).unwrap_or(&unheard);
        let now = self.now();
        Some(NodeRow {
            id,
            name: known.name.clone(),
            state: state_name(known.state).to_owned(),
            liveness: seen.liveness,
            heard: seen.heard,
            capacity: seen.facts.capacity,
            reserved: seen.reserved,
            used: seen.measured.used,
            load: seen.load(),
            age: seen.measured_at.map(|at| now - at),
            pressure: seen.measured.pressure,
            replicas: u32::try_from(seen.replicas.len()).unwrap_or(u32::MAX),
            labels: if seen.ever_heard { seen.facts.labels.clone() } else { known.labels.clone() },
            version: seen.facts.version.clone(),
        })
    }

    /// All images.
    pub fn images(&self) -> Vec<ImageRow> {
        let model = self.model();
        let users = |digest: &str| {
            let apps = model.apps.values().filter(|app| app.current.spec.image_digest == digest);
            apps.map(|app| app.current.spec.name.clone()).collect()
        };
        let row = |(name, image): (&String, &crate::model::Image)| ImageRow {
            name: name.clone(),
            digest: image.digest.clone(),
            size: image.size,
            at: image.at,
            apps: users(&image.digest),
        };
        model.images.iter().map(row).collect()
    }
}

/// One word for a table.
pub fn state_word(replica: &Replica) -> &'static str {
    let seen = &replica.seen;
    match replica.sight {
        Sight::Lost | Sight::Held(_) => return "lost",
        Sight::Blind => return "unknown",
        Sight::Clear => {}
    }
    let stage = replica.retire.as_ref().map(|retire| retire.stage);
    match seen.lifecycle {
        _ if replica.standing == Standing::Orphan => "orphan",
        Lifecycle::Ended => "ended",
        Lifecycle::Stopping => "stopping",
        _ if stage >= Some(Stage::StoppingIfIdle) => "stopping",
        _ if seen.parked || stage.is_some() => "parked",
        Lifecycle::Ordered => "ordered",
        Lifecycle::Pulling => "pulling",
        Lifecycle::Starting => "starting",
        Lifecycle::Running if seen.ready => "ready",
        Lifecycle::Running if seen.ever_ready => "unready",
        Lifecycle::Running => "running",
    }
}
