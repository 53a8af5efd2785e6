//! Hello and reports: what the agent says of its copies goes into the picture. An order's resources stay set aside until a
//! heartbeat acknowledges the order, whatever became of it.

use std::collections::BTreeSet;

use super::replica::{Cause, Placed, Replica, Retire, Seen, Sight, Slot, Stage, Standing};
use crate::effect::{Effect, EventKind};
use crate::ids::{AppId, NodeId, OrderSequence, ReplicaId, SessionId};
use crate::input::{
    Activity, Ended, Exit, Lifecycle, NodeFacts, NodeUse, OrderRefusal, RefusedOrder, ReplicaReport, Report,
};
use crate::plan::allow::ALLOWANCE;
use crate::reason::Reason;
use crate::turn::{About, Turn};
use crate::units::{Millis, Resources};

impl Turn<'_> {
    /// The agent persisted our fence and told all it has.
    pub fn hello(
        &mut self,
        node: NodeId,
        session: SessionId,
        facts: NodeFacts,
        (inventory, remembered): (Vec<ReplicaReport>, Vec<ReplicaReport>),
    ) {
        let now = self.now;
        let Some(seen) = self.world.node_mut(node) else { return };
        let Some(open) = seen.session.as_mut().filter(|open| open.id == session && !open.live) else { return };
        open.live = true;
        let before = std::mem::replace(&mut seen.facts, facts).boot;
        let rebooted = !before.is_empty() && before != seen.facts.boot;
        // Until the first heartbeat the sum of the copies' own use is the best that is known of the node's.
        let used = inventory.iter().filter(|report| report.ended.is_none()).map(|report| report.used);
        seen.measured = NodeUse { used: used.fold(Resources::default(), |sum, next| sum + next), ..NodeUse::default() };
        seen.measured_at = Some(now);
        self.rise(node);
        self.begin_ingress(node, session);
        let accounted = self.world.accounted;
        self.world.note_accounted();
        let all_are_now = self.world.accounted && !accounted;
        let told: BTreeSet<ReplicaId> = inventory.iter().map(|report| report.id).collect();
        if rebooted {
            self.tell_reboot(node, &before);
        }
        self.forget_except(node, &told, not_in_inventory(rebooted));
        for mut report in remembered {
            if let Some(end) = report.ended.take() {
                self.remember_report(node, report, end);
            }
        }
        self.take_in(node, session, inventory);
        self.recall_allowances(node);
        self.revise_node(node);
        for slot in self.copies_on(node) {
            let replica = self.world.replicas.at(slot);
            if replica.seen.parked && replica.retire.is_none() {
                self.resume_retirement(slot);
            }
        }
        // Once nothing can hide any more, every app may start what it held back. Else only who has copies here is concerned: 10,000
        // nodes that say hello to a new leader do not plan all apps 10,000 times. (What waits for room hears of it by itself.)
        if all_are_now {
            self.plan_all();
        }
        let here: Vec<AppId> = self.copies_on(node).iter().map(|slot| self.world.replicas.at(*slot).app).collect();
        self.world.dirty.extend(here);
    }

    /// A heartbeat, or news.
    pub fn report(&mut self, node: NodeId, session: SessionId, report: Report) {
        if !self.speaks(node, session) {
            return;
        }
        let now = self.now;
        let Some(seen) = self.world.node_mut(node) else { return };
        seen.heard = now;
        let heartbeat = report.load.is_some();
        if let Some(measured) = report.load {
            seen.measured = measured;
            seen.measured_at = Some(crate::time::Instant(now.0.saturating_sub(measured.age.0)));
        }
        let was_late = std::mem::replace(&mut seen.late, false);
        if let Some(open) = seen.session.as_mut() {
            open.acknowledged = open.acknowledged.max(report.acknowledged);
        }
        if heartbeat || was_late {
            self.world.touch_figures(node);
        }
        let allowed = report.allowed;
        for refused in report.refused {
            self.refused(node, refused);
        }
        if heartbeat {
            self.ingress_heard(node);
            self.settle_reservations(node, report.acknowledged, &report.replicas);
        }
        self.take_in(node, session, report.replicas);
        self.allowances_heard(node, allowed);
    }

    fn take_in(&mut self, node: NodeId, session: SessionId, reports: Vec<ReplicaReport>) {
        let mut ended = Vec::new();
        for mut report in reports {
            if let Some(end) = report.ended.take() {
                ended.push(report.id);
                self.take_end(node, report, end);
            } else {
                self.merge(node, report);
            }
        }
        if !ended.is_empty() {
            self.effects.push(Effect::Acknowledge { node, session, ended });
        }
    }

    /// A heartbeat names every copy. What it does not name, although it has taken in the order, is not there.
    fn settle_reservations(&mut self, node: NodeId, acknowledged: OrderSequence, reports: &[ReplicaReport]) {
        let Some(seen) = self.world.node(node) else { return };
        let named = reports.iter().filter(|report| seen.replicas.contains_key(&report.id)).count();
        if named == seen.replicas.len() {
            return;
        }
        let told: BTreeSet<ReplicaId> = reports.iter().map(|report| report.id).collect();
        let settled = |slot: &Slot| self.world.replicas.at(*slot).ordered.is_none_or(|order| order <= acknowledged);
        let unnamed = seen.replicas.iter().filter(|(id, slot)| !told.contains(id) && settled(slot));
        let gone: Vec<Slot> = unnamed.map(|(_, slot)| *slot).collect();
        for slot in gone {
            let why = Reason::new("vanished", "the node's heartbeat does not name it any more");
            self.finish(slot, Exit::Unknown, why, false);
        }
    }

    fn forget_except(&mut self, node: NodeId, told: &BTreeSet<ReplicaId>, why: Reason) {
        for slot in self.copies_on(node) {
            let id = self.world.replicas.at(slot).id;
            if told.contains(&id) {
                self.world.change(slot, |replica| {
                    replica.retire = None;
                    replica.ordered = None;
                });
            } else {
                self.finish(slot, Exit::Unknown, why.clone(), false);
            }
        }
    }

    fn merge(&mut self, node: NodeId, report: ReplicaReport) {
        // Its node's own list is short and at hand; the list of all is neither.
        let here = self.world.node(node).and_then(|seen| seen.replicas.get(&report.id)).copied();
        match here.or_else(|| self.world.replicas.find(report.id)) {
            Some(slot) if self.world.replicas.at(slot).node == node => self.update(slot, report),
            Some(_) => {
                let about = About::replica(report.app, report.id, node);
                let text = format!("{} is reported by two nodes; only the first report counts", report.id);
                self.tell(EventKind::Orphan, about, Reason::new("claimed_twice", text));
            }
            None => self.adopt(node, report),
        }
    }

    /// The common case, once per copy and heartbeat: mostly nothing but use has changed.
    fn update(&mut self, slot: Slot, report: ReplicaReport) {
        let before = self.world.replicas.at(slot);
        let (lifecycle, ready, attempt) = (before.seen.lifecycle, before.seen.ready, before.seen.attempt);
        let awaits = before.retire.as_ref().map(|retire| (retire.stage, retire.order));
        let was_idle = matches!(before.seen.activity, Activity::Idle { .. });
        let is_idle = matches!(report.activity, Activity::Idle { .. });
        let about = About::replica(before.app, before.id, before.node);
        let app = before.app;
        let advanced = report.attempt > attempt;
        let next = if advanced { report.lifecycle } else { report.lifecycle.max(lifecycle) };
        // An order of another session says nothing about this one's: their sequences begin anew.
        let session = self.world.node(about.node.unwrap_or_default()).and_then(|seen| seen.session.as_ref());
        let of_this_session = session.is_some_and(|open| open.id == report.obeyed.session);
        let ours = of_this_session && report.obeyed.fence == self.world.fence;
        let obeyed = if ours { report.obeyed.sequence } else { OrderSequence(0) };
        let (parked, now_ready, now_attempt) = (report.parked, report.ready, report.attempt);
        let last_exit = report.last_exit;
        let unhealthy =
            Some(&report.unhealthy).filter(|why| !why.is_empty() && **why != before.seen.unhealthy).cloned();
        let still_unhealthy = report.unhealthy.clone();
        self.world.change(slot, |replica| {
            write_seen(&mut replica.seen, report, next);
            replica.ordered = None;
            if let Some(retire) = &mut replica.retire
                && retire.stage == Stage::Parking
                && parked
                && obeyed >= retire.order
            {
                retire.stage = Stage::Parked;
            }
        });
        if awaits.is_some_and(|(stage, _)| stage == Stage::Parking && parked || was_idle != is_idle) {
            self.world.dirty.insert(app);
        }
        if advanced && attempt > 0 {
            let text = match last_exit {
                Some(exit) if !still_unhealthy.is_empty() => {
                    format!("attempt {now_attempt}: {still_unhealthy}; the end: {}", exit_text(exit))
                }
                Some(exit) => format!("attempt {now_attempt}; the last end seen: {}", exit_text(exit)),
                None => format!("attempt {now_attempt} after a crash"),
            };
            self.tell(EventKind::Restarted, about, Reason::new("crashed", text));
        }
        if lifecycle < Lifecycle::Running && next == Lifecycle::Running {
            self.tell(EventKind::Started, about, Reason::new("started", "its process runs"));
        }
        if let Some(why) = unhealthy {
            self.tell(EventKind::Unhealthy, about, Reason::new("unhealthy", why));
        }
        if ready != now_ready && next < Lifecycle::Stopping {
            let (kind, text) = if now_ready {
                (EventKind::Ready, "it answers")
            } else {
                (EventKind::Unready, "it does not answer any more")
            };
            self.tell(kind, about, Reason::new(if now_ready { "ready" } else { "unready" }, text));
        }
    }

    /// A copy that this leader did not order, or had given up.
    fn adopt(&mut self, node: NodeId, mut report: ReplicaReport) {
        let standing = self.scene().standing(report.app, report.revision);
        let reason = std::mem::take(&mut report.reason);
        let by_allowance = reason.code == ALLOWANCE && !report.parked;
        let about = About::replica(report.app, report.id, node);
        let mut replica = Replica {
            id: report.id,
            app: report.app,
            revision: report.revision,
            digest: report.digest,
            node,
            resources: report.resources,
            placed: Placed::Told(Box::new(reason)),
            since: self.now,
            ordered: None,
            standing,
            fresh: self.scene().is_fresh(report.app, report.revision, node) && standing == Standing::Known,
            sight: Sight::Clear,
            seen: Seen::default(),
            retire: None,
        };
        let lifecycle = report.lifecycle;
        write_seen(&mut replica.seen, report, lifecycle);
        let (id, app) = (replica.id, replica.app);
        self.world.insert(replica);
        self.world.dirty.insert(app);
        if by_allowance && standing == Standing::Known {
            self.allowance_used(app);
        }
        if standing == Standing::Orphan {
            let text = format!(
                "{id} runs an app or revision that this cluster has never heard of; it is counted and left alone"
            );
            self.tell(EventKind::Orphan, about, Reason::new("orphan", text));
        }
    }

    /// It was parked by an earlier leader: still surplus, or taken back, as the count will tell.
    fn resume_retirement(&mut self, slot: Slot) {
        let replica = self.world.replicas.at(slot);
        if replica.seen.lifecycle >= Lifecycle::Stopping || replica.standing == Standing::Orphan {
            return;
        }
        let app = replica.app;
        let patience = self.scene().terms_of(app).1;
        let retire = Retire {
            cause: Cause::Surplus,
            reason: Reason::new("parked_before", "it was parked before this connection"),
            since: self.now,
            deadline: self.now + patience,
            stage: Stage::Parked,
            unanswered: false,
            order: OrderSequence(0),
        };
        self.world.change(slot, |replica| replica.retire = Some(Box::new(retire)));
        self.wake(app, self.now + patience);
    }

    fn take_end(&mut self, node: NodeId, report: ReplicaReport, end: Ended) {
        match self.world.replicas.find(report.id) {
            Some(slot) if self.world.replicas.at(slot).node == node => {
                // Whoever ordered it may have forgotten: a retirement ends with the connection, the agent's journal does not.
                let retired = end.wanted || self.world.replicas.at(slot).retire.is_some();
                let by_itself = !retired && end.exit != Exit::Unknown;
                self.finish_told(slot, end, by_itself);
            }
            Some(_) => {}
            None => self.remember_report(node, report, end),
        }
    }

    fn tell_reboot(&mut self, node: NodeId, before: &str) {
        let now = self.world.node(node).map(|seen| seen.facts.boot.as_str()).unwrap_or_default();
        let name = self.scene().node_name(node);
        let text = format!("the server of node {name} was restarted (boot {before}, now {now}): its copies are gone");
        self.tell(EventKind::NodeReturned, About::node(node), Reason::new("host_rebooted", text));
    }

    fn refused(&mut self, node: NodeId, refused: RefusedOrder) {
        let Some(slot) = self.world.replicas.find(refused.replica) else { return };
        let replica = self.world.replicas.at(slot);
        if replica.node != node {
            return;
        }
        let app = replica.app;
        let about = About::replica(app, replica.id, node);
        let starting = replica.ordered.is_some_and(|order| order == refused.sequence);
        let retiring = replica.retire.as_ref().is_some_and(|retire| retire.order == refused.sequence);
        let code = refusal_code(refused.why);
        self.tell(EventKind::Refused, about, Reason::new(code, refused.text.clone()));
        let why = Reason::new(code, refused.text);
        match refused.why {
            OrderRefusal::Fenced => {}
            OrderRefusal::UnknownReplica => self.finish(slot, Exit::Unknown, why, false),
            OrderRefusal::Busy if retiring => {
                self.world.change(slot, |replica| {
                    if let Some(retire) = &mut replica.retire {
                        retire.stage = Stage::Parked;
                    }
                    if matches!(replica.seen.activity, Activity::Idle { .. }) {
                        replica.seen.activity = Activity::Busy { requests: 0 };
                    }
                });
                self.world.dirty.insert(app);
            }
            OrderRefusal::NoRoom if starting => {
                self.note_no_room(app, node);
                self.finish(slot, Exit::NotStarted, why, false);
            }
            OrderRefusal::NoImage | OrderRefusal::Failed if starting => self.finish(slot, Exit::NotStarted, why, true),
            _ => {}
        }
    }
}

/// Why a copy of a node is gone that its agent does not know any more.
fn not_in_inventory(rebooted: bool) -> Reason {
    match rebooted {
        true => Reason::new("host_rebooted", "its server was restarted, and nothing of it is left"),
        false => Reason::new(
            "not_in_inventory",
            "the agent's inventory does not hold it: its order was lost with the connection, or its state was",
        ),
    }
}

fn write_seen(seen: &mut Seen, report: ReplicaReport, lifecycle: Lifecycle) {
    seen.attempt = report.attempt;
    seen.last_exit = report.last_exit;
    seen.lifecycle = lifecycle;
    seen.ready = report.ready && lifecycle < Lifecycle::Stopping;
    seen.ever_ready |= report.ready;
    seen.unhealthy = report.unhealthy;
    seen.parked = report.parked;
    seen.activity = report.activity;
    seen.requests = if let Activity::Busy { requests } = report.activity { requests } else { 0 };
    seen.address = report.address;
    seen.running_for = if lifecycle < Lifecycle::Running { Millis(0) } else { report.running_for };
    seen.used = report.used;
}

/// How it ended, in words.
pub fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::OutOfMemory => "ended by the kernel for memory".to_owned(),
        Exit::NotStarted => "never started".to_owned(),
        Exit::Unknown => "end not seen".to_owned(),
    }
}

fn refusal_code(why: OrderRefusal) -> &'static str {
    match why {
        OrderRefusal::Busy => "busy",
        OrderRefusal::NoRoom => "no_room",
        OrderRefusal::UnknownReplica => "unknown_replica",
        OrderRefusal::NoImage => "no_image",
        OrderRefusal::Failed => "failed",
        OrderRefusal::Fenced => "fenced",
    }
}
