//! One copy as an ingress sees it: its count, its share while it is new, its failures.

use super::app::Bounce;
use super::route::Owner;
use crate::ids::ReplicaId;
use crate::units::{Instant, Millis};

/// So many failures in a row put a copy aside: one may be the request's own fault, three hardly.
const FAILURES: u32 = 3;
/// Aside for this long at first, twice as long each time.
const ASIDE: Millis = Millis(1_000);
/// At most: 1 s << 5.
const ASIDE_DOUBLINGS: u32 = 5;
/// A copy that could not be reached is tried again after this long: one that is about to listen takes about as long.
const TRY_AGAIN: Millis = Millis(5);
/// A copy elsewhere that said no says when it may say yes; it is asked again after this long if that word was lost.
const ASK_AGAIN: Millis = Millis(1_000);
/// A new copy gets at least this share at once, or it would never be tried.
const LEAST_SHARE: u64 = 100;

/// A copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Who.
    pub replica: ReplicaId,
    /// Whose.
    pub owner: Owner,
    /// The attempt, when it is here.
    pub attempt: u32,
    /// Its own address, when it is here.
    pub address: String,
    pub(super) ready: bool,
    pub(super) parked: bool,
    /// Requests of this ingress; for a copy here, all that there are.
    pub(super) ours: u32,
    /// What others have in it, as its owner said last; nothing for a copy here.
    pub(super) others: u32,
    /// Its owner said no: not asked before.
    pub(super) shut_until: Option<Instant>,
    ready_since: Option<Instant>,
    failures: u32,
    times_aside: u32,
    aside_until: Option<Instant>,
    /// It is no more; it stays while requests of ours are in it.
    leaving: bool,
}

impl Copy {
    pub(super) fn new(replica: ReplicaId, owner: Owner) -> Self {
        Self {
            replica,
            owner,
            attempt: 0,
            address: String::new(),
            ready: false,
            parked: false,
            ours: 0,
            others: 0,
            shut_until: None,
            ready_since: None,
            failures: 0,
            times_aside: 0,
            aside_until: None,
            leaving: false,
        }
    }

    /// Requests in it, as far as this ingress knows.
    pub fn in_flight(&self) -> u32 {
        self.ours.saturating_add(self.others)
    }

    /// May it be asked? What others have in it is old news once its owner's no is: then it is asked again.
    pub(super) fn open(&self, now: Instant, limit: Option<u32>) -> bool {
        let shut = self.shut_until.is_some_and(|until| until > now);
        self.ready && !self.parked && !shut && limit.is_none_or(|limit| self.ours < limit)
    }

    /// Put aside for its failures?
    pub(super) fn aside(&self, now: Instant) -> bool {
        self.aside_until.is_some_and(|until| until > now)
    }

    /// News of the copy itself: whoever said no may say yes now.
    pub(super) fn seen(&mut self, now: Instant, ready: bool, parked: bool) {
        if ready && !self.ready {
            self.ready_since = Some(now);
            self.failures = 0;
            self.aside_until = None;
        }
        (self.ready, self.parked, self.shut_until, self.leaving) = (ready, parked, None, false);
    }

    /// It takes nothing more.
    pub(super) fn leave(&mut self) {
        (self.ready, self.leaving) = (false, true);
    }

    /// Nothing of it is left.
    pub(super) fn over(&self) -> bool {
        self.leaving && self.ours == 0
    }

    /// Its owner said no, or could not be asked.
    pub(super) fn bounced(&mut self, now: Instant, why: Bounce) {
        match why {
            Bounce::Full(count) => self.heard(count),
            Bounce::Parked => {}
            Bounce::NotReached => self.failed(now),
        }
        self.shut_until = Some(now + if why == Bounce::NotReached { TRY_AGAIN } else { ASK_AGAIN });
    }

    /// Its owner said that it may be asked again.
    pub(super) fn opened(&mut self) {
        self.shut_until = None;
        self.others = self.others.saturating_sub(1);
    }

    /// Its owner said how many requests are in it.
    pub(super) fn heard(&mut self, count: u32) {
        self.others = if self.owner == Owner::Here { 0 } else { count.saturating_sub(self.ours) };
    }

    /// Requests weighed by what it can take yet, in thousandths: a new copy counts each of its requests more than once.
    pub(super) fn weight(&self, now: Instant, slow_start: Millis) -> u64 {
        u64::from(self.in_flight()) * 1_000_000 / self.share(now, slow_start)
    }

    fn share(&self, now: Instant, slow_start: Millis) -> u64 {
        let age = self.ready_since.map_or(Millis(0), |since| now - since);
        if age >= slow_start { 1_000 } else { (age.0 * 1_000 / slow_start.0.max(1)).clamp(LEAST_SHARE, 1_000) }
    }

    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.times_aside = 0;
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures += 1;
        if self.failures >= FAILURES {
            self.failures = 0;
            self.aside_until = Some(now + Millis(ASIDE.0 << self.times_aside.min(ASIDE_DOUBLINGS)));
            self.times_aside = self.times_aside.saturating_add(1);
        }
    }
}
