//! Up, unknown, lost, returned. A new leader holds every node for unknown until it reports or the grace ends.

use super::node::{Liveness, NodeSeen};
use super::replica::{Replica, Sight, Slot};
use super::world::Timer;
use crate::effect::EventKind;
use crate::ids::NodeId;
use crate::limits::Limits;
use crate::model::spec::WhenCutOff;
use crate::reason::Reason;
use crate::time::Instant;
use crate::turn::{About, Turn};
use crate::units::Millis;

impl Turn<'_> {
    /// A node of the model that is not watched yet.
    pub fn begin_to_watch(&mut self, node: NodeId) {
        let name = self.model.nodes.get(&node).map_or("", |known| &known.name);
        self.world.names.set(node, name);
        self.world.add_node(node, NodeSeen::unheard(self.now));
        self.watch(node);
    }

    /// Looks at the node again when it could be lost.
    pub fn watch(&mut self, node: NodeId) {
        let Some(seen) = self.world.node(node) else { return };
        if seen.liveness != Liveness::Lost {
            let lost = patience_ends(seen, self.world.since, self.limits);
            let late = seen.heard + self.limits.node_late;
            let at = if late > self.now { lost.min(late) } else { lost };
            self.world.timers.insert((at, Timer::Node(node)));
        }
    }

    /// The node's timer rang: it was heard meanwhile, or it is lost.
    pub fn look_at(&mut self, node: NodeId) {
        self.admit_patient(node);
        let Some(seen) = self.world.node(node) else { return };
        if seen.liveness == Liveness::Lost {
            return;
        }
        if self.now < patience_ends(seen, self.world.since, self.limits) {
            let late = self.now >= seen.heard + self.limits.node_late;
            let now = self.now;
            if let Some(seen) = self.world.node_mut(node) {
                seen.late = late;
                if now >= seen.flaps.1 {
                    seen.flaps.0 = 0;
                }
            }
            self.world.touch(node);
            self.watch(node);
            return;
        }
        let silence = self.now - seen.heard;
        let session = seen.session.as_ref().map(|session| session.id);
        self.lose(node, silence);
        if let Some(session) = session {
            let why = format!("nothing was heard for {silence}; connect again");
            self.effects.push(crate::effect::Effect::CloseSession { node, session, why, retry: true });
        }
    }

    fn lose(&mut self, node: NodeId, silence: Millis) {
        let Some(seen) = self.world.node_mut(node) else { return };
        seen.liveness = Liveness::Lost;
        seen.session = None;
        let (heard, count) = (seen.heard, seen.replicas.len());
        let copies = crate::reason::count(count as u64, "copy", "copies");
        let text = format!("node {} was not heard for {silence}; {copies} on it", self.scene().node_name(node));
        self.tell(EventKind::NodeLost, About::node(node), Reason::new("node_lost", text));
        self.ingress_gone(node);
        self.release_promises(node);
        self.world.touch(node);
        self.world.note_accounted();
        self.note_loss();
        for slot in self.copies_on(node) {
            let until = self.held_until(self.world.replicas.at(slot), heard);
            let app = self.world.replicas.at(slot).app;
            let sight = until.filter(|until| *until > self.now).map_or(Sight::Lost, Sight::Held);
            self.world.change(slot, |replica| {
                replica.sight = sight;
                replica.retire = None;
            });
            if let Sight::Held(until) = sight {
                self.wake(app, until);
            }
        }
        self.world.room_changed = true;
        // What was assumed to run on unheard nodes is missed now.
        self.plan_all();
    }

    /// `stop_after T`: the agent may run it until T after its last word, and its clock may be a little slow.
    fn held_until(&self, replica: &Replica, heard: Instant) -> Option<Instant> {
        match self.model.apps.get(&replica.app)?.current.spec.when_cut_off {
            WhenCutOff::KeepRunning => None,
            WhenCutOff::StopAfter(length) => Some(heard + length + self.limits.cut_off_margin),
        }
    }

    /// Copies that had to be counted until now are given up.
    pub fn release_held(&mut self, app: crate::ids::AppId) {
        let Some(seen) = self.world.apps.get(&app).filter(|seen| seen.tally.held > 0) else { return };
        let slots: Vec<Slot> = seen.replicas.values().copied().collect();
        for slot in slots {
            if matches!(self.world.replicas.at(slot).sight, Sight::Held(until) if until <= self.now) {
                self.world.change(slot, |replica| replica.sight = Sight::Lost);
            }
        }
    }

    /// The node said hello: it is up. Coming back from a loss counts against it for a while.
    pub fn rise(&mut self, node: NodeId) {
        let (now, limits) = (self.now, self.limits);
        let Some(seen) = self.world.node_mut(node) else { return };
        let before = std::mem::replace(&mut seen.liveness, Liveness::Up);
        seen.heard = now;
        seen.ever_heard = true;
        seen.late = false;
        if before == Liveness::Lost {
            let level = seen.flaps.0 + 1;
            seen.flaps = (level, now + Limits::doubled(limits.flap_backoff, limits.flap_backoff_most, level));
            let text = format!("node {} is back", self.scene().node_name(node));
            self.tell(EventKind::NodeReturned, About::node(node), Reason::new("node_returned", text));
        }
        self.set_sight(node, |_| Sight::Clear);
        self.world.touch(node);
        self.world.room_changed = true;
        self.watch(node);
    }

    /// The slots of a node's copies.
    pub fn copies_on(&self, node: NodeId) -> Vec<Slot> {
        self.world.node(node).map(|seen| seen.replicas.values().copied().collect()).unwrap_or_default()
    }

    /// Changes how well a node's copies are seen.
    pub fn set_sight(&mut self, node: NodeId, next: impl Fn(Sight) -> Sight) {
        for slot in self.copies_on(node) {
            self.world.change(slot, |replica| replica.sight = next(replica.sight));
        }
    }
}

fn patience_ends(seen: &NodeSeen, since: Instant, limits: &Limits) -> Instant {
    let grace = if seen.ever_heard { seen.heard } else { (since + limits.unknown_grace).max(seen.heard) };
    grace.max(seen.heard + limits.node_lost)
}
