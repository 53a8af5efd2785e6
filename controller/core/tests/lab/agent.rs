//! An agent as the leader meets it: obeys orders under the fence, reports, refuses. Time is given.

use std::collections::BTreeMap;

use bellows_core::effect::{Action, Order};
use bellows_core::ids::{AppId, Fence, NodeId, OrderSequence, ReplicaId, SessionId};
use bellows_core::input::{
    Activity, AgentIdentity, AppTraffic, Ended, Exit, Lifecycle, NodeFacts, NodeUse, Obeyed, OrderRefusal,
    RefusedOrder, ReplicaReport, Report, TrafficReport,
};
use bellows_core::plan::allow::Allowance;
use bellows_core::plan::routes::{Entrance, RouteReplica, RouteUpdate};
use bellows_core::reason::Reason;
use bellows_core::time::Instant;
use bellows_core::units::{CpuMilli, Millis, Permille, Resources};

/// One server.
pub struct Agent {
    pub node: NodeId,
    pub name: String,
    pub machine: String,
    /// Of its present start.
    pub instance: u32,
    pub facts: NodeFacts,
    pub fence: Fence,
    pub session: Option<SessionId>,
    pub live: bool,
    /// Neither hears nor says anything.
    pub silent: bool,
    /// Refuses starts for want of room, or because the runtime fails.
    pub refuses: Option<OrderRefusal>,
    /// Refuses this many stops as busy.
    pub busy_refusals: u32,
    pub acknowledged: OrderSequence,
    pub copies: BTreeMap<ReplicaId, Copy>,
    /// Ended and acknowledged.
    pub remembered: Vec<ReplicaReport>,
    pub refused: Vec<RefusedOrder>,
    /// Load that is not ours.
    pub other: Resources,
    pub start_takes: Millis,
    pub never_ready: bool,
    /// What its ingress counts, of every app that it has had a request for.
    pub asks: BTreeMap<AppId, AppTraffic>,
    /// What it may start by itself.
    pub allowances: Vec<Allowance>,
    /// The version of that.
    pub allowed: u64,
    /// The leader does not know yet that it has taken that in.
    pub unheard: bool,
    /// Apps that can be asked for, as it was told.
    pub entrances: BTreeMap<AppId, Entrance>,
    /// Copies of the apps that it asks for, as it was told.
    pub routes: BTreeMap<AppId, (RouteUpdate, BTreeMap<ReplicaId, RouteReplica>)>,
}

/// One copy on it.
pub struct Copy {
    pub report: ReplicaReport,
    pub ready_at: Option<Instant>,
    pub ends_at: Option<(Instant, Exit, Reason)>,
    pub since: Instant,
    pub told: bool,
    pub idle_since: Instant,
}

impl Agent {
    pub fn inventory(&mut self, now: Instant) -> Vec<ReplicaReport> {
        self.copies.values_mut().map(|copy| copy.told(now)).collect()
    }

    pub fn traffic(&self) -> TrafficReport {
        let busy = |copy: &Copy| match copy.report.activity {
            Activity::Busy { requests } => requests,
            Activity::Idle { .. } => 0,
        };
        let live = self.copies.values().filter(|copy| copy.report.ended.is_none());
        let replicas = live.map(|copy| (copy.report.id, busy(copy))).collect();
        TrafficReport { apps: self.asks.values().cloned().collect(), replicas }
    }

    pub fn learn_entrances(&mut self, whole: bool, apps: Vec<Entrance>, gone: &[AppId]) {
        if whole {
            self.entrances.clear();
        }
        gone.iter().for_each(|app| drop(self.entrances.remove(app)));
        self.entrances.extend(apps.into_iter().map(|entrance| (entrance.app, entrance)));
    }

    /// As an ingress does: older versions change nothing, and what is not named stays unless all is named.
    pub fn learn_routes(&mut self, update: RouteUpdate) {
        let (last, copies) = self.routes.entry(update.app).or_default();
        assert!(update.version >= last.version, "routes go back from {} to {}", last.version, update.version);
        if update.whole {
            copies.clear();
        }
        update.gone.iter().for_each(|id| drop(copies.remove(id)));
        copies.extend(update.replicas.iter().map(|copy| (copy.id, copy.clone())));
        *last = update;
    }

    pub fn identity(&self) -> AgentIdentity {
        AgentIdentity {
            machine: self.machine.clone(),
            boot: self.facts.boot.clone(),
            instance: format!("{}#{}", self.name, self.instance),
        }
    }

    /// The server starts anew: no process is left, and the agent says so.
    pub fn reboot(&mut self, now: Instant) {
        self.facts.boot.push('+');
        self.instance += 1;
        let why = Reason::new("host_rebooted", "the server was restarted");
        for copy in self.copies.values_mut().filter(|copy| copy.report.ended.is_none()) {
            copy.report.lifecycle = Lifecycle::Ended;
            copy.report.ready = false;
            copy.report.used = Resources::default();
            copy.report.ended = Some(Ended { exit: Exit::Unknown, why: why.clone(), wanted: false, at: now });
            (copy.ready_at, copy.ends_at) = (None, None);
        }
    }

    pub fn obey(&mut self, now: Instant, orders: Vec<Order>) {
        for order in orders {
            assert_eq!(order.sequence.0, self.acknowledged.0 + 1, "orders come in sequence, without gaps");
            self.acknowledged = order.sequence;
            if let Err((why, text)) = self.carry_out(now, &order) {
                let (sequence, replica) = (order.sequence, order.replica);
                self.refused.push(RefusedOrder { sequence, replica, why, text: text.to_owned() });
            }
            if let (Some(copy), Some(session)) = (self.copies.get_mut(&order.replica), self.session) {
                copy.report.obeyed = Obeyed { fence: self.fence, session, sequence: order.sequence };
                copy.told = false;
            }
        }
    }

    fn carry_out(&mut self, now: Instant, order: &Order) -> Result<(), (OrderRefusal, &'static str)> {
        if let Action::Start { app, revision, digest, resources } = order.action {
            match self.refuses {
                Some(OrderRefusal::NoRoom) => {
                    return Err((OrderRefusal::NoRoom, "memory is full, measured here and now"));
                }
                Some(why) => return Err((why, "the runtime failed")),
                None => {}
            }
            let (id, reason) = (order.replica, order.reason.clone());
            let lifecycle = Lifecycle::Starting;
            let report = ReplicaReport {
                id,
                app,
                revision,
                digest,
                resources,
                reason,
                attempt: 1,
                lifecycle,
                ..Default::default()
            };
            let ready_at = Some(now + self.start_takes);
            self.copies.insert(id, Copy { report, ready_at, ends_at: None, since: now, told: false, idle_since: now });
            return Ok(());
        }
        let busy = self.busy_refusals > 0;
        let Some(copy) = self.copies.get_mut(&order.replica).filter(|copy| copy.report.ended.is_none()) else {
            return Err((OrderRefusal::UnknownReplica, "no such copy here"));
        };
        match order.action {
            Action::Park => copy.report.parked = true,
            Action::Unpark => copy.report.parked = false,
            Action::Stop { only_if_idle, .. } => {
                let works = matches!(copy.report.activity, Activity::Busy { .. });
                if only_if_idle && (works || busy) {
                    self.busy_refusals = self.busy_refusals.saturating_sub(1);
                    copy.report.activity = Activity::Busy { requests: 1 };
                    return Err((OrderRefusal::Busy, "a request came in"));
                }
                copy.report.lifecycle = Lifecycle::Stopping;
                copy.report.ready = false;
                copy.ready_at = None;
                copy.ends_at = Some((now + Millis(100), Exit::Signal(15), order.reason.clone()));
            }
            Action::Start { .. } => {}
        }
        Ok(())
    }

    /// What became of the copies by now. True when there is news.
    pub fn live_on(&mut self, now: Instant) -> bool {
        let never_ready = self.never_ready;
        for copy in self.copies.values_mut() {
            if copy.ready_at.is_some_and(|at| at <= now) {
                copy.ready_at = None;
                copy.since = now;
                copy.idle_since = now;
                copy.report.lifecycle = Lifecycle::Running;
                copy.report.ready = !never_ready;
                copy.report.address = "10.0.0.2".to_owned();
                copy.told = false;
            }
            if copy.ends_at.as_ref().is_some_and(|(at, ..)| *at <= now)
                && let Some((at, exit, why)) = copy.ends_at.take()
            {
                let wanted = copy.report.lifecycle == Lifecycle::Stopping;
                copy.report.lifecycle = Lifecycle::Ended;
                copy.report.ready = false;
                copy.report.used = Resources::default();
                copy.report.ended = Some(Ended { exit, why, wanted, at });
                copy.told = false;
            }
        }
        self.unheard || !self.refused.is_empty() || self.copies.values().any(|copy| !copy.told)
    }

    pub fn heartbeat(&mut self, now: Instant) -> Report {
        let load = NodeUse { used: self.used(), age: Millis(0), pressure: Some(Permille(0)) };
        let replicas = self.inventory(now);
        Report {
            acknowledged: self.acknowledged,
            load: Some(load),
            replicas,
            refused: std::mem::take(&mut self.refused),
            allowed: self.allowed,
        }
    }

    /// A request waits and a copy may be started here: the leader hears of the copy first.
    pub fn start_by_allowance(&mut self, now: Instant, app: AppId, held: u32) -> Option<Report> {
        let coming = self.copies.values().any(|copy| copy.report.app == app && !copy.report.ready);
        let at = self.allowances.iter().position(|one| one.app == app).filter(|_| held > 0 && !coming)?;
        let Allowance { id, app, revision, digest } = self.allowances.remove(at);
        let reason = Reason::new("allowance", "a request waited here");
        let (attempt, lifecycle, resources) = (1, Lifecycle::Starting, super::resources(500, 128));
        let report =
            ReplicaReport { id, app, revision, digest, resources, reason, attempt, lifecycle, ..Default::default() };
        let ready_at = Some(now + self.start_takes);
        self.copies.insert(id, Copy { report, ready_at, ends_at: None, since: now, told: false, idle_since: now });
        Some(self.news(now))
    }

    pub fn news(&mut self, now: Instant) -> Report {
        let changed = self.copies.values_mut().filter(|copy| !copy.told);
        let replicas = changed.map(|copy| copy.told(now)).collect();
        self.unheard = false;
        let (acknowledged, allowed, refused) = (self.acknowledged, self.allowed, std::mem::take(&mut self.refused));
        Report { acknowledged, load: None, replicas, refused, allowed }
    }

    fn used(&self) -> Resources {
        self.copies.values().fold(self.other, |sum, copy| sum + copy.report.used)
    }

    pub fn end(&mut self, now: Instant, id: ReplicaId, exit: Exit, code: &str, text: &str) {
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.ends_at = Some((now, exit, Reason::new(code, text)));
        }
    }

    pub fn set_use(&mut self, id: ReplicaId, cpu: CpuMilli) {
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.report.used.cpu = cpu;
        }
    }
}

impl Copy {
    fn told(&mut self, now: Instant) -> ReplicaReport {
        self.told = true;
        if self.report.lifecycle == Lifecycle::Running {
            self.report.running_for = now - self.since;
        }
        if let Activity::Idle { length } = &mut self.report.activity {
            *length = now - self.idle_since;
        }
        self.report.clone()
    }
}
