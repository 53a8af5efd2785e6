//! The next action of one replica, from what is wanted and what is seen.

use crate::core::{AgentCore, ImageState};
use crate::effect::Effect;
use crate::ids::ReplicaId;
use crate::input::WhenCutOff;
use crate::journal::Record;
use crate::replica::{Phase, Replica, StopWanted};
use crate::report::{Ended, Exit, Reason};
use crate::units::{Instant, Millis};

/// What to do next with one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing until something happens.
    Nothing,
    /// Nothing until then.
    Wait(Instant),
    /// The image must come first; it is on its way already when `asked`.
    Pull {
        asked: bool,
    },
    Launch,
    /// Make the health checks that are due.
    Check,
    /// It has been without a controller for as long as its spec allows.
    CutOff(Millis),
    /// Send the stop signal.
    Stop(Millis),
    Kill,
    /// It shall end and no process of it exists.
    End(Reason),
}

impl AgentCore {
    pub(crate) fn reconcile(&mut self, now: Instant, id: ReplicaId) {
        let Some(replica) = self.replicas.get(&id) else { return };
        match self.next(now, replica) {
            Next::Nothing => {}
            Next::Wait(until) => {
                self.timers.insert((until, id));
            }
            Next::Pull { asked } => self.pull(id, asked),
            Next::Launch => self.launch(id),
            Next::Check => self.check(now, id),
            Next::CutOff(length) => self.cut_off(id, length),
            Next::Stop(grace) => self.stop(now, id, grace),
            Next::Kill => self.kill(id),
            Next::End(reason) => {
                // Between two attempts the last process was that of the earlier one.
                let exit = replica.seen.last_exit.unwrap_or(Exit::NotStarted);
                self.end(now, id, exit, reason);
            }
        }
    }

    fn next(&self, now: Instant, replica: &Replica) -> Next {
        match &replica.wanted.stop {
            Some(stop) => next_towards_end(now, &replica.seen.phase, stop),
            None if replica.live() => {
                self.cut_off_due(now, replica).unwrap_or_else(|| self.next_towards_running(now, replica))
            }
            None => Next::Nothing,
        }
    }

    fn cut_off_due(&self, now: Instant, replica: &Replica) -> Option<Next> {
        match (self.cut_off_since, replica.run.when_cut_off) {
            (Some(since), WhenCutOff::StopAfter(length)) if since + length <= now => Some(Next::CutOff(length)),
            _ => None,
        }
    }

    fn next_towards_running(&self, now: Instant, replica: &Replica) -> Next {
        match replica.seen.phase {
            Phase::Waiting(until) if now < until => Next::Wait(until),
            Phase::New | Phase::Pulling | Phase::Waiting(_) => match self.images.get(&replica.run.image) {
                Some(ImageState::Ready) => Next::Launch,
                Some(ImageState::Waiting(until)) if now < *until => Next::Wait(*until),
                Some(ImageState::Fetching) => Next::Pull { asked: true },
                Some(ImageState::Waiting(_)) | None => Next::Pull { asked: false },
            },
            // It could not answer.
            Phase::Running if replica.seen.frozen => Next::Nothing,
            Phase::Running => match replica.seen.probes.next() {
                Some(due) if due <= now => Next::Check,
                Some(due) => Next::Wait(due),
                None => Next::Nothing,
            },
            // A health check has failed for good: the attempt ends, and another one follows.
            Phase::Stopping { kill_at, killed: false } if kill_at <= now => Next::Kill,
            Phase::Stopping { kill_at, killed: false } => Next::Wait(kill_at),
            Phase::Launching | Phase::Stopping { killed: true, .. } | Phase::Ended(_) => Next::Nothing,
        }
    }

    fn check(&mut self, now: Instant, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let attempt = replica.seen.attempt;
        for probe in replica.seen.probes.ask(now) {
            self.effects.push(Effect::Check { replica: id, attempt, probe });
        }
        if let Some(due) = replica.seen.probes.next() {
            self.timers.insert((due, id));
        }
    }

    fn pull(&mut self, id: ReplicaId, asked: bool) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        if replica.seen.phase == Phase::New {
            replica.seen.phase = Phase::Pulling;
            self.news.insert(id);
        }
        if !asked {
            let image = replica.run.image.clone();
            self.images.insert(image.clone(), ImageState::Fetching);
            self.effects.push(Effect::Pull { image });
        }
    }

    fn launch(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.seen.phase = Phase::Launching;
        let (attempt, crashes, digest) = (replica.seen.attempt, replica.seen.crashes, replica.digest);
        let last_exit = replica.seen.last_exit;
        self.persist(Record::Attempt { replica: id, attempt, crashes, last_exit });
        self.effects.push(Effect::Launch { replica: id, attempt, digest });
        self.news.insert(id);
    }

    fn cut_off(&mut self, id: ReplicaId, length: Millis) {
        let Some(replica) = self.replicas.get(&id) else { return };
        let text = format!("no controller was heard for {length}, and its app says to stop then");
        let stop = StopWanted { grace: replica.run.stop_grace, reason: Reason::new("cut_off", text) };
        self.want_stop(id, replica.wanted.obeyed, stop);
    }

    pub(crate) fn stop(&mut self, now: Instant, id: ReplicaId, grace: Millis) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let (kill_at, attempt) = (now + grace, replica.seen.attempt);
        replica.seen.phase = Phase::Stopping { kill_at, killed: false };
        self.timers.insert((kill_at, id));
        self.effects.push(Effect::Stop { replica: id, attempt, grace });
        self.news.insert(id);
    }

    fn kill(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        if let Phase::Stopping { killed, .. } = &mut replica.seen.phase {
            *killed = true;
        }
        self.effects.push(Effect::Kill { replica: id, attempt: replica.seen.attempt });
    }

    /// No process is left and none will come: kept until the leader acknowledges.
    pub(crate) fn end(&mut self, now: Instant, id: ReplicaId, exit: Exit, why: Reason) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let ended = Ended { exit, why, wanted: replica.wanted.stop.is_some(), at: now };
        replica.seen.phase = Phase::Ended(ended.clone());
        replica.wanted.asked = None;
        let attempt = replica.seen.attempt;
        self.persist(Record::Ended { replica: id, attempt, ended });
        self.news.insert(id);
    }
}

fn next_towards_end(now: Instant, phase: &Phase, stop: &StopWanted) -> Next {
    match phase {
        Phase::New | Phase::Pulling | Phase::Waiting(_) => Next::End(stop.reason.clone()),
        Phase::Running => Next::Stop(stop.grace),
        Phase::Stopping { kill_at, killed: false } if *kill_at <= now => Next::Kill,
        Phase::Stopping { kill_at, killed: false } => Next::Wait(*kill_at),
        // A launch is waited for: one action at a time.
        Phase::Launching | Phase::Stopping { killed: true, .. } | Phase::Ended(_) => Next::Nothing,
    }
}
