//! What the leader knows of one copy. Wanted and seen are separate fields with one writer each.

use serde::Serialize;

use crate::ids::{AppId, NodeId, OrderSequence, ReplicaId, RevisionNumber, SpecDigest};
use crate::input::{Activity, Exit, Lifecycle};
use crate::plan::score::Choice;
use crate::reason::Reason;
use crate::time::Instant;
use crate::units::{Bytes, CpuMilli, Millis, Resources};

/// A place in the slab of replicas. Means nothing outside this leader's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Slot(pub u32);

/// One copy, alive as far as is known.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// Whose copy.
    pub app: AppId,
    /// What it runs.
    pub revision: RevisionNumber,
    /// Names its spec.
    pub digest: SpecDigest,
    /// Where it is.
    pub node: NodeId,
    /// Set aside for it.
    pub resources: Resources,
    /// Why it is there.
    pub placed: Placed,
    /// When this leader ordered it, or first heard of it.
    pub since: Instant,
    /// Its start order, while no heartbeat of the node has acknowledged it.
    pub ordered: Option<OrderSequence>,
    /// Does the cluster know its app and revision?
    pub standing: Standing,
    /// Does it run what is wanted, where it may stay?
    pub fresh: bool,
    /// Can its node be heard?
    pub sight: Sight,
    /// What the agent said last.
    pub seen: Seen,
    /// Present while it is being retired.
    pub retire: Option<Box<Retire>>,
}

/// Why a copy is where it is. Kept compact, put into words when asked.
#[derive(Clone, Debug, Serialize)]
pub enum Placed {
    /// Chosen by this leader.
    Chosen(Choice),
    /// Chosen before; as the agent remembers it.
    Told(Box<Reason>),
}

/// Does the cluster know it?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Standing {
    /// Of a declared app.
    Known,
    /// Of an app that was declared once and removed: to be stopped.
    Removed,
    /// Of an app or revision that was never heard of: counted, shown, never stopped by itself.
    Orphan,
}

/// Can its node be heard?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Sight {
    /// Yes.
    Clear,
    /// Not at the moment; too early to give up.
    Blind,
    /// The node is lost, but the copy must be counted until then (`when_cut_off: stop_after`).
    Held(Instant),
    /// The node is lost.
    Lost,
}

/// What the agent said last. Only reports write here.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Counts from 1; 0 before the first report.
    pub attempt: u32,
    /// How the last one before it ended whose end was seen.
    pub last_exit: Option<Exit>,
    /// Of that attempt.
    pub lifecycle: Lifecycle,
    /// Does it answer?
    pub ready: bool,
    /// Did it ever answer, in this leader's sight?
    pub ever_ready: bool,
    /// Which health check fails, or ended the attempt before this one; empty while all pass.
    pub unhealthy: String,
    /// Is it out of rotation?
    pub parked: bool,
    /// Does it work?
    pub activity: Activity,
    /// Node-local.
    pub address: String,
    /// The attempt's age.
    pub running_for: Millis,
    /// Measured.
    pub used: Resources,
    /// In flight, as its owner counts them.
    pub requests: u32,
}

/// A retirement on its way.
#[derive(Clone, Debug, Serialize)]
pub struct Retire {
    /// Why, for rules.
    pub cause: Cause,
    /// Why, for people.
    pub reason: Reason,
    /// Since when.
    pub since: Instant,
    /// When patience ends.
    pub deadline: Instant,
    /// How far it is.
    pub stage: Stage,
    /// It had never answered when its stop was ordered: there was nothing to park.
    pub unanswered: bool,
    /// The last order given for it.
    pub order: OrderSequence,
}

/// Why a copy is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Cause {
    /// More than wanted. Returning demand takes it back.
    Surplus,
    /// Its app is gone.
    Removed,
    /// A newer revision took over.
    Outdated,
    /// Its node is drained.
    Drained,
}

/// How far a retirement is. Only advances, but for a stop refused: then the copy is parked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Stage {
    /// Park was ordered.
    Parking,
    /// The owner confirmed, or refused to stop a copy that had never answered.
    Parked,
    /// Stop was ordered, if idle.
    StoppingIfIdle,
    /// Stop was ordered.
    Stopping,
}

/// What one copy adds to its app's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Supply of what is wanted: in sight, in rotation.
    pub fresh: u32,
    /// Of these, ready.
    pub fresh_ready: u32,
    /// Supply that shall be replaced: older revisions, copies on draining nodes.
    pub stale: u32,
    /// Of these, ready.
    pub stale_ready: u32,
    /// On their way out, but still to be had back or waited for.
    pub retiring: u32,
    /// Stopping for good.
    pub ending: u32,
    /// On lost nodes.
    pub lost: u32,
    /// On lost nodes, but to be counted as supply for now.
    pub held: u32,
    /// Ready when last heard, on nodes that cannot be heard at the moment.
    pub blind: u32,
    /// CPU used by ready copies.
    pub used_cpu: CpuMilli,
    /// Memory used by ready copies.
    pub used_memory: Bytes,
    /// Requests in flight in copies that are in sight, also in those on their way out.
    pub in_flight: u64,
}

impl Replica {
    /// What it adds to its app's figures.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        if self.standing == Standing::Orphan {
            return tally;
        }
        let seen = &self.seen;
        match self.sight {
            Sight::Lost => return Tally { lost: 1, ..tally },
            Sight::Held(_) => return Tally { held: 1, ..tally },
            Sight::Blind => tally.blind = u32::from(seen.ready),
            Sight::Clear => {}
        }
        tally.in_flight = u64::from(seen.requests);
        let stopping = self.retire.as_ref().is_some_and(|retire| retire.stage == Stage::Stopping);
        if stopping || seen.lifecycle >= Lifecycle::Stopping {
            return Tally { ending: 1, ..tally };
        }
        if seen.ready {
            tally.used_cpu = seen.used.cpu;
            tally.used_memory = seen.used.memory;
        }
        let ready = u32::from(seen.ready && !seen.parked);
        match (self.retire.is_some(), self.fresh) {
            (true, _) => tally.retiring = 1,
            (false, true) => (tally.fresh, tally.fresh_ready) = (1, ready),
            (false, false) => (tally.stale, tally.stale_ready) = (1, ready),
        }
        tally
    }

    /// What it adds to its node's load beyond what the node's own counters can already show.
    pub fn unmeasured(&self, full_window: Millis) -> Resources {
        let seen = &self.seen;
        if seen.lifecycle >= Lifecycle::Stopping || seen.running_for >= full_window {
            return Resources::default();
        }
        self.resources - seen.used
    }
}

impl Tally {
    /// Adds `after` in place of `before`.
    pub fn replace(&mut self, before: &Self, after: &Self) {
        let each = |own: &mut u32, before: u32, after: u32| *own = *own + after - before;
        each(&mut self.fresh, before.fresh, after.fresh);
        each(&mut self.fresh_ready, before.fresh_ready, after.fresh_ready);
        each(&mut self.stale, before.stale, after.stale);
        each(&mut self.stale_ready, before.stale_ready, after.stale_ready);
        each(&mut self.retiring, before.retiring, after.retiring);
        each(&mut self.ending, before.ending, after.ending);
        each(&mut self.lost, before.lost, after.lost);
        each(&mut self.held, before.held, after.held);
        each(&mut self.blind, before.blind, after.blind);
        self.used_cpu = self.used_cpu + after.used_cpu - before.used_cpu;
        self.used_memory = self.used_memory + after.used_memory - before.used_memory;
        self.in_flight = self.in_flight + after.in_flight - before.in_flight;
    }

    /// Do both differ in more than measured use and counted requests?
    pub fn counts_differ(&self, other: &Self) -> bool {
        let strip = |tally: &Self| Self { used_cpu: CpuMilli(0), used_memory: Bytes(0), in_flight: 0, ..*tally };
        strip(self) != strip(other)
    }

    /// Alive and in sight.
    pub fn alive(&self) -> u32 {
        self.fresh + self.stale + self.retiring + self.ending
    }
}
