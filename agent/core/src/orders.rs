//! The fence, sessions, and what orders change. Absence of an order changes nothing.

use std::collections::BTreeSet;

use crate::activity::Work;
use crate::config::Planted;
use crate::core::{AgentCore, Session};
use crate::effect::Effect;
use crate::health::Probes;
use crate::ids::{AppId, Fence, Obeyed, OrderSequence, ReplicaId, RevisionNumber, SessionId, SpecDigest};
use crate::input::{Action, Order, RunSpec};
use crate::journal::Record;
use crate::replica::{Phase, Replica, Seen, StopAsked, StopWanted, Wanted};
use crate::report::{OrderRefusal, Reason, RefusedOrder, Report};
use crate::units::{Instant, Millis, Resources};

/// A refusal in the making: why, and in words.
type Refused = (OrderRefusal, String);

impl AgentCore {
    pub(crate) fn greeted(&mut self, now: Instant, fence: Fence, session: SessionId) {
        let trusting = self.config.planted == Planted::SkipFenceCheck;
        if fence < self.fence && !trusting {
            let why = format!(
                "the controller greets with fence {fence}, but this agent has obeyed {}: it is not the leader any more, or the cluster was \
                 restored from a backup without a new incarnation",
                self.fence
            );
            return self.effects.push(Effect::CloseSession { session, why });
        }
        let stale = |live: Session| live.fence == fence && live.id >= session;
        if self.session.is_some_and(stale) && !trusting {
            return;
        }
        self.enter(now, fence, session);
    }

    fn enter(&mut self, now: Instant, fence: Fence, session: SessionId) {
        if fence > self.fence && self.config.planted != Planted::LosePersistedFence {
            self.persist(Record::Fence(fence));
        }
        self.fence = fence;
        self.session = Some(Session { fence, id: session, acknowledged: OrderSequence(0), allowed: 0 });
        self.cut_off_since = None;
        for replica in self.replicas.values_mut() {
            replica.wanted.asked = None;
        }
        self.news.clear();
        self.refused.clear();
        self.acknowledge = false;
        let (inventory, remembered) = (self.inventory(now), self.remembered.iter().cloned().collect());
        let allowances = self.asks.allowances.values().cloned().collect();
        self.effects.push(Effect::Hello { fence, session, inventory, remembered, allowances });
        self.drop_unused_specs();
        self.ask_anew();
    }

    /// A new session carries every spec anew, so only those of known replicas and of allowances are kept.
    fn drop_unused_specs(&mut self) {
        let allowed = self.asks.allowances.values().map(|allowance| allowance.digest);
        let used: BTreeSet<SpecDigest> = self.replicas.values().map(|replica| replica.digest).chain(allowed).collect();
        let unused: Vec<SpecDigest> = self.specs.keys().filter(|digest| !used.contains(digest)).copied().collect();
        self.specs.retain(|digest, _| used.contains(digest));
        self.effects.extend(unused.into_iter().map(|digest| Effect::DropSpec { digest }));
    }

    pub(crate) fn disconnected(&mut self, now: Instant, session: SessionId) {
        if self.session() == Some(session) {
            self.begin_cut_off(now);
        }
    }

    pub(crate) fn acknowledged(&mut self, now: Instant, session: SessionId, ended: Vec<ReplicaId>) {
        if self.session() != Some(session) {
            return;
        }
        for id in ended {
            if self.replicas.get(&id).is_some_and(|replica| !replica.live()) {
                self.forget(now, id);
            }
        }
    }

    /// Nothing of it is left here but how and why it ended.
    fn forget(&mut self, now: Instant, id: ReplicaId) {
        let Some(replica) = self.replicas.remove(&id) else { return };
        self.news.remove(&id);
        self.remember(replica.report(now));
        self.persist(Record::Forgotten { replica: id });
        let last = replica.seen.attempt;
        for attempt in last.saturating_sub(1).max(1)..=last {
            self.effects.push(Effect::Forget { replica: id, attempt });
        }
    }

    pub(crate) fn take_orders(
        &mut self,
        now: Instant,
        fence: Fence,
        session: SessionId,
        specs: Vec<(SpecDigest, RunSpec)>,
        orders: Vec<Order>,
    ) {
        let trusting = self.config.planted == Planted::SkipFenceCheck;
        if fence < self.fence && !trusting {
            return self.refuse_fenced(fence, session, &orders);
        }
        let Some(live) = self.session.filter(|live| trusting || (live.fence, live.id) == (fence, session)) else {
            return;
        };
        self.plant_absence(live, &orders);
        for (digest, run) in specs {
            self.learn(digest, run);
        }
        let mut set_aside = self.set_aside();
        for order in orders {
            self.take_order(now, (fence, session), order, &mut set_aside);
        }
        self.acknowledge = true;
    }

    pub(crate) fn learn(&mut self, digest: SpecDigest, run: RunSpec) {
        if !self.specs.contains_key(&digest) {
            self.persist(Record::Spec { digest, run: run.clone() });
            self.specs.insert(digest, run);
        }
    }

    pub(crate) fn set_aside(&self) -> Resources {
        let live = self.replicas.values().filter(|replica| replica.live());
        live.fold(Resources::default(), |sum, replica| sum + replica.run.resources)
    }

    /// Below the fence: nothing is done, and only the one who sent it hears of that.
    fn refuse_fenced(&mut self, fence: Fence, session: SessionId, orders: &[Order]) {
        let text = format!("the order bears fence {fence}, but this agent has obeyed {}", self.fence);
        let refuse = |order: &Order| RefusedOrder {
            sequence: order.sequence,
            replica: order.replica,
            why: OrderRefusal::Fenced,
            text: text.clone(),
        };
        let acknowledged = orders.iter().map(|order| order.sequence).max().unwrap_or_default();
        let report = Report { acknowledged, refused: orders.iter().map(refuse).collect(), ..Report::default() };
        self.effects.push(Effect::Report { fence, session, report });
    }

    fn take_order(
        &mut self,
        now: Instant,
        (fence, session): (Fence, SessionId),
        order: Order,
        set_aside: &mut Resources,
    ) {
        let Some(live) = &mut self.session else { return };
        if order.sequence <= live.acknowledged && self.config.planted != Planted::SkipFenceCheck {
            return; // said twice
        }
        live.acknowledged = live.acknowledged.max(order.sequence);
        let (sequence, replica) = (order.sequence, order.replica);
        if let Err((why, text)) = self.obey(now, Obeyed { fence, session, sequence }, order, set_aside) {
            self.refused.push(RefusedOrder { sequence, replica, why, text });
        }
    }

    fn obey(&mut self, now: Instant, obeyed: Obeyed, order: Order, set_aside: &mut Resources) -> Result<(), Refused> {
        let (id, reason) = (order.replica, order.reason);
        match order.action {
            Action::Start { app, revision, digest } => {
                self.order_start(now, obeyed, id, (app, revision, digest), reason, set_aside)
            }
            Action::Park => self.order_rotation(obeyed, id, true),
            Action::Unpark => self.order_rotation(obeyed, id, false),
            Action::Stop { only_if_idle, grace } => self.order_stop(obeyed, id, only_if_idle, grace, reason),
        }
    }

    fn order_start(
        &mut self,
        now: Instant,
        obeyed: Obeyed,
        id: ReplicaId,
        (app, revision, digest): (AppId, RevisionNumber, SpecDigest),
        reason: Reason,
        set_aside: &mut Resources,
    ) -> Result<(), Refused> {
        if self.replicas.contains_key(&id) {
            self.changed(id);
            return Ok(()); // it is there already: said again what it is
        }
        if self.remembered.iter().any(|gone| gone.id == id) {
            return Err((OrderRefusal::UnknownReplica, format!("replica {id} has ended"))); // ids are never reused
        }
        let unknown = || (OrderRefusal::Failed, format!("this session has not carried the spec {digest}"));
        let run = self.specs.get(&digest).cloned().ok_or_else(unknown)?;
        self.check_room(run.resources, *set_aside)?;
        *set_aside += run.resources;
        self.persist(Record::Ordered { replica: id, app, revision, digest, reason: reason.clone(), obeyed });
        self.replicas.insert(id, Replica::ordered(now, id, (app, revision, digest), run, reason, obeyed));
        self.changed(id);
        Ok(())
    }

    pub(crate) fn check_room(&self, asked: Resources, set_aside: Resources) -> Result<(), Refused> {
        match self.config.capacity {
            Some(capacity) if !(set_aside + asked).fits(&capacity) => {
                let free = capacity - set_aside;
                let text = format!(
                    "it needs {} CPU and {} memory; {} and {} are left of this node's {} and {}",
                    asked.cpu, asked.memory, free.cpu, free.memory, capacity.cpu, capacity.memory
                );
                Err((OrderRefusal::NoRoom, text))
            }
            _ => Ok(()),
        }
    }

    /// A live replica, or the refusal; an ended one is told of again.
    fn ordered_about(&mut self, id: ReplicaId) -> Result<&mut Replica, Refused> {
        let text = match self.replicas.get(&id) {
            None => format!("no replica {id} is known here"),
            Some(replica) if !replica.live() => {
                self.news.insert(id);
                format!("replica {id} has ended")
            }
            Some(_) => String::new(),
        };
        self.replicas.get_mut(&id).filter(|replica| replica.live()).ok_or((OrderRefusal::UnknownReplica, text))
    }

    fn order_rotation(&mut self, obeyed: Obeyed, id: ReplicaId, parked: bool) -> Result<(), Refused> {
        let replica = self.ordered_about(id)?;
        if replica.wanted.stop.is_some() && !parked {
            return Err((OrderRefusal::Failed, format!("replica {id} is being stopped")));
        }
        replica.wanted.parked = parked;
        replica.wanted.obeyed = obeyed;
        let thaws = !parked && std::mem::take(&mut replica.seen.frozen);
        let attempt = replica.seen.attempt;
        let void = replica.wanted.asked.take_if(|_| !parked);
        if let Some(asked) = void {
            self.refuse_stop(id, &asked, "it was taken back into rotation meanwhile".to_owned());
        }
        if thaws {
            self.effects.push(Effect::Thaw { replica: id, attempt });
        }
        self.persist(Record::Parked { replica: id, parked, obeyed });
        self.changed(id);
        Ok(())
    }

    fn order_stop(
        &mut self,
        obeyed: Obeyed,
        id: ReplicaId,
        only_if_idle: bool,
        grace: Millis,
        reason: Reason,
    ) -> Result<(), Refused> {
        let replica = self.ordered_about(id)?;
        let (stop, running) = (StopWanted { grace, reason }, replica.seen.phase == Phase::Running);
        if only_if_idle && running && replica.wanted.stop.is_none() {
            let attempt = replica.seen.attempt;
            replica.wanted.asked = Some(StopAsked { obeyed, stop });
            self.effects.push(Effect::Sample { replica: id, attempt });
            return Ok(());
        }
        self.want_stop(id, obeyed, stop);
        Ok(())
    }

    /// From here on the replica ends.
    pub(crate) fn want_stop(&mut self, id: ReplicaId, obeyed: Obeyed, stop: StopWanted) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.wanted.obeyed = obeyed;
        replica.wanted.asked = None;
        replica.wanted.stop = Some(stop.clone());
        self.persist(Record::Stop { replica: id, grace: stop.grace, reason: stop.reason, obeyed });
        self.changed(id);
    }

    pub(crate) fn refuse_stop(&mut self, id: ReplicaId, asked: &StopAsked, text: String) {
        if self.session() == Some(asked.obeyed.session) {
            self.refused.push(RefusedOrder {
                sequence: asked.obeyed.sequence,
                replica: id,
                why: OrderRefusal::Busy,
                text,
            });
            self.news.insert(id);
        }
    }

    /// The planted bug: what the first orders of a session do not mention is stopped.
    fn plant_absence(&mut self, live: Session, orders: &[Order]) {
        if self.config.planted != Planted::StopOnAbsence || live.acknowledged != OrderSequence(0) {
            return;
        }
        let absent = |r: &&Replica| r.live() && r.wanted.stop.is_none() && !orders.iter().any(|o| o.replica == r.id);
        let absent: Vec<ReplicaId> = self.replicas.values().filter(absent).map(|r| r.id).collect();
        for id in absent {
            let stop = StopWanted { grace: Millis(1_000), reason: Reason::new("absent", "nobody mentioned it") };
            let obeyed = Obeyed { fence: live.fence, session: live.id, sequence: OrderSequence(0) };
            self.want_stop(id, obeyed, stop);
        }
    }
}

impl Replica {
    pub(crate) fn ordered(
        now: Instant,
        id: ReplicaId,
        (app, revision, digest): (AppId, RevisionNumber, SpecDigest),
        run: RunSpec,
        reason: Reason,
        obeyed: Obeyed,
    ) -> Self {
        let wanted = Wanted { obeyed, parked: false, stop: None, asked: None };
        let seen = Seen {
            attempt: 1,
            crashes: 0,
            last_exit: None,
            phase: Phase::New,
            address: String::new(),
            listening: false,
            probes: Probes::default(),
            frozen: false,
            unhealthy: None,
            since: now,
            work: Work::fresh(now),
        };
        Self { id, app, revision, digest, run, reason, wanted, seen, served: None }
    }
}
