//! What the runtime, the image store and the ingress tell.

use crate::activity::Work;
use crate::core::{AgentCore, ImageState};
use crate::effect::Effect;
use crate::health::{Probe, Probes, Verdict};
use crate::ids::ReplicaId;
use crate::input::{LaunchFailure, Reading};
use crate::replica::{Phase, Replica};
use crate::report::{Exit, OrderRefusal, Reason, RefusedOrder};
use crate::units::Instant;

impl AgentCore {
    pub(crate) fn image_ready(&mut self, image: String) {
        let waiting = self.waiting_for(&image);
        self.images.insert(image, ImageState::Ready);
        self.touched.extend(waiting);
    }

    pub(crate) fn image_failed(&mut self, now: Instant, image: String, retry: bool, why: &str) {
        let waiting = self.waiting_for(&image);
        if retry {
            self.images.insert(image, ImageState::Waiting(now + self.config.pull_again));
            self.touched.extend(waiting);
            return;
        }
        self.images.remove(&image);
        for id in waiting {
            let text = format!("image {image} cannot be had: {why}");
            self.refuse_start(id, &text);
            self.end(now, id, Exit::NotStarted, Reason::new("no_image", text));
        }
    }

    fn waiting_for(&self, image: &str) -> Vec<ReplicaId> {
        let waits = |r: &&Replica| {
            r.run.image == image && matches!(r.seen.phase, Phase::New | Phase::Pulling | Phase::Waiting(_))
        };
        self.replicas.values().filter(waits).map(|r| r.id).collect()
    }

    /// The start order is refused too when its session still lives: the leader learns the kind of failure, not only the end.
    fn refuse_start(&mut self, id: ReplicaId, text: &str) {
        let Some(obeyed) = self.replicas.get(&id).map(|replica| replica.wanted.obeyed) else { return };
        if self.session() == Some(obeyed.session) {
            let (sequence, why) = (obeyed.sequence, OrderRefusal::NoImage);
            self.refused.push(RefusedOrder { sequence, replica: id, why, text: text.to_owned() });
        }
    }

    pub(crate) fn launched(&mut self, now: Instant, id: ReplicaId, attempt: u32, address: String) {
        let Some(replica) = self.present(id, attempt).filter(|r| r.seen.phase == Phase::Launching) else { return };
        replica.begin_running(now, address, Work::fresh(now));
        self.watch(id);
        self.changed(id);
    }

    /// A health check came to an end.
    pub(crate) fn checked(
        &mut self,
        now: Instant,
        id: ReplicaId,
        attempt: u32,
        probe: Probe,
        outcome: Result<(), String>,
    ) {
        let Some(replica) = self.present(id, attempt) else { return };
        if replica.seen.phase != Phase::Running || replica.wanted.stop.is_some() {
            return;
        }
        let since = replica.seen.since;
        match replica.seen.probes.take(&replica.run.health, since, now, probe, outcome) {
            Verdict::Same => drop(self.touched.insert(id)),
            Verdict::Passed => {
                // What ended the attempt before is history once this one has passed what failed then.
                replica.seen.unhealthy = None;
                self.changed(id);
            }
            Verdict::Unready(why) => {
                if replica.seen.unhealthy.is_none() {
                    replica.seen.unhealthy = Some(why);
                    self.news.insert(id);
                }
                self.touched.insert(id);
            }
            Verdict::Hopeless(why) => self.give_up(now, id, why),
        }
    }

    /// There is no hope for this attempt: it is asked to end, and the next one begins in place.
    fn give_up(&mut self, now: Instant, id: ReplicaId, why: String) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.seen.unhealthy = Some(why);
        replica.seen.probes.end();
        let grace = replica.run.stop_grace;
        self.stop(now, id, grace);
    }

    /// Asks to be told when it listens, if that is what makes it ready.
    pub(crate) fn watch(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get(&id) else { return };
        let by_listening = replica.run.health.readiness.is_none();
        if let (Some(port), None, true) = (replica.run.ready_port, &replica.wanted.stop, by_listening) {
            self.effects.push(Effect::Watch { replica: id, attempt: replica.seen.attempt, port });
        }
    }

    pub(crate) fn launch_failed(&mut self, now: Instant, id: ReplicaId, attempt: u32, failure: LaunchFailure) {
        let Some(replica) = self.present(id, attempt).filter(|r| r.seen.phase == Phase::Launching) else { return };
        match (replica.wanted.stop.clone(), failure) {
            (Some(stop), _) => self.end(now, id, Exit::NotStarted, stop.reason),
            (None, LaunchFailure::Impossible(why)) => {
                self.end(now, id, Exit::NotStarted, Reason::new("cannot_start", why));
            }
            (None, LaunchFailure::Failed(why)) => self.crashed(now, id, Exit::NotStarted, &why),
        }
    }

    pub(crate) fn exited(&mut self, now: Instant, id: ReplicaId, attempt: u32, exit: Exit) {
        let Some(replica) = self.present(id, attempt) else { return };
        if !matches!(replica.seen.phase, Phase::Launching | Phase::Running | Phase::Stopping { .. }) {
            return;
        }
        if let Some(asked) = replica.wanted.asked.take() {
            self.want_stop(id, asked.obeyed, asked.stop); // what is dead is idle
        }
        match self.replicas.get(&id).and_then(|replica| replica.wanted.stop.clone()) {
            Some(stop) => self.end(now, id, exit, stop.reason),
            None => self.crashed(now, id, exit, &self.what_ended(id, exit)),
        }
    }

    /// A failed check, if that is what ended the attempt, and how it went.
    fn what_ended(&self, id: ReplicaId, exit: Exit) -> String {
        let given_up = self.replicas.get(&id).filter(|replica| matches!(replica.seen.phase, Phase::Stopping { .. }));
        match given_up.and_then(|replica| replica.seen.unhealthy.as_ref()) {
            Some(why) => format!("{why} ({exit})"),
            None => exit.to_string(),
        }
    }

    /// The next attempt in place, after a wait that doubles; after too many in a row the replica ends.
    fn crashed(&mut self, now: Instant, id: ReplicaId, exit: Exit, what: &str) {
        let (stable_after, most) = (self.config.stable_after, self.config.crashes_most);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let stable = replica.has_process() && now - replica.seen.since >= stable_after;
        let crashes = if stable { 1 } else { replica.seen.crashes + 1 };
        replica.seen.crashes = crashes;
        if crashes >= most {
            let text = format!("crashed {crashes} times in a row, the last time: {what}");
            return self.end(now, id, exit, Reason::new("crash_loop", text));
        }
        let until = now + self.config.back_off(crashes);
        self.next_attempt(id, exit, until);
    }

    /// Its process is gone and nobody is to blame (the server was restarted): again, at once.
    pub(crate) fn lost(&mut self, now: Instant, id: ReplicaId) {
        match self.replicas.get(&id).and_then(|replica| replica.wanted.stop.clone()) {
            Some(stop) => self.end(now, id, Exit::Unknown, stop.reason),
            None => self.next_attempt(id, Exit::Unknown, now),
        }
    }

    fn next_attempt(&mut self, id: ReplicaId, exit: Exit, until: Instant) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.seen.attempt += 1;
        // An end that nobody saw hides none that was seen.
        replica.seen.last_exit =
            Some(exit).filter(|exit| *exit != Exit::Unknown).or(replica.seen.last_exit).or(Some(exit));
        replica.seen.phase = Phase::Waiting(until);
        replica.seen.listening = false;
        replica.seen.probes = Probes::default();
        replica.seen.address = String::new();
        if let Some(attempt) = replica.seen.attempt.checked_sub(2).filter(|attempt| *attempt > 0) {
            self.effects.push(Effect::Forget { replica: id, attempt });
        }
        self.changed(id);
    }

    pub(crate) fn listening(&mut self, id: ReplicaId, attempt: u32, listening: bool) {
        let Some(replica) = self.present(id, attempt).filter(|r| r.run.ready_port.is_some()) else { return };
        if replica.seen.phase == Phase::Running && replica.seen.listening != listening {
            replica.seen.listening = listening;
            self.news.insert(id);
        }
    }

    pub(crate) fn requests(&mut self, now: Instant, id: ReplicaId, requests: u32) {
        let Some(replica) = self.replicas.get_mut(&id).filter(|replica| replica.has_process()) else { return };
        if replica.seen.work.count_requests(now, requests) {
            self.news.insert(id);
        }
    }

    pub(crate) fn sampled(&mut self, now: Instant, readings: Vec<Reading>) {
        for reading in readings {
            self.take_reading(now, reading);
        }
    }

    fn take_reading(&mut self, now: Instant, reading: Reading) {
        let config = self.config.clone();
        let (id, attempt) = (reading.replica, reading.attempt);
        let Some(replica) = self.present(id, attempt).filter(|replica| replica.has_process()) else { return };
        let flipped = reading.counters.is_some_and(|counters| replica.seen.work.read(now, counters, &config));
        let asked = replica.wanted.asked.take();
        let busy = match reading.counters {
            Some(_) => replica.seen.work.busy(),
            None => Some("its use cannot be measured".to_owned()),
        };
        if flipped {
            self.news.insert(id);
        }
        match (asked, busy) {
            (Some(asked), Some(why)) => self.refuse_stop(id, &asked, why),
            (Some(asked), None) => self.want_stop(id, asked.obeyed, asked.stop),
            (None, _) => {}
        }
    }
}

impl Replica {
    pub(crate) fn begin_running(&mut self, since: Instant, address: String, work: Work) {
        self.seen.phase = Phase::Running;
        self.seen.address = address;
        self.seen.since = since;
        self.seen.listening = self.run.ready_port.is_none();
        self.seen.frozen = false;
        self.seen.probes = Probes::begin(&self.run.health, since);
        self.seen.work = work;
    }
}
