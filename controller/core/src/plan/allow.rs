//! Allowances: which agents may start a copy by themselves, so that the first request after idleness waits for nobody, and is served
//! while no leader is there.
//!
//! A promise sets aside an id, room on one node and a share of the app's largest count, for an idle app at nodes whose ingress asks for
//! it. It ends when its copy is there, or when the agent has taken in that it is over; until then nothing else may have what it holds.
//!
//! ```text
//!   idle app, asked for at a node ──▶ promised ──▶ used: the copy is reported, and counts by itself
//!                                        └──▶ over (the app works again) ──▶ the agent has heard so: released
//! ```
//! A new leader takes over what agents say they still hold. Those of a lost node are released like its copies are replaced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::effect::{Effect, EventKind};
use crate::ids::{AppId, NodeId, ReplicaId, RevisionNumber, SpecDigest};
use crate::model::App;
use crate::model::spec::{Policy, Scale};
use crate::observe::world::World;
use crate::turn::{About, Scene, Turn};
use crate::units::Resources;

/// One copy that an agent may start without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The id that it shall have.
    pub id: ReplicaId,
    /// Whose copy.
    pub app: AppId,
    /// Which revision.
    pub revision: RevisionNumber,
    /// Names its spec.
    pub digest: SpecDigest,
}

/// The code of the reason with which an agent starts a copy by itself.
pub const ALLOWANCE: &str = "allowance";

/// What is set aside for an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// As the agent knows it.
    pub allowance: Allowance,
    /// Whose agent.
    pub node: NodeId,
    /// Room on the node.
    pub resources: Resources,
    /// Over, as soon as the agent has taken this version in.
    pub over: Option<u64>,
}

impl World {
    /// Sets aside what an allowance needs.
    fn promise(&mut self, promise: Promise) {
        let Some(node) = self.node_mut(promise.node) else { return };
        node.reserved += promise.resources;
        node.promises.insert(promise.allowance.id, promise);
        let seen = self.apps.entry(promise.allowance.app).or_default();
        seen.promised.insert(promise.allowance.id, promise.node);
        self.touch_figures(promise.node);
    }

    /// Gives it back: the copy counts by itself now, or nothing comes of it.
    pub fn release(&mut self, node: NodeId, id: ReplicaId) {
        let Some(promise) = self.node_mut(node).and_then(|seen| seen.promises.remove(&id)) else { return };
        if let Some(seen) = self.node_mut(node) {
            seen.reserved = seen.reserved - promise.resources;
        }
        if let Some(seen) = self.apps.get_mut(&promise.allowance.app) {
            seen.promised.remove(&id);
        }
        self.dirty.insert(promise.allowance.app);
        self.room_changed = true;
        self.touch_figures(node);
    }
}

impl Turn<'_> {
    /// Who may start this app's first copy: worked out anew whenever the app is planned.
    pub fn plan_allowances(&mut self, app: AppId) {
        let chosen = self.scene().may_start(app);
        let known = self.model.apps.get(&app);
        let kept = |promise: &Promise| {
            let same = known.is_some_and(|known| known.current.number == promise.allowance.revision);
            promise.over.is_some() || (same && chosen.contains(&promise.node))
        };
        let stale: Vec<Promise> = self.scene().promises(app).into_iter().filter(|promise| !kept(promise)).collect();
        stale.into_iter().for_each(|promise| self.end_promise(promise));
        let Some(known) = known else { return };
        for node in chosen {
            let has = self.scene().promises(app).iter().any(|promise| promise.node == node);
            if !has {
                self.give_promise(known, node);
            }
        }
    }

    fn give_promise(&mut self, known: &App, node: NodeId) {
        self.world.counter += 1;
        let id = ReplicaId { fence: self.world.fence, counter: self.world.counter };
        let (app, revision, digest) = (known.id, known.current.number, known.current.digest);
        let allowance = Allowance { id, app, revision, digest };
        let resources = known.current.spec.resources;
        self.world.promise(Promise { allowance, node, resources, over: None });
        self.world.promises_changed.insert(node);
    }

    /// The agent may be about to use it: it stands until the agent has heard otherwise.
    fn end_promise(&mut self, promise: Promise) {
        let (node, id) = (promise.node, promise.allowance.id);
        let Some(seen) = self.world.node_mut(node) else { return };
        let next = seen.session.as_ref().map_or(0, |session| session.allowed) + 1;
        if let Some(promise) = seen.promises.get_mut(&id) {
            promise.over = Some(next);
        }
        self.world.promises_changed.insert(node);
    }

    /// The agent has taken this version in: what was over by then is over.
    pub fn allowances_heard(&mut self, node: NodeId, version: u64) {
        let Some(seen) = self.world.node(node).filter(|seen| !seen.promises.is_empty()) else { return };
        let over = |promise: &&Promise| promise.over.is_some_and(|over| over <= version);
        let ids: Vec<ReplicaId> = seen.promises.values().filter(over).map(|promise| promise.allowance.id).collect();
        ids.into_iter().for_each(|id| self.world.release(node, id));
    }

    /// A hello: what the agent still holds stands, what it does not name is used or lost.
    pub fn recall_allowances(&mut self, node: NodeId) {
        self.release_promises(node);
        let Some(seen) = self.world.node(node) else { return };
        let held = seen.facts.allowances.clone();
        if !held.is_empty() {
            self.world.promises_changed.insert(node); // what is no good any more is taken back with it
        }
        for allowance in held {
            let known = self.model.apps.get(&allowance.app).filter(|known| known.current.number == allowance.revision);
            let free = self.world.replicas.find(allowance.id).is_none();
            if let Some(known) = known.filter(|_| free) {
                let resources = known.current.spec.resources;
                self.world.promise(Promise { allowance, node, resources, over: None });
                self.world.dirty.insert(allowance.app);
            }
        }
    }

    /// Lost, removed, or about to tell anew.
    pub fn release_promises(&mut self, node: NodeId) {
        let Some(seen) = self.world.node(node) else { return };
        let ids: Vec<ReplicaId> = seen.promises.keys().copied().collect();
        ids.into_iter().for_each(|id| self.world.release(node, id));
    }

    /// An agent has started a copy because requests waited there. The counts follow; until then that copy is what says so.
    pub fn allowance_used(&mut self, app: AppId) {
        let Some(known) = self.model.apps.get(&app) else { return };
        let Scale::Policies(bounds) = &known.current.spec.scale else { return };
        let (now, limits) = (self.now, self.limits);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let there = seen.tally.fresh + seen.tally.held;
        let Some(elastic) = &mut seen.elastic else { return };
        if elastic.take_in(now, bounds, there, limits) {
            let reason = elastic.reason.clone();
            self.tell(EventKind::Scaled, About::app(app), reason);
        }
    }

    /// Each agent whose allowances changed in this step hears of all that stand.
    pub fn send_allowances(&mut self) {
        let fence = self.world.fence;
        for node in std::mem::take(&mut self.world.promises_changed) {
            let Some(seen) = self.world.node_mut(node) else { continue };
            let standing = seen.promises.values().filter(|promise| promise.over.is_none());
            let allowances = standing.map(|promise| promise.allowance).collect();
            let Some(session) = seen.session.as_mut().filter(|session| session.live) else { continue };
            session.allowed += 1;
            let (session, version) = (session.id, session.allowed);
            self.effects.push(Effect::Allowances { node, session, fence, version, allowances });
        }
    }
}

impl Scene<'_> {
    fn promises(&self, app: AppId) -> Vec<Promise> {
        let Some(seen) = self.world.apps.get(&app) else { return Vec::new() };
        let of = |(id, node): (&ReplicaId, &NodeId)| self.world.node(*node)?.promises.get(id).copied();
        seen.promised.iter().filter_map(of).collect()
    }

    /// Nodes that shall be able to start the app's first copy: those that ask for it, have room and may run it; the least loaded.
    fn may_start(&self, app: AppId) -> Vec<NodeId> {
        let (Some(known), Some(seen)) = (self.model.apps.get(&app), self.world.apps.get(&app)) else {
            return Vec::new();
        };
        let spec = known.current.spec.as_ref();
        let Scale::Policies(bounds) = &spec.scale else { return Vec::new() };
        let idle = self.wanted(app) == 0 && seen.tally.alive() + seen.tally.held == 0;
        if !idle || !bounds.policies.iter().any(Policy::by_requests) {
            return Vec::new();
        }
        let holds = |node: NodeId| self.world.node(node).is_some_and(|seen| holds_for(&seen.promises, app));
        let fits = |node: &NodeId| {
            let room = self.world.node(*node).map(|seen| seen.room()).unwrap_or_default();
            self.out_of_service(*node, spec).is_none()
                && (holds(*node) || spec.resources.fits(&room))
                && !seen.backoff.said_full(*node, self.now)
                && seen.backoff.distrust(*node, self.now) == 0
        };
        let mut able: Vec<NodeId> = seen.requests.ingresses.keys().copied().filter(fits).collect();
        // Whoever has one keeps it: moving it to a node with a little less load gains nothing.
        able.sort_by_key(|node| (!holds(*node), self.rank(*node, 0, 0)));
        able.truncate(self.limits.allowances_most.min(bounds.max) as usize);
        able
    }
}

fn holds_for(promises: &BTreeMap<ReplicaId, Promise>, app: AppId) -> bool {
    promises.values().any(|promise| promise.allowance.app == app && promise.over.is_none())
}
