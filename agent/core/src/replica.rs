//! One replica: what is wanted of it (written by orders only) and what is seen of it (written by the runtime's news only).

use crate::activity::Work;
use crate::effect::Serving;
use crate::health::Probes;
use crate::ids::{AppId, Obeyed, ReplicaId, RevisionNumber, SpecDigest};
use crate::input::RunSpec;
use crate::report::{Activity, Ended, Exit, Lifecycle, Reason, ReplicaReport};
use crate::units::{Instant, Millis};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) app: AppId,
    pub(crate) revision: RevisionNumber,
    pub(crate) digest: SpecDigest,
    pub(crate) run: RunSpec,
    pub(crate) reason: Reason,
    pub(crate) wanted: Wanted,
    pub(crate) seen: Seen,
    /// How the ingress was told that it stands.
    pub(crate) served: Option<Serving>,
}

/// The persisted sum of orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) obeyed: Obeyed,
    pub(crate) parked: bool,
    pub(crate) stop: Option<StopWanted>,
    /// A conditional stop that waits for a fresh reading. Not persisted: it dies with its session.
    pub(crate) asked: Option<StopAsked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StopWanted {
    pub(crate) grace: Millis,
    pub(crate) reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StopAsked {
    pub(crate) obeyed: Obeyed,
    pub(crate) stop: StopWanted,
}

/// What the runtime told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) attempt: u32,
    /// In a row.
    pub(crate) crashes: u32,
    pub(crate) phase: Phase,
    pub(crate) address: String,
    /// Its port is listened on, or it has none.
    pub(crate) listening: bool,
    pub(crate) probes: Probes,
    /// All its processes are stopped in their tracks, or about to be.
    pub(crate) frozen: bool,
    /// Which check fails, or ended the attempt before, in words.
    pub(crate) unhealthy: Option<String>,
    /// How the last attempt before this one ended whose end was seen; unknown when there was none but attempts were lost.
    pub(crate) last_exit: Option<Exit>,
    /// Start of the present attempt.
    pub(crate) since: Instant,
    pub(crate) work: Work,
}

/// Where the present attempt is; one action at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    Pulling,
    /// The runtime is at it.
    Launching,
    /// Until the back-off ends.
    Waiting(Instant),
    Running,
    /// The stop signal was sent; at the moment named it is killed.
    Stopping {
        kill_at: Instant,
        killed: bool,
    },
    Ended(Ended),
}

impl Replica {
    pub(crate) fn live(&self) -> bool {
        !matches!(self.seen.phase, Phase::Ended(_))
    }

    /// Does a process of it exist, as far as is known?
    pub(crate) fn has_process(&self) -> bool {
        matches!(self.seen.phase, Phase::Running | Phase::Stopping { .. })
    }

    /// Does it answer? A readiness check tells, or without one that it listens; not before it has started.
    pub(crate) fn ready(&self) -> bool {
        let (seen, health) = (&self.seen, &self.run.health);
        let answers = seen.probes.ready(health).unwrap_or(seen.listening);
        seen.phase == Phase::Running && seen.probes.started(health) && answers
    }

    pub(crate) fn lifecycle(&self) -> Lifecycle {
        match self.seen.phase {
            // The attempt ends, the replica does not: another attempt follows in place.
            Phase::Stopping { .. } if self.wanted.stop.is_none() => Lifecycle::Running,
            Phase::New => Lifecycle::Ordered,
            Phase::Pulling => Lifecycle::Pulling,
            Phase::Launching | Phase::Waiting(_) => Lifecycle::Starting,
            Phase::Running => Lifecycle::Running,
            Phase::Stopping { .. } => Lifecycle::Stopping,
            Phase::Ended(_) => Lifecycle::Ended,
        }
    }

    pub(crate) fn report(&self, now: Instant) -> ReplicaReport {
        let (seen, alive) = (&self.seen, self.has_process());
        let mut report = ReplicaReport {
            id: self.id,
            app: self.app,
            revision: self.revision,
            digest: self.digest,
            obeyed: self.wanted.obeyed,
            attempt: seen.attempt,
            lifecycle: self.lifecycle(),
            ready: self.ready(),
            parked: self.wanted.parked,
            last_exit: seen.last_exit,
            resources: self.run.resources,
            reason: self.reason.clone(),
            activity: Activity::default(),
            unhealthy: seen.unhealthy.clone().unwrap_or_default(),
            ..ReplicaReport::default()
        };
        if alive {
            report.address = seen.address.clone();
            report.running_for = now - seen.since;
            report.activity = seen.work.activity(now);
            report.used = seen.work.used();
            report.processes = seen.work.latest().processes;
            report.connections = seen.work.latest().connections;
        }
        if let Phase::Ended(ended) = &seen.phase {
            report.ended = Some(ended.clone());
        }
        report
    }
}
