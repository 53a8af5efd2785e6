//! The leader's picture of the running world, with figures kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::names::Names;
use super::node::NodeSeen;
use super::outbox::{Outbox, Pending};
use super::replica::{Replica, Slot, Tally};
use super::roster::Roster;
use super::traffic::Requests;
use crate::autoscale::Elasticity;
use crate::ids::{AppId, Fence, NodeId, OrderSequence, ReplicaId};
use crate::model::Gone;
use crate::plan::classes::Classes;
use crate::plan::obstacle::Unplaced;
use crate::plan::repair::{Backoff, Brake};
use crate::plan::routes::{Entrance, RouteBook, RouteNews};
use crate::plan::stuck::Advance;
use crate::time::Instant;
use crate::units::Millis;

/// Something to look at when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Timer {
    /// Has this node fallen silent?
    Node(NodeId),
    /// Plan this app.
    App(AppId),
}

/// All copies, in a slab: their places stay while others come and go.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replicas {
    slots: Vec<Option<Replica>>,
    free: Vec<Slot>,
    by_id: Roster,
}

/// What the leader knows of one app.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AppSeen {
    /// For people, also after the app is gone from the model.
    pub name: String,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Millis,
    /// A parked copy that never goes idle is stopped after this.
    pub drain_deadline: Millis,
    /// Every copy, lost ones too.
    pub replicas: Roster,
    /// Copies per node.
    pub on_node: BTreeMap<NodeId, u32>,
    /// The figures.
    pub tally: Tally,
    /// Copies being retired.
    pub retiring: BTreeSet<ReplicaId>,
    /// Ended copies, the longest ago first.
    pub gone: VecDeque<Gone>,
    /// Requests, as its ingresses count them.
    pub requests: Requests,
    /// What those ingresses are told of its copies; none while nobody asks for it.
    pub routes: Option<Box<RouteBook>>,
    /// Copies that agents may start by themselves, and where.
    #[serde(serialize_with = "crate::pairs::serialize")]
    pub promised: BTreeMap<ReplicaId, NodeId>,
    /// Where requests come in, as every ingress was told.
    pub entrance: Option<Entrance>,
    /// Of an app whose policies decide.
    pub elastic: Option<Elasticity>,
    /// What crashed or was refused, and what follows.
    pub backoff: Backoff,
    /// The wanted count when this leader began: so many may run on nodes that it has not heard yet.
    pub assumed: u32,
    /// What found no room.
    pub unplaced: Option<Unplaced>,
    /// How many new copies there were when an old one last made way for one: more must be there before another does.
    pub made_way: Option<u32>,
    /// The rollout has been reported as under way.
    pub rolling: bool,
    /// How the replacement of copies goes: what there was when it last advanced.
    pub advance: Option<Advance>,
    /// The verdict on this revision was given to raft.
    pub verdict: u32,
}

/// Everything that a leader knows beyond the model. Dropped when it steps down.
#[derive(Clone, Debug, Serialize)]
pub struct World {
    /// (incarnation, term).
    pub fence: Fence,
    /// Since when this member leads.
    pub since: Instant,
    /// Every node that might hide copies from a new leader has been heard or given up.
    pub accounted: bool,
    /// All nodes below this one have been: who was accounted for once stays so.
    accounted_below: u32,
    /// Did a quorum answer lately?
    pub quorum: bool,
    /// The last replica counter given out.
    pub counter: u64,
    /// What people call the nodes.
    pub names: Names,
    /// By node id; ids are dense.
    nodes: Vec<Option<Box<NodeSeen>>>,
    /// All copies.
    pub replicas: Replicas,
    /// By app; also apps that are gone while copies of them live.
    pub apps: BTreeMap<AppId, AppSeen>,
    /// Apps to plan.
    pub dirty: BTreeSet<AppId>,
    /// Elastic apps whose demand changed.
    pub demand: BTreeSet<AppId>,
    /// Nodes whose ingress has not told its counts in its present session yet.
    pub traffic_due: BTreeSet<NodeId>,
    /// Nodes whose allowances changed in this step.
    pub promises_changed: BTreeSet<NodeId>,
    /// Routes that changed in this step.
    pub news: RouteNews,
    /// Apps with unplaced copies.
    pub unplaced: BTreeSet<AppId>,
    /// Something may fit now that did not before.
    pub room_changed: bool,
    /// When unplaced copies were last tried.
    pub retried: Instant,
    /// Nodes in order, per class of requests. Derived, and left out of the printed state.
    #[serde(skip)]
    pub classes: Classes,
    /// Deadlines.
    pub timers: BTreeSet<(Instant, Timer)>,
    /// Orders of this step.
    #[serde(skip)]
    pub outbox: Outbox,
    /// Bounds replacement when the network is the likelier culprit.
    pub brake: Brake,
    /// When wanted counts were last given to raft.
    pub recorded: Instant,
    /// Ends that no agent can tell of, not yet given to raft.
    pub untold: Vec<Gone>,
    /// When such ends were last given to raft.
    pub ends_recorded: Instant,
    /// The measure of "running long enough to be measured".
    pub full_window: Millis,
}

impl Replicas {
    /// The copy in a slot.
    pub fn at(&self, slot: Slot) -> &Replica {
        self.slots[slot.0 as usize].as_ref().expect("a slot is handed out only while its copy lives")
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Replica {
        self.slots[slot.0 as usize].as_mut().expect("a slot is handed out only while its copy lives")
    }

    /// Where a copy is.
    pub fn find(&self, id: ReplicaId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// All copies by id.
    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.by_id.values().map(|slot| self.at(*slot))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn insert(&mut self, replica: Replica) -> Slot {
        let id = replica.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 copies fit into memory"))
        });
        self.slots[slot.0 as usize] = Some(replica);
        self.by_id.insert(id, slot);
        slot
    }

    fn remove(&mut self, slot: Slot) -> Replica {
        let replica = self.slots[slot.0 as usize].take().expect("a slot is handed out only while its copy lives");
        self.by_id.remove(&replica.id);
        self.free.push(slot);
        replica
    }
}

impl World {
    /// The world before anything was heard.
    pub fn unseen(fence: Fence, now: Instant, full_window: Millis) -> Self {
        Self {
            fence,
            since: now,
            accounted: false,
            accounted_below: 0,
            quorum: true,
            counter: 0,
            names: Names::default(),
            nodes: Vec::new(),
            replicas: Replicas::default(),
            apps: BTreeMap::new(),
            dirty: BTreeSet::new(),
            demand: BTreeSet::new(),
            traffic_due: BTreeSet::new(),
            promises_changed: BTreeSet::new(),
            news: RouteNews::default(),
            unplaced: BTreeSet::new(),
            room_changed: false,
            retried: now,
            classes: Classes::default(),
            timers: BTreeSet::new(),
            outbox: Outbox::default(),
            brake: Brake::default(),
            recorded: Instant(0),
            untold: Vec::new(),
            ends_recorded: Instant(0),
            full_window,
        }
    }

    /// What is known of a node.
    pub fn node(&self, id: NodeId) -> Option<&NodeSeen> {
        self.nodes.get(id.0 as usize)?.as_deref()
    }

    /// What is known of a node, to be changed. Changes of its figures belong to `change`, `insert` and `remove`.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut NodeSeen> {
        self.nodes.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// All nodes by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeSeen)> {
        let ids = (0..).map(NodeId);
        ids.zip(&self.nodes).filter_map(|(id, node)| Some((id, node.as_deref()?)))
    }

    /// How many nodes were ever watched: the size of whatever is kept per node.
    pub fn watched(&self) -> usize {
        self.nodes.len()
    }

    /// Begins to watch a node.
    pub fn add_node(&mut self, id: NodeId, node: NodeSeen) {
        let at = id.0 as usize;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
        }
        self.nodes[at] = Some(Box::new(node));
        self.touch(id);
    }

    /// Ends to watch a node; its copies must have been removed before.
    pub fn forget_node(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            *node = None;
        }
        self.touch(id);
    }

    /// Whether a node serves, or to which part of a spread it belongs, may have changed: labels, state, liveness, session.
    pub fn touch(&mut self, id: NodeId) {
        if let Some(node) = self.node_mut(id) {
            node.shape = node.shape.wrapping_add(1);
        }
        self.touch_figures(id);
    }

    /// What a node can take, or how it ranks, has changed, and nothing else did.
    pub fn touch_figures(&mut self, id: NodeId) {
        self.classes.touch(id, self.nodes.len());
    }

    /// Gives the next order of a node's session its sequence; `None` when no order can reach it.
    pub fn next_sequence(&mut self, id: NodeId) -> Option<OrderSequence> {
        let session = self.node_mut(id)?.session.as_mut().filter(|session| session.live)?;
        session.sent.0 += 1;
        Some(session.sent)
    }

    /// Puts an order into the outbox.
    pub fn post(&mut self, id: NodeId, order: Pending) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::as_deref_mut) {
            self.outbox.post(id, &mut node.batch, order);
        }
    }

    /// Begins to watch a copy.
    pub fn insert(&mut self, replica: Replica) -> Slot {
        let (id, app, at) = (replica.id, replica.app, replica.node);
        let tally = replica.tally();
        let (resources, unmeasured) = (replica.resources, replica.unmeasured(self.full_window));
        // It was started under an allowance: from here on it counts by itself.
        self.release(at, id);
        let visible = replica.line().is_some();
        let slot = self.replicas.insert(replica);
        let seen = self.apps.entry(app).or_default();
        if visible && seen.routes.is_some() {
            self.news.changed.insert((app, id));
        }
        seen.replicas.insert(id, slot);
        *seen.on_node.entry(at).or_default() += 1;
        seen.tally.replace(&Tally::default(), &tally);
        if let Some(node) = self.node_mut(at) {
            node.replicas.insert(id, slot);
            node.reserved += resources;
            node.unmeasured += unmeasured;
        }
        self.touch_figures(at);
        self.tell_waiting(app);
        slot
    }

    /// The reason for which requests for this app wait may be another one now.
    pub fn tell_waiting(&mut self, app: AppId) {
        let waits = |seen: &AppSeen| seen.requests.held > 0 && seen.routes.is_some();
        if self.apps.get(&app).is_some_and(waits) {
            self.news.revised.insert(app);
        }
    }

    /// Ends to watch a copy.
    pub fn remove(&mut self, slot: Slot) -> Replica {
        let replica = self.replicas.remove(slot);
        let unmeasured = replica.unmeasured(self.full_window);
        if let Some(seen) = self.apps.get_mut(&replica.app) {
            if seen.routes.is_some() {
                self.news.changed.insert((replica.app, replica.id));
            }
            seen.replicas.remove(&replica.id);
            seen.retiring.remove(&replica.id);
            seen.tally.replace(&replica.tally(), &Tally::default());
            if let Some(count) = seen.on_node.get_mut(&replica.node) {
                *count -= 1;
                if *count == 0 {
                    seen.on_node.remove(&replica.node);
                }
            }
        }
        if let Some(node) = self.node_mut(replica.node) {
            node.replicas.remove(&replica.id);
            node.reserved = node.reserved - replica.resources;
            node.unmeasured = node.unmeasured - unmeasured;
        }
        self.touch_figures(replica.node);
        self.dirty.insert(replica.app);
        self.room_changed = true;
        replica
    }

    /// The only way to change a copy: the figures of its app and node follow.
    pub fn change<R>(&mut self, slot: Slot, change: impl FnOnce(&mut Replica) -> R) -> R {
        let window = self.full_window;
        let replica = self.replicas.at_mut(slot);
        let (tally, unmeasured, retiring) = (replica.tally(), replica.unmeasured(window), replica.retire.is_some());
        let line = replica.line();
        let result = change(replica);
        let (id, app, at) = (replica.id, replica.app, replica.node);
        let (next_tally, next_unmeasured) = (replica.tally(), replica.unmeasured(window));
        let next_retiring = replica.retire.is_some();
        if line != replica.line() && self.apps.get(&app).is_some_and(|seen| seen.routes.is_some()) {
            self.news.changed.insert((app, id));
        }
        if unmeasured != next_unmeasured
            && let Some(node) = self.node_mut(at)
        {
            node.unmeasured = node.unmeasured + next_unmeasured - unmeasured;
            self.touch_figures(at);
        }
        if tally == next_tally && retiring == next_retiring {
            return result;
        }
        let seen = self.apps.entry(app).or_default();
        seen.tally.replace(&tally, &next_tally);
        match (retiring, next_retiring) {
            (false, true) => drop(seen.retiring.insert(id)),
            (true, false) => drop(seen.retiring.remove(&id)),
            _ => {}
        }
        if tally.counts_differ(&next_tally) {
            self.dirty.insert(app);
        }
        if seen.elastic.is_some() {
            self.demand.insert(app);
        }
        self.tell_waiting(app);
        result
    }

    /// Has every node of the model been heard, or given up?
    pub fn all_accounted_for(&self) -> bool {
        self.accounted || self.find_unaccounted().is_none()
    }

    /// Looks once, when something was heard; nodes that join later hide nothing.
    pub fn note_accounted(&mut self) {
        if !self.accounted {
            let first = self.find_unaccounted();
            self.accounted = first.is_none();
            self.accounted_below = first.map_or(self.accounted_below, |id| id.0);
        }
    }

    fn find_unaccounted(&self) -> Option<NodeId> {
        let heard = |node: &NodeSeen| node.ever_heard || node.liveness == super::node::Liveness::Lost;
        let nodes = self.nodes.iter().zip(0..).skip(self.accounted_below as usize);
        let mut unheard = nodes.filter(|(node, _)| node.as_deref().is_some_and(|node| !heard(node)));
        unheard.next().map(|(_, id)| NodeId(id))
    }
}
