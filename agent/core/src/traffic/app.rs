//! One app's traffic in one ingress: its copies, its queue, and what becomes of each request.

use std::collections::BTreeMap;

use super::choose::choose;
use super::copy::Copy;
use super::hold::{Queue, Refusal, Ticket};
use super::route::{HereCopy, Owner, Terms, ToldCopy, Update};
use super::{Demand, Refused};
use crate::ids::ReplicaId;
use crate::units::{Bytes, Instant};

/// A request goes to so many copies at most before it waits: after three a fourth hardly knows better.
const BOUNCES: usize = 3;

/// What becomes of a request now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To this copy, which counts it from now on: `done` or `bounced` must follow.
    Go(ReplicaId),
    /// It waits; a [`Moved`] follows, or the shell says that it `left`.
    Hold,
    /// Answer 503.
    Refuse(Refusal),
}

/// What became of a request that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which.
    pub ticket: Ticket,
    /// `Go` or `Refuse`.
    pub verdict: Verdict,
}

/// An owner's answer to another ingress, before a byte reaches the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is counted from now on: `done` must follow.
    Admitted,
    /// No.
    Bounced(Bounce),
}

/// Why a copy did not take a request, none of whose bytes can have reached the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounce {
    /// At its limit, with so many.
    Full(u32),
    /// Parked, not ready, or gone.
    Parked,
    /// It, or its owner, could not be connected to.
    NotReached,
}

/// How a request ended that had reached a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app answered, whatever it was.
    Answered,
    /// It closed too early, did not answer in time, or answered garbage.
    Failed,
    /// The sender left; nothing is known of the copy by that.
    Left,
}

/// A request between its arrival and its end, as the shell carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its place in the order of arrival.
    pub ticket: Ticket,
    since: Instant,
    bytes: Bytes,
    tried: Vec<ReplicaId>,
}

/// One app's traffic in one ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppTraffic {
    terms: Terms,
    version: u64,
    waiting: String,
    copies: BTreeMap<ReplicaId, Copy>,
    queue: Queue,
    refused: Refused,
    arrivals: u64,
    /// Arrivals by other ingresses are not in `arrivals`; tickets count both.
    tickets: u64,
}

impl AppTraffic {
    /// A request came. Its `bytes` are what waits in memory if it must be held.
    pub fn arrive(&mut self, now: Instant, bytes: Bytes) -> (Request, Verdict) {
        self.arrivals += 1;
        self.tickets += 1;
        let mut request = Request { ticket: Ticket(self.tickets), since: now, bytes, tried: Vec::new() };
        let verdict = self.place(now, &mut request);
        (request, verdict)
    }

    /// The copy that it was sent to did not take it: elsewhere, or it waits.
    pub fn bounced(
        &mut self,
        now: Instant,
        request: &mut Request,
        from: ReplicaId,
        why: Bounce,
    ) -> (Verdict, Vec<Moved>) {
        request.tried.push(from);
        if let Some(copy) = self.copies.get_mut(&from) {
            copy.ours = copy.ours.saturating_sub(1);
            copy.bounced(now, why);
        }
        let verdict = self.place(now, request);
        let moved = self.release(now);
        (verdict, moved)
    }

    /// Another ingress asks for this very copy, which must be here.
    pub fn admit(&mut self, now: Instant, replica: ReplicaId) -> Admission {
        let copy = self.copies.get_mut(&replica).filter(|copy| copy.owner == Owner::Here && copy.open(now, None));
        match copy {
            None => Admission::Bounced(Bounce::Parked),
            Some(copy) if !copy.open(now, self.terms.limit) => Admission::Bounced(Bounce::Full(copy.ours)),
            Some(copy) => {
                copy.ours += 1;
                Admission::Admitted
            }
        }
    }

    /// A request ended; the room it leaves goes to whoever has waited the longest.
    pub fn done(&mut self, now: Instant, replica: ReplicaId, outcome: Outcome) -> Vec<Moved> {
        if let Some(copy) = self.copies.get_mut(&replica) {
            copy.ours = copy.ours.saturating_sub(1);
            match outcome {
                Outcome::Answered => copy.answered(),
                Outcome::Failed => copy.failed(now),
                Outcome::Left => {}
            }
        }
        self.tidy(replica);
        self.release(now)
    }

    /// The owner of a copy elsewhere said with an answer how many requests are in it.
    pub fn heard(&mut self, replica: ReplicaId, count: u32) {
        if let Some(copy) = self.copies.get_mut(&replica) {
            copy.heard(count);
        }
    }

    /// The owner of a copy elsewhere, which had said no, said that there is room: to whoever has waited the longest.
    pub fn opened(&mut self, now: Instant, replica: ReplicaId) -> Vec<Moved> {
        if let Some(copy) = self.copies.get_mut(&replica) {
            copy.opened();
        }
        self.release(now)
    }

    /// Would a copy of this node be admitted to now?
    pub fn has_room(&self, now: Instant, replica: ReplicaId) -> bool {
        let here = self.copies.get(&replica).filter(|copy| copy.owner == Owner::Here);
        here.is_some_and(|copy| copy.open(now, self.terms.limit))
    }

    /// Requests in a copy of this node: exact.
    pub fn in_flight(&self, replica: ReplicaId) -> u32 {
        self.copies.get(&replica).map_or(0, |copy| copy.ours)
    }

    /// Whoever waited is gone. The room that was given to it meanwhile, if any, is given back with `done`.
    pub fn left(&mut self, ticket: Ticket) -> bool {
        self.queue.leave(ticket)
    }

    /// Time went by.
    pub fn tick(&mut self, now: Instant) -> Vec<Moved> {
        let mut moved = self.release(now);
        for (ticket, waited) in self.queue.overdue(now, &self.terms.hold) {
            self.queue.leave(ticket);
            let why = self.why_waiting();
            moved.push(Moved { ticket, verdict: self.refuse(now, Refusal::TooLong { waited, why }) });
        }
        moved
    }

    /// When to `tick` at the latest; never, while nothing waits.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let expiry = self.queue.oldest()? + self.terms.hold.time;
        let ask_again = self.copies.values().filter_map(|copy| copy.shut_until).filter(|until| *until > now).min();
        Some(ask_again.map_or(expiry, |at| at.min(expiry)))
    }

    /// The leader's word. A push that is older than what is known changes nothing.
    pub fn update(&mut self, now: Instant, update: Update) -> Vec<Moved> {
        if !update.whole && update.version <= self.version {
            return Vec::new();
        }
        if update.whole {
            let named = |id: &ReplicaId| update.copies.iter().any(|told| told.replica == *id);
            let elsewhere = self.copies.values().filter(|copy| copy.owner != Owner::Here).map(|copy| copy.replica);
            let gone: Vec<ReplicaId> = elsewhere.filter(|id| !named(id)).collect();
            gone.into_iter().for_each(|id| self.gone(id, false));
        }
        (self.version, self.terms, self.waiting) = (update.version, update.terms, update.waiting);
        update.gone.into_iter().for_each(|id| self.gone(id, false));
        for told in update.copies.into_iter().filter(|told| told.owner != Owner::Here) {
            self.told(now, told);
        }
        self.release(now)
    }

    /// Nothing more is heard of copies elsewhere: they are forgotten, until the next whole push.
    pub fn forget(&mut self) {
        let elsewhere = self.copies.values().filter(|copy| copy.owner != Owner::Here).map(|copy| copy.replica);
        let gone: Vec<ReplicaId> = elsewhere.collect();
        gone.into_iter().for_each(|id| self.gone(id, false));
        self.version = 0;
    }

    /// This agent's own word on a copy here. From its return on nobody is admitted to a copy that is parked.
    pub fn here(&mut self, now: Instant, here: HereCopy) -> Vec<Moved> {
        let copy = self.copies.entry(here.replica).or_insert_with(|| Copy::new(here.replica, Owner::Here));
        copy.owner = Owner::Here;
        (copy.attempt, copy.address) = (here.attempt, here.address);
        copy.seen(now, here.ready, here.parked);
        self.release(now)
    }

    /// The copy here has ended.
    pub fn here_no_more(&mut self, replica: ReplicaId) {
        self.gone(replica, true);
    }

    /// The app is no more: nobody waits for it any longer.
    pub fn removed(&mut self) -> Vec<Moved> {
        let tickets = self.queue.tickets();
        self.queue = Queue::default();
        tickets.into_iter().map(|ticket| Moved { ticket, verdict: Verdict::Refuse(Refusal::Removed) }).collect()
    }

    /// A copy, as it is known.
    pub fn copy(&self, replica: ReplicaId) -> Option<&Copy> {
        self.copies.get(&replica)
    }

    /// What the app is asked for here.
    pub fn demand(&self) -> Demand {
        let here = self.copies.values().filter(|copy| copy.owner == Owner::Here);
        Demand {
            in_flight: here.map(|copy| (copy.replica, copy.ours)).collect(),
            held: self.queue.len(),
            arrivals: self.arrivals,
            oldest_held: self.queue.oldest(),
            refused: self.refused.clone(),
        }
    }

    /// What is known by the leader's word.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whoever came earlier and waits goes first.
    fn place(&mut self, now: Instant, request: &mut Request) -> Verdict {
        let first = self.queue.first().is_none_or(|waiting| waiting > request.ticket);
        let chosen = if first && request.tried.len() < BOUNCES { self.chosen(now, &request.tried) } else { None };
        if let Some(replica) = chosen {
            return self.sent(replica);
        }
        request.tried.clear();
        match self.queue.join(request.ticket, request.since, request.bytes, &self.terms.hold) {
            Ok(()) => Verdict::Hold,
            Err(refusal) => self.refuse(now, refusal),
        }
    }

    fn refuse(&mut self, now: Instant, refusal: Refusal) -> Verdict {
        self.refused = Refused { count: self.refused.count + 1, why: refusal.to_string(), at: now };
        Verdict::Refuse(refusal)
    }

    fn chosen(&self, now: Instant, tried: &[ReplicaId]) -> Option<ReplicaId> {
        choose(self.copies.values(), &self.terms, now, tried)
    }

    fn sent(&mut self, replica: ReplicaId) -> Verdict {
        if let Some(copy) = self.copies.get_mut(&replica) {
            copy.ours += 1;
        }
        Verdict::Go(replica)
    }

    /// Room goes to whoever has waited the longest.
    fn release(&mut self, now: Instant) -> Vec<Moved> {
        let mut moved = Vec::new();
        while let Some(ticket) = self.queue.first() {
            let Some(replica) = self.chosen(now, &[]) else { break };
            self.queue.leave(ticket);
            moved.push(Moved { ticket, verdict: self.sent(replica) });
        }
        moved
    }

    fn told(&mut self, now: Instant, told: ToldCopy) {
        let copy = self.copies.entry(told.replica).or_insert_with(|| Copy::new(told.replica, told.owner.clone()));
        if copy.owner != Owner::Here {
            copy.owner = told.owner;
            copy.seen(now, told.ready, told.parked);
        }
    }

    /// Its requests end as they end; without any it is forgotten.
    fn gone(&mut self, replica: ReplicaId, here: bool) {
        if let Some(copy) = self.copies.get_mut(&replica).filter(|copy| here || copy.owner != Owner::Here) {
            copy.leave();
        }
        self.tidy(replica);
    }

    fn tidy(&mut self, replica: ReplicaId) {
        if self.copies.get(&replica).is_some_and(Copy::over) {
            self.copies.remove(&replica);
        }
    }

    fn why_waiting(&self) -> String {
        let (mut not_ready, mut parked, mut full) = (0, 0, 0);
        for copy in self.copies.values() {
            match (copy.ready, copy.parked) {
                (_, true) => parked += 1,
                (false, false) => not_ready += 1,
                (true, false) => full += 1,
            }
        }
        let counted = match (self.copies.is_empty(), full) {
            (true, _) => "no copy is there".to_owned(),
            (false, 0) => format!("no copy is ready ({not_ready} starting, {parked} on their way out)"),
            (false, _) => format!("all {full} ready copies are at their limit"),
        };
        if self.waiting.is_empty() { counted } else { format!("{counted}; {}", self.waiting) }
    }
}

#[cfg(test)]
mod tests;
