//! One app's traffic, shared by the threads: the pure decisions under one lock, and whoever waits for one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bellows_agent_core::traffic::app::Request;
use bellows_agent_core::traffic::{
    Admission, AppTraffic, Bounce, Demand, HereCopy, Moved, Outcome, Owner, Refusal, Ticket, Update, Verdict,
};
use bellows_agent_core::{AppId, Bytes, Instant, ReplicaId};
use tokio::sync::oneshot;

use super::changes::Changes;
use super::time::Time;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a copy on this node.
    Here {
        /// Who.
        replica: ReplicaId,
        /// The present attempt.
        attempt: u32,
        /// Its own address.
        address: Ipv4Addr,
    },
    /// To the ingress of the copy's owner.
    At {
        /// Who.
        replica: ReplicaId,
        /// `HOST:PORT` of its owner.
        owner: Arc<str>,
    },
}

impl Target {
    pub(crate) fn replica(&self) -> ReplicaId {
        match self {
            Self::Here { replica, .. } | Self::At { replica, .. } => *replica,
        }
    }
}

/// One app's traffic.
pub(crate) struct App {
    pub(crate) id: AppId,
    state: Mutex<State>,
    /// Told of since the last change?
    told: AtomicBool,
    changes: Arc<Changes>,
    time: Time,
}

#[derive(Default)]
struct State {
    traffic: AppTraffic,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<Target, Refusal>>>,
    targets: BTreeMap<ReplicaId, Target>,
    /// Other ingresses that wait for room in copies of this node.
    watched: BTreeMap<ReplicaId, Vec<oneshot::Sender<()>>>,
    removed: bool,
}

/// What a request got at once.
pub(crate) enum Placed {
    /// A seat.
    Go(Seat),
    /// A place in the queue.
    Wait(Waiting),
}

impl App {
    pub(crate) fn new(id: AppId, changes: Arc<Changes>, time: Time) -> Arc<Self> {
        let (state, told) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { id, state, told, changes, time })
    }

    /// A request came; `bytes` of it wait in memory if it must.
    pub(crate) fn arrive(self: &Arc<Self>, bytes: usize) -> Result<Placed, Refusal> {
        let now = self.time.now();
        let mut state = self.lock();
        if state.removed {
            return Err(Refusal::Removed);
        }
        let (request, verdict) = state.traffic.arrive(now, Bytes(bytes as u64));
        self.settle(state, request, verdict, Vec::new())
    }

    /// Another ingress asks for this copy.
    pub(crate) fn admit(self: &Arc<Self>, replica: ReplicaId) -> Result<Seat, Bounce> {
        let now = self.time.now();
        let mut state = self.lock();
        match state.traffic.admit(now, replica) {
            Admission::Bounced(bounce) => Err(bounce),
            Admission::Admitted => {
                let target = state.target(replica);
                drop(state);
                self.changed(false);
                let Some(target) = target else {
                    self.finish(replica, Outcome::Left);
                    return Err(Bounce::Parked);
                };
                Ok(Seat::new(self.clone(), target, None))
            }
        }
    }

    /// The leader's word.
    pub(crate) fn update(&self, update: Update) {
        let now = self.time.now();
        let mut state = self.lock();
        if update.whole {
            state.targets.retain(|_, target| matches!(target, Target::Here { .. }));
        }
        for told in &update.copies {
            if let Owner::At(owner) = &told.owner {
                let target = Target::At { replica: told.replica, owner: owner.as_str().into() };
                let here = matches!(state.targets.get(&told.replica), Some(Target::Here { .. }));
                if !here {
                    state.targets.insert(told.replica, target);
                }
            }
        }
        let moved = state.traffic.update(now, update);
        state.deliver(moved);
        let some_wait = state.traffic.wake_at(now).is_some();
        drop(state);
        self.changed(false);
        if some_wait {
            self.changes.queued.notify_one(); // they may have less time than before
        }
    }

    /// Nothing more is heard of copies elsewhere.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.traffic.forget();
        state.targets.retain(|_, target| matches!(target, Target::Here { .. }));
    }

    /// This agent's own word on a copy here: from its return on nobody is admitted to one that is parked.
    pub(crate) fn here(&self, here: HereCopy) {
        let now = self.time.now();
        let mut state = self.lock();
        let address = here.address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let target = Target::Here { replica: here.replica, attempt: here.attempt, address };
        state.targets.insert(here.replica, target);
        let replica = here.replica;
        let moved = state.traffic.here(now, here);
        state.deliver(moved);
        state.tell_room(now, replica);
        drop(state);
        self.changed(false);
    }

    /// The copy here has ended.
    pub(crate) fn here_no_more(&self, replica: ReplicaId) {
        let mut state = self.lock();
        state.traffic.here_no_more(replica);
        state.targets.remove(&replica);
        state.watched.remove(&replica);
        drop(state);
        self.changed(false);
    }

    /// The app is no more.
    pub(crate) fn remove(&self) {
        let mut state = self.lock();
        state.removed = true;
        let moved = state.traffic.removed();
        state.deliver(moved);
    }

    /// Time went by; when to look again.
    pub(crate) fn tick(&self) -> Option<Instant> {
        let now = self.time.now();
        let mut state = self.lock();
        let moved = state.traffic.tick(now);
        let refused = !moved.is_empty();
        if refused {
            state.deliver(moved);
        }
        let wake = state.traffic.wake_at(now);
        drop(state);
        if refused {
            self.changed(false);
        }
        wake
    }

    /// What it is asked for; from now on the next change is told again.
    pub(crate) fn take_demand(&self) -> Demand {
        self.told.store(false, Ordering::Release);
        self.lock().traffic.demand()
    }

    /// Requests in a copy of this node.
    pub(crate) fn in_flight(&self, replica: ReplicaId) -> u32 {
        self.lock().traffic.in_flight(replica)
    }

    /// Ready when a copy of this node has room, or is no more; at once if it is so already.
    pub(crate) fn room(&self, replica: ReplicaId) -> oneshot::Receiver<()> {
        let now = self.time.now();
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if !state.traffic.has_room(now, replica) && state.targets.contains_key(&replica) {
            let watched = state.watched.entry(replica).or_default();
            watched.retain(|sender| !sender.is_closed());
            watched.push(sender);
        }
        receiver // whose sender is gone is as good as told
    }

    /// The owner of a copy elsewhere said that there is room again.
    pub(crate) fn opened(&self, replica: ReplicaId) {
        let now = self.time.now();
        let mut state = self.lock();
        let moved = state.traffic.opened(now, replica);
        state.deliver(moved);
        drop(state);
        self.changed(false);
    }

    /// The owner of a copy elsewhere said how many requests are in it.
    pub(crate) fn heard(&self, replica: ReplicaId, count: u32) {
        self.lock().traffic.heard(replica, count);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a seat, or a place to wait, of a verdict; delivers what else was moved by it.
    fn settle(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        request: Request,
        verdict: Verdict,
        moved: Vec<Moved>,
    ) -> Result<Placed, Refusal> {
        let placed = match verdict {
            Verdict::Refuse(refusal) => Err(refusal),
            Verdict::Go(replica) => Ok(state.target(replica).ok_or(replica)),
            Verdict::Hold => {
                let (sender, receiver) = oneshot::channel();
                state.waiting.insert(request.ticket, sender);
                state.deliver(moved);
                drop(state);
                self.changed(true);
                let ticket = request.ticket;
                return Ok(Placed::Wait(Waiting { app: self.clone(), request: Some(request), ticket, receiver }));
            }
        };
        state.deliver(moved);
        drop(state);
        self.changed(false);
        match placed? {
            Ok(target) => Ok(Placed::Go(Seat::new(self.clone(), target, Some(request)))),
            // It was chosen and is not known: both are written under one lock, so this is its end.
            Err(replica) => {
                self.finish(replica, Outcome::Left);
                Err(Refusal::Removed)
            }
        }
    }

    fn finish(&self, replica: ReplicaId, outcome: Outcome) {
        let now = self.time.now();
        let mut state = self.lock();
        let moved = state.traffic.done(now, replica, outcome);
        if !moved.is_empty() {
            state.deliver(moved);
        }
        state.tell_room(now, replica);
        drop(state);
        self.changed(false);
    }

    fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.traffic.left(ticket);
        state.waiting.remove(&ticket);
        drop(state);
        self.changed(false);
    }

    /// Whoever waits makes haste.
    fn changed(&self, urgent: bool) {
        if !self.told.swap(true, Ordering::AcqRel) || urgent {
            self.changes.tell(self.id, urgent);
        }
    }
}

impl State {
    fn target(&self, replica: ReplicaId) -> Option<Target> {
        self.targets.get(&replica).cloned()
    }

    /// Those elsewhere who wait for room in this copy hear of it, if those here have left any. All of them: who comes too late hears no again.
    fn tell_room(&mut self, now: Instant, replica: ReplicaId) {
        if !self.watched.is_empty() && self.watched.contains_key(&replica) && self.traffic.has_room(now, replica) {
            self.watched.remove(&replica); // dropping them tells them
        }
    }

    /// Whoever is not there any more to take its seat gives it back when it drops the receiver: see [`Waiting`].
    fn deliver(&mut self, moved: Vec<Moved>) {
        for Moved { ticket, verdict } in moved {
            let Some(waiting) = self.waiting.remove(&ticket) else { continue };
            let said = match verdict {
                Verdict::Go(replica) => self.target(replica).ok_or(Refusal::Removed),
                Verdict::Refuse(refusal) => Err(refusal),
                Verdict::Hold => continue,
            };
            // Under the lock the receiver cannot leave between: it leaves the queue under the same lock.
            drop(waiting.send(said));
        }
    }
}

/// A request that is counted in a copy. Dropped, it is counted no more.
pub(crate) struct Seat {
    app: Arc<App>,
    target: Target,
    /// Of this ingress; none when another one sent it.
    request: Option<Request>,
    outcome: Outcome,
    counted: bool,
}

impl Seat {
    fn new(app: Arc<App>, target: Target, request: Option<Request>) -> Self {
        Self { app, target, request, outcome: Outcome::Left, counted: true }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How it ended, if it does not end by its sender's leaving.
    pub(crate) fn set(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The copy did not take it, and nothing of it can have reached the app: elsewhere, or it waits.
    pub(crate) fn bounced(mut self, why: Bounce) -> Result<Placed, Refusal> {
        let Some(mut request) = self.request.take() else { return Err(Refusal::Removed) };
        let (app, now) = (self.app.clone(), self.app.time.now());
        let mut state = app.lock();
        let (verdict, moved) = state.traffic.bounced(now, &mut request, self.target.replica(), why);
        self.counted = false;
        app.settle(state, request, verdict, moved)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.counted {
            self.app.finish(self.target.replica(), self.outcome);
        }
    }
}

/// A request that waits. Dropped, it waits no more.
pub(crate) struct Waiting {
    app: Arc<App>,
    request: Option<Request>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Result<Target, Refusal>>,
}

impl Waiting {
    /// Until a copy takes it, or it is refused.
    pub(crate) async fn seat(mut self) -> Result<Seat, Refusal> {
        let said = (&mut self.receiver).await.unwrap_or(Err(Refusal::Removed));
        let request = self.request.take();
        let target = said?;
        Ok(Seat::new(self.app.clone(), target, request))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.request.take().is_some() {
            self.app.leave(self.ticket);
            // A seat that was given meanwhile is given back.
            if let Ok(Ok(target)) = self.receiver.try_recv() {
                self.app.finish(target.replica(), Outcome::Left);
            }
        }
    }
}
