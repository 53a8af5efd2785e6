//! The model changed: what does it mean for the copies that are there?

use crate::autoscale::Elasticity;
use crate::effect::{Action, Effect, EventKind};
use crate::ids::{AppId, NodeId, RevisionNumber};
use crate::input::{Exit, Lifecycle};
use crate::model::command::{Change, NodeState, Outcome};
use crate::model::spec::Scale;
use crate::observe::replica::{Slot, Standing};
use crate::reason::Reason;
use crate::turn::{About, Scene, Turn};

impl Turn<'_> {
    /// This member has just begun to lead.
    pub fn begin(&mut self) {
        let text = format!("this member leads with fence {}", self.world.fence);
        self.tell(EventKind::Leader, About::default(), Reason::new("leads", text));
        // A new leader may have been cut off itself: replacement begins slowly.
        self.world.brake.until = self.now + self.limits.brake_hold;
        self.recall();
        self.revise_all();
    }

    /// Everything may have changed.
    pub fn revise_all(&mut self) {
        let gone: Vec<NodeId> = self.world.nodes().map(|(id, _)| id).collect();
        for node in gone.into_iter().chain(self.model.nodes.keys().copied()) {
            self.revise_node(node);
        }
        let known = self.model.apps.keys().chain(self.world.apps.keys());
        let apps: Vec<AppId> = known.copied().collect();
        for app in apps {
            self.revise_app(app);
            if let (Some(known), Some(seen)) = (self.model.apps.get(&app), self.world.apps.get_mut(&app)) {
                seen.assumed = seen.assumed.max(known.wanted);
            }
        }
    }

    /// A command was applied: only what it concerns is looked at.
    pub fn revise(&mut self, change: &Change, outcome: &Outcome) {
        match outcome {
            // A count concerns no copy's standing: nothing but the plan changes.
            Outcome::App { app, .. } if matches!(change, Change::ScaleApp { .. }) => {
                self.world.dirty.insert(*app);
            }
            Outcome::App { app, changed, .. } if *changed => self.revise_app(*app),
            Outcome::Node { node } => self.revise_node(*node),
            Outcome::Done if matches!(change, Change::FoundCluster { .. } | Change::Resume) => {
                self.world.fence.incarnation = self.model.incarnation;
                self.plan_all();
            }
            Outcome::App { .. } | Outcome::Done | Outcome::Refused(_) => {}
        }
    }

    /// One app was declared, changed or removed.
    pub fn revise_app(&mut self, app: AppId) {
        self.world.classes.forget(app);
        let known = self.model.apps.get(&app);
        let now = self.now;
        let seen = self.world.apps.entry(app).or_default();
        if let Some(known) = known {
            let spec = &known.current.spec;
            seen.made_way = None;
            seen.name.clone_from(&spec.name);
            (seen.stop_grace, seen.drain_deadline) = (spec.stop_grace, spec.drain_deadline);
            match &spec.scale {
                Scale::Declared { .. } => seen.elastic = None,
                Scale::Policies(bounds) => {
                    let elastic =
                        seen.elastic.get_or_insert_with(|| Elasticity::begin(known.wanted, &known.counted, now));
                    let bounded = elastic.wanted.clamp(bounds.min, bounds.max);
                    if bounded != elastic.wanted || known.counted.at > elastic.at {
                        // A person moved the bounds after the last decision.
                        (elastic.reason, elastic.at) = (known.counted.why.clone(), known.counted.at);
                    }
                    elastic.wanted = bounded;
                }
            }
            // A new revision deserves a new chance at once.
            if seen.verdict < known.current.runs_since.0 {
                seen.backoff = Default::default();
            }
        }
        let slots: Vec<Slot> = seen.replicas.values().copied().collect();
        slots.into_iter().for_each(|slot| self.revise_copy(slot));
        self.revise_routes(app);
        self.world.dirty.insert(app);
    }

    fn revise_copy(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let (app, revision, node) = (replica.app, replica.revision, replica.node);
        let standing = self.scene().standing(app, revision);
        let fresh = standing == Standing::Known && self.scene().is_fresh(app, revision, node);
        self.world.change(slot, |replica| (replica.standing, replica.fresh) = (standing, fresh));
    }

    /// One node joined, changed or left.
    pub fn revise_node(&mut self, node: NodeId) {
        match self.model.nodes.get(&node).map(|known| known.state) {
            None => self.node_left(node),
            Some(state) => {
                if self.world.node(node).is_none() {
                    self.begin_to_watch(node);
                }
                for slot in self.copies_on(node) {
                    self.revise_copy(slot);
                    if let NodeState::Draining { deadline } = state {
                        self.wake(self.world.replicas.at(slot).app, deadline);
                    }
                }
                self.world.touch(node);
                self.world.room_changed = true;
            }
        }
    }

    fn node_left(&mut self, node: NodeId) {
        let name = self.scene().node_name(node).into_owned();
        let reason = Reason::new("node_removed", format!("its node {name} was removed from the cluster"));
        self.stop_all_on(node, &reason);
        let Some(seen) = self.world.node_mut(node) else { return };
        let newcomer = seen.newcomer.take().and_then(|newcomer| newcomer.session);
        let open = seen.session.take().map(|session| session.id);
        self.ingress_gone(node);
        self.release_promises(node);
        for slot in self.copies_on(node) {
            self.finish(slot, Exit::Unknown, reason.clone(), false);
        }
        self.world.forget_node(node);
        let why = self.scene().not_a_member(node);
        for session in open.into_iter().chain(newcomer) {
            self.effects.push(Effect::CloseSession { node, session, why: why.clone(), retry: false });
        }
    }

    /// The last orders of a node that can still be reached. They leave before its session ends.
    fn stop_all_on(&mut self, node: NodeId, reason: &Reason) {
        for slot in self.copies_on(node) {
            let replica = self.world.replicas.at(slot);
            if replica.standing != Standing::Orphan && replica.seen.lifecycle < Lifecycle::Stopping {
                let (id, grace) = (replica.id, self.scene().terms_of(replica.app).0);
                // None when it cannot be reached: then its copies run until its agent joins again.
                self.order(node, id, Action::Stop { only_if_idle: false, grace }, reason.clone());
            }
        }
        self.send_orders();
    }
}

impl Scene<'_> {
    /// Does the cluster know it?
    pub fn standing(&self, app: AppId, revision: RevisionNumber) -> Standing {
        match self.model.apps.get(&app) {
            Some(known) if revision <= known.current.number => Standing::Known,
            None if app <= self.model.last_app => Standing::Removed,
            _ => Standing::Orphan,
        }
    }

    /// Does a copy run what is wanted, where it may stay?
    pub fn is_fresh(&self, app: AppId, revision: RevisionNumber, node: NodeId) -> bool {
        let current = self.model.apps.get(&app).is_some_and(|known| revision >= known.current.runs_since);
        let state = self.model.nodes.get(&node).map(|known| known.state);
        current && !matches!(state, Some(NodeState::Draining { .. }))
    }
}
