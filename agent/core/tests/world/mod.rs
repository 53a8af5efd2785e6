//! A small world around one agent's mind: a leader that says things in and out of turn, and a runtime that does what it is told, late.
//! The laws are checked after every step by a second opinion that knows nothing of the mind's inside.

use std::collections::{BTreeMap, BTreeSet};

use bellows_agent_core::input::{Counters, Found, FoundState, LaunchFailure, Reading};
use bellows_agent_core::{
    Action, AgentCore, AppId, Config, Effect, Exit, Fence, Input, Instant, Lifecycle, Millis, Order, OrderSequence,
    Planted, Reason, Record, ReplicaId, RevisionNumber, RunSpec, SessionId, SpecDigest, WhenCutOff,
};

/// One roll of the dice: what happens, and two numbers that say to whom and how.
pub type Roll = (u8, u8, u8);

/// The world.
pub struct World {
    pub core: AgentCore,
    config: Config,
    now: Instant,
    journal: Vec<Record>,
    /// What the mind was given and what it answered, for the replay.
    pub inputs: Vec<(Instant, Input)>,
    pub effects: Vec<Effect>,
    leader: Leader,
    /// Of the server; changes with every reboot.
    boot: u32,
    /// Attempts that the runtime is asked to launch, and those that run.
    launching: BTreeSet<(ReplicaId, u32)>,
    running: BTreeSet<(ReplicaId, u32)>,
    law: Law,
}

struct Leader {
    fence: Fence,
    session: SessionId,
    sequence: u64,
    counter: u64,
    connected: bool,
    /// Batches sent so far, to be said again.
    said: Vec<Input>,
}

/// The second opinion.
#[derive(Default)]
struct Law {
    highest: Fence,
    live: Option<(Fence, SessionId)>,
    disconnected_at: Option<Instant>,
    stop_ordered: BTreeSet<ReplicaId>,
    lifecycle: BTreeMap<ReplicaId, (u32, Lifecycle)>,
    stop_decided: BTreeSet<ReplicaId>,
    persisted_attempts: BTreeSet<(ReplicaId, u32)>,
    persisted_fence: Fence,
}

const CUT_OFF: Millis = Millis(5_000);

fn spec(which: u8) -> (SpecDigest, RunSpec) {
    let when_cut_off = if which == 1 { WhenCutOff::StopAfter(CUT_OFF) } else { WhenCutOff::KeepRunning };
    let ready_port = (which == 2).then_some(80);
    let run =
        RunSpec { image: "image".to_owned(), ready_port, when_cut_off, stop_grace: Millis(100), ..RunSpec::default() };
    (SpecDigest([which; 32]), run)
}

impl World {
    pub fn new(planted: Planted) -> Self {
        let config = Config { planted, ..Config::default() };
        let fence = Fence { incarnation: 1, term: 1 };
        let leader =
            Leader { fence, session: SessionId(0), sequence: 0, counter: 0, connected: false, said: Vec::new() };
        let core = AgentCore::new(config.clone());
        let (inputs, effects, journal) = (Vec::new(), Vec::new(), Vec::new());
        let (launching, running, law) = Default::default();
        let mut world =
            Self { core, config, now: Instant(1), journal, inputs, effects, leader, boot: 0, launching, running, law };
        let first = Input::Adopted { records: Vec::new(), found: Vec::new(), heard: world.now, boot: world.boot() };
        world.give(first).expect("nothing can be wrong yet");
        world
    }

    fn boot(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// Makes one thing happen; tells which law was broken.
    pub fn roll(&mut self, (what, which, how): Roll) -> Result<(), String> {
        self.now = self.now + Millis(u64::from(how) * 7);
        match what % 16 {
            0 => self.greet(false),
            1 => self.greet(true),
            2 => self.old_leader(which),
            3..=5 => self.start(which % 3),
            6 => self.about(which, if how.is_multiple_of(2) { Action::Park } else { Action::Unpark }),
            7 => self.about(which, Action::Stop { only_if_idle: how.is_multiple_of(2), grace: Millis(u64::from(how)) }),
            8 => self.repeat(which),
            9 => self.disconnect(),
            10 => self.image(how),
            11 => self.finish_launch(which, how),
            12 => self.exit(which, how),
            13 => self.sample(which, how),
            14 => self.restart(how),
            _ => self.acknowledge_or_tick(how),
        }
    }

    fn give(&mut self, input: Input) -> Result<(), String> {
        self.law.hear(self.now, &input);
        self.inputs.push((self.now, input.clone()));
        let effects = self.core.step(self.now, input.clone());
        for effect in &effects {
            self.perform(effect)?;
        }
        self.effects.extend(effects.iter().cloned());
        self.law.covers(&input, &effects)?;
        self.law.after(&self.core, self.now)
    }

    fn perform(&mut self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Persist(record) => {
                self.journal.push(record.clone());
                self.law.persisted(record, self.now)?;
            }
            Effect::Hello { fence, .. } if self.law.persisted_fence < *fence => {
                return Err(format!("hello with {fence} before it was persisted"));
            }
            Effect::Launch { replica, attempt, .. } => {
                if self.busy_with(*replica) {
                    return Err(format!("{replica}: two actions at a time"));
                }
                if !self.law.persisted_attempts.contains(&(*replica, *attempt)) {
                    return Err(format!("{replica}.{attempt} launched before it was persisted"));
                }
                self.launching.insert((*replica, *attempt));
            }
            Effect::Stop { replica, attempt, .. } if !self.running.contains(&(*replica, *attempt)) => {
                return Err(format!("{replica}.{attempt} is stopped but does not run"));
            }
            Effect::Stop { replica, .. } | Effect::Kill { replica, .. } if !self.law.stop_decided.contains(replica) => {
                return Err(format!("{replica} is stopped and no decision was persisted"));
            }
            _ => {}
        }
        Ok(())
    }

    fn busy_with(&self, replica: ReplicaId) -> bool {
        self.launching.iter().chain(&self.running).any(|(id, _)| *id == replica)
    }

    fn greet(&mut self, higher: bool) -> Result<(), String> {
        let leader = &mut self.leader;
        if higher {
            (leader.fence.term, leader.counter) = (leader.fence.term + 1, 0);
        }
        (leader.session.0, leader.sequence, leader.connected) = (leader.session.0 + 1, 0, true);
        let input = Input::Greeting { fence: leader.fence, session: leader.session };
        self.give(input)
    }

    /// A leader of an earlier term speaks.
    fn old_leader(&mut self, which: u8) -> Result<(), String> {
        let fence = Fence { incarnation: 1, term: self.leader.fence.term.saturating_sub(1) };
        if which.is_multiple_of(2) {
            return self.give(Input::Greeting { fence, session: SessionId(1_000) });
        }
        let Some(replica) = self.some_replica(which) else { return Ok(()) };
        let stop = Action::Stop { only_if_idle: false, grace: Millis(10) };
        let order = Order { sequence: OrderSequence(1), replica, action: stop, reason: Reason::default() };
        self.give(Input::Orders { fence, session: SessionId(1_000), specs: Vec::new(), orders: vec![order] })
    }

    fn some_replica(&self, which: u8) -> Option<ReplicaId> {
        let known: Vec<ReplicaId> = self.law.lifecycle.keys().copied().collect();
        known.get(usize::from(which) % known.len().max(1)).copied()
    }

    fn start(&mut self, which: u8) -> Result<(), String> {
        self.leader.counter += 1;
        let replica = ReplicaId { fence: self.leader.fence, counter: self.leader.counter };
        let (digest, _) = spec(which);
        self.order(replica, Action::Start { app: AppId(1), revision: RevisionNumber(1), digest })
    }

    fn about(&mut self, which: u8, action: Action) -> Result<(), String> {
        match self.some_replica(which) {
            Some(replica) => self.order(replica, action),
            None => Ok(()),
        }
    }

    fn order(&mut self, replica: ReplicaId, action: Action) -> Result<(), String> {
        if !self.leader.connected {
            return Ok(());
        }
        self.leader.sequence += 1;
        let order = Order {
            sequence: OrderSequence(self.leader.sequence),
            replica,
            action,
            reason: Reason::new("test", "rolled"),
        };
        let specs = (0..3).map(spec).collect();
        let batch =
            Input::Orders { fence: self.leader.fence, session: self.leader.session, specs, orders: vec![order] };
        self.leader.said.push(batch.clone());
        self.give(batch)
    }

    fn repeat(&mut self, which: u8) -> Result<(), String> {
        let said = &self.leader.said;
        match said.get(usize::from(which) % said.len().max(1)).cloned() {
            Some(batch) => self.give(batch),
            None => Ok(()),
        }
    }

    fn disconnect(&mut self) -> Result<(), String> {
        self.leader.connected = false;
        self.give(Input::Disconnected { session: self.leader.session })
    }

    fn image(&mut self, how: u8) -> Result<(), String> {
        let image = "image".to_owned();
        match how % 8 {
            0 => self.give(Input::ImageFailed { image, retry: true, why: "late".to_owned() }),
            1 => self.give(Input::ImageFailed { image, retry: false, why: "gone".to_owned() }),
            _ => self.give(Input::ImageReady { image }),
        }
    }

    fn finish_launch(&mut self, which: u8, how: u8) -> Result<(), String> {
        let Some((replica, attempt)) = nth(&self.launching, which) else { return Ok(()) };
        self.launching.remove(&(replica, attempt));
        match how % 8 {
            0 => self.give(Input::LaunchFailed {
                replica,
                attempt,
                failure: LaunchFailure::Failed("it happens".to_owned()),
            }),
            1 => self.give(Input::LaunchFailed {
                replica,
                attempt,
                failure: LaunchFailure::Impossible("never".to_owned()),
            }),
            _ => {
                self.running.insert((replica, attempt));
                self.give(Input::Launched { replica, attempt, address: "10.0.0.1".to_owned() })
            }
        }
    }

    fn exit(&mut self, which: u8, how: u8) -> Result<(), String> {
        let Some((replica, attempt)) = nth(&self.running, which) else { return Ok(()) };
        self.running.remove(&(replica, attempt));
        self.give(Input::Exited { replica, attempt, exit: Exit::Code(i32::from(how)) })
    }

    fn sample(&mut self, which: u8, how: u8) -> Result<(), String> {
        let Some((replica, attempt)) = nth(&self.running, which) else { return Ok(()) };
        if how.is_multiple_of(5) {
            return self.give(Input::Listening { replica, attempt, listening: how.is_multiple_of(2) });
        }
        let counters = Counters { connections: u32::from(how.is_multiple_of(3)), ..Counters::default() };
        self.give(Input::Sampled { readings: vec![Reading { replica, attempt, counters: Some(counters) }] })
    }

    /// The agent is killed and started again; now and then with a compacted journal, now and then after its processes were killed too,
    /// or after a reboot of the server.
    fn restart(&mut self, how: u8) -> Result<(), String> {
        if how.is_multiple_of(2) {
            self.journal = self.core.records();
        }
        self.launching.clear(); // the launch was undone, or never seen
        if how.is_multiple_of(5) {
            self.running.clear();
            self.boot += u32::from(how.is_multiple_of(2));
        }
        self.leader.connected = false;
        let alive = |(replica, attempt): &(ReplicaId, u32)| Found {
            replica: *replica,
            attempt: *attempt,
            state: FoundState::Alive { address: "10.0.0.1".to_owned(), since: Instant(1) },
        };
        let found = self.running.iter().map(alive).collect();
        self.core = AgentCore::new(self.config.clone());
        (self.inputs, self.effects) = (Vec::new(), Vec::new());
        self.give(Input::Adopted { records: self.journal.clone(), found, heard: self.now, boot: self.boot() })
    }

    fn acknowledge_or_tick(&mut self, how: u8) -> Result<(), String> {
        if how.is_multiple_of(2) || !self.leader.connected {
            return self.give(Input::Tick);
        }
        let ended: Vec<ReplicaId> =
            self.core.inventory(self.now).iter().filter(|r| r.ended.is_some()).map(|r| r.id).collect();
        for id in &ended {
            self.law.lifecycle.remove(id);
        }
        self.give(Input::Acknowledged { session: self.leader.session, ended })
    }
}

fn nth(set: &BTreeSet<(ReplicaId, u32)>, which: u8) -> Option<(ReplicaId, u32)> {
    set.iter().nth(usize::from(which) % set.len().max(1)).copied()
}

impl Law {
    fn hear(&mut self, now: Instant, input: &Input) {
        match input {
            Input::Adopted { heard, .. } => (self.live, self.disconnected_at) = (None, Some(*heard)),
            Input::Greeting { fence, session } if *fence >= self.highest => {
                self.highest = *fence;
                (self.live, self.disconnected_at) = (Some((*fence, *session)), None);
            }
            Input::Disconnected { session } if self.live.is_some_and(|live| live.1 == *session) => {
                (self.live, self.disconnected_at) = (None, Some(now));
            }
            Input::Orders { fence, session, orders, .. } if self.live == Some((*fence, *session)) => {
                let stops = orders.iter().filter(|order| matches!(order.action, Action::Stop { .. }));
                self.stop_ordered.extend(stops.map(|order| order.replica));
            }
            _ => {}
        }
    }

    fn persisted(&mut self, record: &Record, now: Instant) -> Result<(), String> {
        match record {
            Record::Fence(fence) => self.persisted_fence = *fence,
            Record::Attempt { replica, attempt, .. } => {
                self.persisted_attempts.insert((*replica, *attempt));
            }
            Record::Stop { replica, .. } => return self.decided_to_stop(*replica, now),
            Record::Forgotten { replica } => {
                self.lifecycle.remove(replica);
            }
            _ => {}
        }
        Ok(())
    }

    fn decided_to_stop(&mut self, replica: ReplicaId, now: Instant) -> Result<(), String> {
        let cut_off = self.disconnected_at.is_some_and(|at| at + CUT_OFF <= now);
        if !self.stop_ordered.contains(&replica) && !cut_off {
            return Err(format!("{replica} is stopped without an order"));
        }
        self.stop_decided.insert(replica);
        Ok(())
    }

    /// Whatever came of an order, the report of its step acknowledges it.
    fn covers(&self, input: &Input, effects: &[Effect]) -> Result<(), String> {
        let Input::Orders { fence, session, orders, .. } = input else { return Ok(()) };
        if self.live != Some((*fence, *session)) {
            return Ok(());
        }
        let last = orders.iter().map(|order| order.sequence).max().unwrap_or_default();
        let covered = |effect: &Effect| matches!(effect, Effect::Report { session: to, report, .. } if to == session && report.acknowledged >= last);
        match effects.iter().any(covered) {
            true => Ok(()),
            false => Err(format!("order {last} of {session} was not acknowledged")),
        }
    }

    fn after(&mut self, core: &AgentCore, now: Instant) -> Result<(), String> {
        if core.fence() < self.highest {
            return Err(format!("fence went back from {} to {}", self.highest, core.fence()));
        }
        let inventory = core.inventory(now);
        for report in &inventory {
            let is = (report.attempt, report.lifecycle);
            let was = self.lifecycle.insert(report.id, is).unwrap_or_default();
            // A wait for the next attempt is not on record: a reboot ends the replica at the attempt that is.
            let back = if was.1 == Lifecycle::Ended { is != was } else { is < was && is.1 != Lifecycle::Ended };
            if back {
                return Err(format!("{} went back from {was:?} to {is:?}", report.id));
            }
            if report.ready && report.lifecycle != Lifecycle::Running {
                return Err(format!("{} is ready but {:?}", report.id, report.lifecycle));
            }
        }
        match self.lifecycle.keys().find(|id| !inventory.iter().any(|report| report.id == **id)) {
            Some(lost) => Err(format!("{lost} is forgotten, but nobody acknowledged its end")),
            None => Ok(()),
        }
    }
}
