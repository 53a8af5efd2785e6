//! Which copies end, and how gently: park -> the owner confirms -> stop if idle -> it may refuse -> ... -> the deadline.

use std::cmp::Reverse;

use crate::effect::{Action, EventKind};
use crate::ids::{AppId, NodeId, OrderSequence, ReplicaId};
use crate::input::{Activity, Lifecycle};
use crate::limits::Planted;
use crate::model::command::NodeState;
use crate::observe::replica::{Cause, Replica, Retire, Sight, Slot, Stage, Standing};
use crate::reason::Reason;
use crate::time::Instant;
use crate::turn::{About, Turn};
use crate::units::Permille;

/// Who goes first. Compared field by field, in this order; smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Victim {
    /// How little its end would hurt.
    pub hurt: Hurt,
    /// Among equals the reverse of packing order: requests go to the oldest, so the newest goes first.
    pub age: Reverse<ReplicaId>,
    /// Then the most loaded node. (Ids are unique; this field decides between incarnations of equal rank only.)
    pub load: Reverse<Permille>,
}

/// How little a copy's end would hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurt {
    /// It never was ready.
    NeverReady,
    /// It is out of rotation already.
    Parked,
    /// It does not answer.
    Unready,
    /// Idle, the longest first; in whole seconds, else nobody would ever be equal.
    Idle(Reverse<u64>),
    /// Working: the fewest requests first.
    Busy(u32),
}

/// How little it would hurt to end this copy.
pub fn hurt(replica: &Replica) -> Hurt {
    let seen = &replica.seen;
    match seen.activity {
        _ if never_answered(replica) => Hurt::NeverReady,
        _ if seen.parked => Hurt::Parked,
        _ if !seen.ready => Hurt::Unready,
        Activity::Idle { length } => Hurt::Idle(Reverse(length.0 / 1_000)),
        Activity::Busy { requests } => Hurt::Busy(requests),
    }
}

fn never_answered(replica: &Replica) -> bool {
    !replica.seen.ever_ready && !replica.seen.ready
}

impl Turn<'_> {
    /// Retires so many of either kind, as far as they can be reached.
    pub fn retire_surplus(&mut self, app: AppId, fresh: u32, stale: u32) {
        for (count, fresh) in [(fresh, true), (stale, false)] {
            if count == 0 {
                continue;
            }
            for slot in self.victims(app, count as usize, fresh) {
                let (cause, reason) = self.retire_reason(app, slot, fresh);
                self.retire(slot, cause, reason, None);
            }
        }
    }

    /// The copies that go first.
    fn victims(&self, app: AppId, count: usize, fresh: bool) -> Vec<Slot> {
        let mut ranked: Vec<(Victim, Slot)> = self
            .copies_of(app)
            .filter(|(_, replica)| replica.fresh == fresh && self.may_retire(replica))
            .map(|(slot, replica)| (self.victim(replica), slot))
            .collect();
        if count < ranked.len() {
            ranked.select_nth_unstable(count);
            ranked.truncate(count);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, slot)| slot).collect()
    }

    fn victim(&self, replica: &Replica) -> Victim {
        let load = self.world.node(replica.node).map_or(Permille(0), |seen| seen.load());
        let careless = matches!(self.limits.planted, Planted::RetireNewest | Planted::StopNewest);
        let hurt = if careless { Hurt::NeverReady } else { hurt(replica) };
        Victim { hurt, age: Reverse(replica.id), load: Reverse(load) }
    }

    /// What cannot be seen is never stopped.
    fn may_retire(&self, replica: &Replica) -> bool {
        replica.sight == Sight::Clear
            && replica.retire.is_none()
            && replica.standing != Standing::Orphan
            && replica.seen.lifecycle < Lifecycle::Stopping
    }

    fn copies_of(&self, app: AppId) -> impl Iterator<Item = (Slot, &Replica)> {
        let slots = self.world.apps.get(&app).into_iter().flat_map(|seen| seen.replicas.values());
        slots.map(|slot| (*slot, self.world.replicas.at(*slot)))
    }

    fn retire_reason(&self, app: AppId, slot: Slot, fresh: bool) -> (Cause, Reason) {
        let replica = self.world.replicas.at(slot);
        let state = match hurt(replica) {
            Hurt::NeverReady => "it was never ready".to_owned(),
            Hurt::Parked => "it is parked already".to_owned(),
            Hurt::Unready => "it does not answer".to_owned(),
            Hurt::Idle(Reverse(seconds)) => format!("it has been idle for {seconds} s"),
            Hurt::Busy(requests) => format!("no idle copy is left and it has the fewest requests, {requests}"),
        };
        let (alive, wanted) = (self.world.apps.get(&app).map_or(0, |seen| seen.tally.fresh), self.scene().wanted(app));
        if fresh {
            return (Cause::Surplus, Reason::new("scale_down", format!("{wanted} wanted, {alive} there: {state}")));
        }
        let draining = self.draining(replica.node).is_some();
        if draining {
            let state = if never_answered(replica) { "it was never ready" } else { "another copy took over" };
            let text = format!("node {} is drained and {state}", self.scene().node_name(replica.node));
            return (Cause::Drained, Reason::new("drained", text));
        }
        let number = self.model.apps.get(&app).map_or(0, |known| known.current.number.0);
        let text = format!("revision {number} takes over from revision {}", replica.revision);
        (Cause::Outdated, Reason::new("outdated", text))
    }

    fn draining(&self, node: NodeId) -> Option<Instant> {
        match self.model.nodes.get(&node)?.state {
            NodeState::Draining { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// Begins a retirement. A copy that never answered is stopped without being parked, if its owner still finds it so: it may
    /// become ready while the order is on its way.
    fn retire(&mut self, slot: Slot, cause: Cause, reason: Reason, deadline: Option<Instant>) {
        let replica = self.world.replicas.at(slot);
        let (id, node, app) = (replica.id, replica.node, replica.app);
        let unanswered = never_answered(replica);
        let (grace, patience) = self.scene().terms_of(app);
        let deadline = deadline.unwrap_or(self.now + patience);
        let at_once = self.limits.planted == Planted::StopNewest;
        let (stage, action) = if deadline <= self.now || at_once {
            (Stage::Stopping, Action::Stop { only_if_idle: false, grace })
        } else if unanswered {
            (Stage::StoppingIfIdle, Action::Stop { only_if_idle: true, grace })
        } else {
            (Stage::Parking, Action::Park)
        };
        let Some(order) = self.order(node, id, action, reason.clone()) else { return };
        let kind = if stage == Stage::Parking { EventKind::Parked } else { EventKind::Stopping };
        self.tell(kind, About::replica(app, id, node), reason.clone());
        let retire = Retire { cause, reason, since: self.now, deadline, stage, unanswered, order };
        self.world.change(slot, |replica| replica.retire = Some(Box::new(retire)));
        self.wake(app, deadline);
    }

    /// Carries every retirement of the app on by what was heard since.
    pub fn advance_retirements(&mut self, app: AppId) {
        let Some(seen) = self.world.apps.get(&app).filter(|seen| !seen.retiring.is_empty()) else { return };
        let slots: Vec<Slot> = seen.retiring.iter().filter_map(|id| seen.replicas.get(id)).copied().collect();
        for slot in slots {
            self.advance(slot);
        }
    }

    fn advance(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let Some(retire) = &replica.retire else { return };
        if replica.sight != Sight::Clear || replica.seen.lifecycle >= Lifecycle::Stopping {
            return;
        }
        let idle = matches!(replica.seen.activity, Activity::Idle { .. });
        match retire.stage {
            Stage::Stopping => {}
            _ if self.now >= retire.deadline => self.stop_at_deadline(slot),
            Stage::Parking | Stage::StoppingIfIdle => {}
            Stage::Parked if !replica.seen.parked && never_answered(replica) => self.stop_unanswered(slot),
            Stage::Parked if !replica.seen.parked => self.park(slot),
            Stage::Parked if idle => self.stop_if_idle(slot),
            Stage::Parked => self.swap_busy(slot),
        }
    }

    fn stop_if_idle(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let (id, node, app) = (replica.id, replica.node, replica.app);
        let Some(reason) = replica.retire.as_ref().map(|retire| retire.reason.clone()) else { return };
        let grace = self.scene().terms_of(app).0;
        if let Some(order) = self.order(node, id, Action::Stop { only_if_idle: true, grace }, reason) {
            self.set_stage(slot, Stage::StoppingIfIdle, order);
        }
    }

    /// Its owner found it working, on its own start: nobody waits for that.
    fn stop_unanswered(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let (id, node, app) = (replica.id, replica.node, replica.app);
        let Some(reason) = replica.retire.as_ref().map(|retire| retire.reason.clone()) else { return };
        let grace = self.scene().terms_of(app).0;
        if let Some(order) = self.order(node, id, Action::Stop { only_if_idle: false, grace }, reason) {
            self.set_stage(slot, Stage::Stopping, order);
        }
    }

    /// It answers by now: the usual way.
    fn park(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let (id, node) = (replica.id, replica.node);
        let Some(reason) = replica.retire.as_ref().map(|retire| retire.reason.clone()) else { return };
        if let Some(order) = self.order(node, id, Action::Park, reason) {
            self.set_stage(slot, Stage::Parking, order);
            self.world.change(slot, |replica| {
                if let Some(retire) = &mut replica.retire {
                    retire.unanswered = false;
                }
            });
        }
    }

    fn stop_at_deadline(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let (id, node, app) = (replica.id, replica.node, replica.app);
        let Some(retire) = &replica.retire else { return };
        let text = format!("it did not go idle within {}; {}", self.now - retire.since, retire.reason.text);
        let reason = Reason::new("drain_deadline", text);
        let grace = self.scene().terms_of(app).0;
        if let Some(order) = self.order(node, id, Action::Stop { only_if_idle: false, grace }, reason.clone()) {
            self.tell(EventKind::Stopping, About::replica(app, id, node), reason.clone());
            self.world.change(slot, |replica| {
                if let Some(retire) = &mut replica.retire {
                    retire.reason = reason;
                }
            });
            self.set_stage(slot, Stage::Stopping, order);
        }
    }

    fn set_stage(&mut self, slot: Slot, stage: Stage, order: OrderSequence) {
        self.world.change(slot, |replica| {
            if let Some(retire) = &mut replica.retire {
                (retire.stage, retire.order) = (stage, order);
            }
        });
    }

    /// A parked copy that works on goes back into rotation when an idle one can go instead; else it may finish until its deadline.
    fn swap_busy(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        let surplus = replica.retire.as_ref().is_some_and(|retire| retire.cause == Cause::Surplus);
        let app = replica.app;
        let idle = |other: &Replica| matches!(hurt(other), Hurt::Idle(_) | Hurt::NeverReady | Hurt::Unready);
        let another = self.copies_of(app).any(|(_, other)| other.fresh && self.may_retire(other) && idle(other));
        if surplus && replica.fresh && another {
            let reason = Reason::new("busy", "it works again, and an idle copy can end instead");
            self.unpark_one(slot, reason);
        }
    }

    /// A takeover without room for even one more copy: when all new ones are ready and nothing is on its way out, one old copy
    /// goes first, from a node where a new one would then fit. Never more than one copy is missing because of this.
    pub fn make_way(&mut self, app: AppId) {
        let (Some(seen), Some(known)) = (self.world.apps.get(&app), self.model.apps.get(&app)) else { return };
        let tally = seen.tally;
        let still = tally.fresh == tally.fresh_ready && tally.retiring + tally.ending + tally.held == 0;
        let paid_back = seen.made_way.is_none_or(|fresh| tally.fresh > fresh);
        if tally.stale == 0 || seen.unplaced.is_none() || !still || !paid_back {
            return;
        }
        let (number, spec) = (known.current.number, known.current.spec.as_ref());
        let mut classes = std::mem::take(&mut self.world.classes);
        let scene = self.scene();
        let (key, class) = classes.take(&scene, spec, None);
        let request = scene.request(app, spec, &class, false);
        let old = self.copies_of(app).filter(|(_, replica)| !replica.fresh && self.may_retire(replica));
        let able = old.filter(|(_, replica)| scene.fits_instead(replica, &request, &class));
        let first = able.map(|(slot, replica)| (self.victim(replica), slot)).min();
        classes.keep(key, class);
        self.world.classes = classes;
        if let Some((_, slot)) = first {
            let text = format!("revision {number} takes over, and there is no room beside the old copies");
            self.retire(slot, Cause::Outdated, Reason::new("make_way", text), None);
            if let Some(seen) = self.world.apps.get_mut(&app) {
                seen.made_way = Some(tally.fresh);
            }
        }
    }

    /// How many retirements returning demand can take back.
    pub fn unparkable(&self, app: AppId) -> u32 {
        let Some(seen) = self.world.apps.get(&app) else { return 0 };
        let slots = seen.retiring.iter().filter_map(|id| seen.replicas.get(id));
        let count = slots.filter(|slot| self.may_unpark(self.world.replicas.at(**slot))).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn may_unpark(&self, replica: &Replica) -> bool {
        let early = |retire: &Retire| retire.cause == Cause::Surplus && retire.stage <= Stage::Parked;
        replica.fresh
            && replica.sight == Sight::Clear
            && replica.seen.lifecycle < Lifecycle::Stopping
            && replica.retire.as_deref().is_some_and(early)
    }

    /// Takes copies back into rotation, the oldest first; answers how many.
    pub fn unpark(&mut self, app: AppId, count: u32) -> u32 {
        let Some(seen) = self.world.apps.get(&app).filter(|_| count > 0) else { return 0 };
        let slots: Vec<Slot> = seen.retiring.iter().filter_map(|id| seen.replicas.get(id)).copied().collect();
        let mut done = 0;
        for slot in slots {
            if done < count && self.may_unpark(self.world.replicas.at(slot)) {
                let text = format!("{} wanted again", self.scene().wanted(app));
                done += u32::from(self.unpark_one(slot, Reason::new("demand_returned", text)));
            }
        }
        done
    }

    fn unpark_one(&mut self, slot: Slot, reason: Reason) -> bool {
        let replica = self.world.replicas.at(slot);
        let (id, node, app) = (replica.id, replica.node, replica.app);
        let ordered = self.order(node, id, Action::Unpark, reason.clone()).is_some();
        if ordered {
            self.world.change(slot, |replica| {
                replica.retire = None;
                // The order is on its way; until it is confirmed the copy counts as supply, as a starting one does.
                replica.seen.parked = false;
            });
            self.tell(EventKind::Unparked, About::replica(app, id, node), reason);
        }
        ordered
    }

    /// A removed app: every copy that the model once knew is stopped by explicit order, gently.
    pub fn plan_removed(&mut self, app: AppId) {
        let Some(seen) = self.world.apps.get(&app) else { return };
        let slots: Vec<Slot> = seen.replicas.values().copied().collect();
        let name = seen.name.clone();
        for slot in slots {
            let replica = self.world.replicas.at(slot);
            if replica.standing == Standing::Removed && self.may_retire(replica) {
                let reason = Reason::new("app_removed", format!("app {name} was removed"));
                self.retire(slot, Cause::Removed, reason, None);
            }
        }
        self.world.unplaced.remove(&app);
        self.advance_retirements(app);
    }

    /// Copies on a node whose drain has run out of patience stop all the same.
    pub fn expire_drains(&mut self, app: AppId) {
        let due = |replica: &Replica| self.draining(replica.node).is_some_and(|deadline| self.now >= deadline);
        let Some(seen) = self.world.apps.get(&app).filter(|seen| seen.tally.stale > 0 || !seen.retiring.is_empty())
        else {
            return;
        };
        let late: Vec<Slot> =
            seen.replicas.values().copied().filter(|slot| due(self.world.replicas.at(*slot))).collect();
        for slot in late {
            let replica = self.world.replicas.at(slot);
            let now = self.now;
            if replica.retire.is_some() {
                self.world.change(slot, |replica| {
                    if let Some(retire) = &mut replica.retire {
                        retire.deadline = retire.deadline.min(now);
                    }
                });
            } else if self.may_retire(replica) {
                let text = format!("the drain of node {} ran out of time", self.scene().node_name(replica.node));
                self.retire(slot, Cause::Drained, Reason::new("drain_deadline", text), Some(now));
            }
        }
    }
}
