//! After a restart: the journal's sum of orders meets what the runtime still knows.

use crate::activity::Work;
use crate::core::AgentCore;
use crate::effect::Effect;
use crate::ids::ReplicaId;
use crate::input::{Found, FoundState};
use crate::journal::Record;
use crate::replica::{Phase, Replica, StopWanted};
use crate::report::{Exit, Reason};
use crate::units::Instant;

impl AgentCore {
    pub(crate) fn adopt(&mut self, now: Instant, records: Vec<Record>, found: Vec<Found>, boot: String) {
        for record in records {
            self.replay(now, record);
        }
        let before = std::mem::replace(&mut self.boot, boot.clone());
        if before != boot {
            if !before.is_empty() {
                self.end_all_of_boot(now, &before);
            }
            self.persist(Record::Boot(boot));
        }
        for one in found {
            self.adopt_found(now, one);
        }
        let launching = |replica: &&Replica| replica.seen.phase == Phase::Launching;
        let lost: Vec<ReplicaId> = self.replicas.values().filter(launching).map(|replica| replica.id).collect();
        for id in lost {
            self.lost(now, id);
        }
        self.touched.extend(self.replicas.keys());
    }

    /// The server started anew: no process is left, and the leader decides anew what runs where. A copy that was just ordered goes
    /// with the others: its leader has given this node up, or is about to hear what it lost.
    fn end_all_of_boot(&mut self, now: Instant, before: &str) {
        let live: Vec<ReplicaId> = self.replicas.values().filter(|replica| replica.live()).map(|r| r.id).collect();
        let text = format!("its server was restarted (boot {before}, now {})", self.boot);
        for id in live {
            let stop = self.replicas.get(&id).and_then(|replica| replica.wanted.stop.clone());
            let why = stop.map_or_else(|| Reason::new("host_rebooted", &text), |stop| stop.reason);
            self.end(now, id, Exit::Unknown, why);
        }
    }

    /// One line of the journal. Lines about replicas that later lines forgot find nothing, which is right.
    fn replay(&mut self, now: Instant, record: Record) {
        match record {
            Record::Fence(fence) => self.fence = self.fence.max(fence),
            Record::Boot(boot) => self.boot = boot,
            Record::Spec { digest, run } => {
                self.specs.insert(digest, run);
            }
            Record::Ordered { replica, app, revision, digest, reason, obeyed } => {
                let run = self.specs.get(&digest).cloned().unwrap_or_default();
                let ordered = Replica::ordered(now, replica, (app, revision, digest), run, reason, obeyed);
                self.replicas.insert(replica, ordered);
            }
            Record::Forgotten { replica } => {
                if let Some(gone) = self.replicas.remove(&replica).filter(|replica| !replica.live()) {
                    self.remember(gone.report(now));
                }
            }
            Record::Parked { .. } | Record::Stop { .. } => self.replay_wanted(record),
            Record::Attempt { .. } | Record::Ended { .. } => self.replay_seen(record),
        }
    }

    fn replay_wanted(&mut self, record: Record) {
        let (Record::Parked { replica: id, obeyed, .. } | Record::Stop { replica: id, obeyed, .. }) = record else {
            return;
        };
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.wanted.obeyed = obeyed;
        match record {
            Record::Parked { parked, .. } => replica.wanted.parked = parked,
            Record::Stop { grace, reason, .. } => replica.wanted.stop = Some(StopWanted { grace, reason }),
            _ => {}
        }
    }

    fn replay_seen(&mut self, record: Record) {
        let (Record::Attempt { replica: id, .. } | Record::Ended { replica: id, .. }) = record else { return };
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        match record {
            Record::Attempt { attempt, crashes, last_exit, .. } => {
                (replica.seen.attempt, replica.seen.crashes) = (attempt, crashes);
                replica.seen.last_exit = last_exit;
                replica.seen.phase = Phase::Launching;
            }
            Record::Ended { attempt, ended, .. } => {
                replica.seen.attempt = attempt;
                replica.seen.phase = Phase::Ended(ended);
            }
            _ => {}
        }
    }

    fn adopt_found(&mut self, now: Instant, one: Found) {
        let (replica, attempt) = (one.replica, one.attempt);
        match self.replicas.get_mut(&replica) {
            Some(known) if known.live() && attempt >= known.seen.attempt => {
                known.seen.attempt = attempt;
                self.adopt_present(now, replica, attempt, one.state);
            }
            Some(known)
                if attempt < known.seen.attempt && known.live() && matches!(one.state, FoundState::Ended(_)) => {}
            Some(_) => self.clear_away(replica, attempt, &one.state),
            None if matches!(one.state, FoundState::Alive { .. }) => {
                self.effects.push(Effect::Stray { replica, attempt })
            }
            None => self.effects.push(Effect::Forget { replica, attempt }),
        }
    }

    fn adopt_present(&mut self, now: Instant, id: ReplicaId, attempt: u32, state: FoundState) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        match state {
            FoundState::Alive { address, since } => {
                replica.begin_running(since.min(now), address, Work::unknown(now));
                self.watch(id);
            }
            FoundState::Ended(exit) => {
                replica.seen.phase = Phase::Launching;
                match exit {
                    Exit::Unknown => self.lost(now, id),
                    exit => self.exited(now, id, attempt, exit),
                }
            }
        }
    }

    /// A rest of a replica whose end, or whose later attempt, is on record.
    fn clear_away(&mut self, replica: ReplicaId, attempt: u32, state: &FoundState) {
        if matches!(state, FoundState::Alive { .. }) {
            self.effects.push(Effect::Kill { replica, attempt });
        }
    }
}
