//! The loop of thought: take an input in, do what follows for every replica it touched, tell the leader once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::Config;
use crate::demand::Asks;
use crate::effect::Effect;
use crate::ids::{Fence, OrderSequence, ReplicaId, SessionId, SpecDigest};
use crate::input::{Input, RunSpec, WhenCutOff};
use crate::journal::Record;
use crate::replica::{Phase, Replica};
use crate::report::{Lifecycle, NodeUse, RefusedOrder, ReplicaReport, Report};
use crate::units::Instant;

/// An agent's mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCore {
    pub(crate) config: Config,
    pub(crate) fence: Fence,
    pub(crate) session: Option<Session>,
    pub(crate) cut_off_since: Option<Instant>,
    pub(crate) specs: BTreeMap<SpecDigest, RunSpec>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
    /// Ended and acknowledged, the longest ago first.
    pub(crate) remembered: VecDeque<ReplicaReport>,
    /// Of the server, at this agent's start.
    pub(crate) boot: String,
    /// The latest clock it was told: time never goes back.
    latest: Instant,
    pub(crate) images: BTreeMap<String, ImageState>,
    /// Moments at which a replica is looked at again; stale ones do no harm.
    pub(crate) timers: BTreeSet<(Instant, ReplicaId)>,
    /// To be looked at in this step.
    pub(crate) touched: BTreeSet<ReplicaId>,
    /// To be told at the end of this step.
    pub(crate) news: BTreeSet<ReplicaId>,
    pub(crate) refused: Vec<RefusedOrder>,
    /// What is asked for here.
    pub(crate) asks: Asks,
    pub(crate) acknowledge: bool,
    pub(crate) effects: Vec<Effect>,
}

/// A live connection to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) fence: Fence,
    pub(crate) id: SessionId,
    pub(crate) acknowledged: OrderSequence,
    /// The last version of allowances taken in.
    pub(crate) allowed: u64,
}

/// What is known of an image on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageState {
    Fetching,
    Ready,
    /// Failed for a passing reason; asked for again from then on.
    Waiting(Instant),
}

impl AgentCore {
    /// A mind that knows nothing yet; give it `Input::Adopted` first.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            fence: Fence::default(),
            session: None,
            cut_off_since: None,
            specs: BTreeMap::new(),
            replicas: BTreeMap::new(),
            remembered: VecDeque::new(),
            boot: String::new(),
            latest: Instant(0),
            images: BTreeMap::new(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            news: BTreeSet::new(),
            refused: Vec::new(),
            asks: Asks::default(),
            acknowledge: false,
            effects: Vec::new(),
        }
    }

    /// Takes one input in; returns what to do, in order.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        self.steps(now, [input])
    }

    /// Takes several inputs in at one moment; the leader is told once.
    pub fn steps(&mut self, now: Instant, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        let now = self.latest.max(now);
        self.latest = now;
        for input in inputs {
            let load = self.take(now, input);
            self.settle(now);
            if load.is_some() {
                self.tell(now, load);
            }
        }
        self.tell(now, None);
        self.tell_demand(now);
        std::mem::take(&mut self.effects)
    }

    /// When to step at the latest, by `Input::Tick` when nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The highest fence obeyed.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The live session, if there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.session.map(|session| session.id)
    }

    /// How many replicas are on their way out by order.
    pub fn ending(&self) -> usize {
        self.replicas.values().filter(|replica| replica.live() && replica.wanted.stop.is_some()).count()
    }

    /// Every replica that runs, or whose end no leader has acknowledged.
    pub fn inventory(&self, now: Instant) -> Vec<ReplicaReport> {
        self.replicas.values().map(|replica| replica.report(now)).collect()
    }

    /// Attempts that have a process, to be sampled.
    pub fn attempts(&self) -> impl Iterator<Item = (ReplicaId, u32)> + '_ {
        self.replicas.values().filter(|r| r.has_process()).map(|r| (r.id, r.seen.attempt))
    }

    /// May this spec still be needed?
    pub fn knows_spec(&self, digest: &SpecDigest) -> bool {
        self.specs.contains_key(digest)
    }

    /// Which spec a remembered replica runs.
    pub fn spec_of(&self, replica: ReplicaId) -> Option<SpecDigest> {
        self.replicas.get(&replica).map(|replica| replica.digest)
    }

    /// A replica's present attempt and where it is; also of one whose end no leader has acknowledged.
    pub fn standing(&self, replica: ReplicaId) -> Option<(u32, Lifecycle)> {
        self.replicas.get(&replica).map(|replica| (replica.seen.attempt, replica.lifecycle()))
    }

    fn take(&mut self, now: Instant, input: Input) -> Option<NodeUse> {
        match input {
            Input::Adopted { records, found, heard, boot } => {
                self.adopt(now, records, found, boot);
                self.begin_cut_off(heard.min(now));
            }
            Input::Tick => {}
            Input::Greeting { fence, session } => self.greeted(now, fence, session),
            Input::Disconnected { session } => self.disconnected(now, session),
            Input::Orders { fence, session, specs, orders } => self.take_orders(now, fence, session, specs, orders),
            Input::Acknowledged { session, ended } => self.acknowledged(now, session, ended),
            Input::ImageReady { image } => {
                self.image_ready(image);
                self.retry_allowances(now);
            }
            Input::ImageFailed { image, retry, why } => self.image_failed(now, image, retry, &why),
            Input::Launched { replica, attempt, address } => self.launched(now, replica, attempt, address),
            Input::LaunchFailed { replica, attempt, failure } => self.launch_failed(now, replica, attempt, failure),
            Input::Exited { replica, attempt, exit } => self.exited(now, replica, attempt, exit),
            Input::Listening { replica, attempt, listening } => self.listening(replica, attempt, listening),
            Input::Checked { replica, attempt, probe, outcome } => self.checked(now, replica, attempt, probe, outcome),
            Input::Requests { replica, requests } => self.requests(now, replica, requests),
            Input::Demand { app, demand } => self.demanded(now, app, demand),
            Input::Allowances { fence, session, version, specs, allowances } => {
                self.allowed(now, (fence, session, version), specs, allowances);
            }
            Input::Sampled { readings } => self.sampled(now, readings),
            Input::Freeze { replica, frozen, force, ticket } => self.freeze(replica, frozen, force, ticket),
            Input::Heartbeat { load } => {
                self.forget_quiet(now);
                return Some(load);
            }
        }
        None
    }

    /// Looks at every touched or due replica until none is left.
    fn settle(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            self.touched.insert(id);
        }
        while let Some(id) = self.touched.pop_first() {
            self.reconcile(now, id);
        }
        self.tell_ingress();
    }

    fn tell(&mut self, now: Instant, load: Option<NodeUse>) {
        let (news, refused) = (std::mem::take(&mut self.news), std::mem::take(&mut self.refused));
        let acknowledge = std::mem::take(&mut self.acknowledge);
        let Some(session) = self.session else { return };
        if load.is_none() && !acknowledge && news.is_empty() && refused.is_empty() {
            return;
        }
        let told = |r: &&Replica| load.is_some() || news.contains(&r.id);
        let replicas = self.replicas.values().filter(told).map(|r| r.report(now)).collect();
        let Session { acknowledged, allowed, .. } = session;
        let report = Report { acknowledged, load, replicas, refused, allowed };
        self.effects.push(Effect::Report { fence: session.fence, session: session.id, report });
    }

    pub(crate) fn persist(&mut self, record: Record) {
        self.effects.push(Effect::Persist(record));
    }

    /// Marks a replica as changed: it is looked at again in this step, and the leader hears of it.
    pub(crate) fn changed(&mut self, id: ReplicaId) {
        self.touched.insert(id);
        self.news.insert(id);
    }

    /// The replica, when this attempt is its present one and it has not ended.
    pub(crate) fn present(&mut self, id: ReplicaId, attempt: u32) -> Option<&mut Replica> {
        self.replicas.get_mut(&id).filter(|r| r.seen.attempt == attempt && r.live())
    }

    /// From now on nobody orders: replicas with a time limit get their timer, conditional stops of the session are void.
    pub(crate) fn begin_cut_off(&mut self, since: Instant) {
        self.session = None;
        self.cut_off_since = Some(since);
        for replica in self.replicas.values_mut() {
            replica.wanted.asked = None;
            if let (true, WhenCutOff::StopAfter(length)) = (replica.live(), replica.run.when_cut_off) {
                self.timers.insert((since + length, replica.id));
            }
        }
    }

    /// The journal in its shortest form: what a new one would begin with.
    pub fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Fence(self.fence), Record::Boot(self.boot.clone())];
        records.extend(self.specs.iter().map(|(digest, run)| Record::Spec { digest: *digest, run: run.clone() }));
        for replica in self.replicas.values() {
            replica_records(replica, &mut records);
        }
        self.remembered.iter().for_each(|gone| memory_records(gone, &mut records));
        records
    }

    /// Keeps how and why it ended, bounded.
    pub(crate) fn remember(&mut self, gone: ReplicaReport) {
        self.remembered.push_back(gone);
        while self.remembered.len() > self.config.remembered_most {
            self.remembered.pop_front();
        }
    }
}

fn memory_records(gone: &ReplicaReport, records: &mut Vec<Record>) {
    let Some(ended) = gone.ended.clone() else { return };
    let (replica, obeyed, attempt) = (gone.id, gone.obeyed, gone.attempt);
    let (app, revision, digest, reason) = (gone.app, gone.revision, gone.digest, gone.reason.clone());
    records.push(Record::Ordered { replica, app, revision, digest, reason, obeyed });
    records.push(Record::Ended { replica, attempt, ended });
    records.push(Record::Forgotten { replica });
}

fn replica_records(r: &Replica, records: &mut Vec<Record>) {
    let (replica, obeyed) = (r.id, r.wanted.obeyed);
    let (app, revision, digest) = (r.app, r.revision, r.digest);
    records.push(Record::Ordered { replica, app, revision, digest, reason: r.reason.clone(), obeyed });
    if r.wanted.parked {
        records.push(Record::Parked { replica, parked: true, obeyed });
    }
    if let Some(stop) = &r.wanted.stop {
        records.push(Record::Stop { replica, grace: stop.grace, reason: stop.reason.clone(), obeyed });
    }
    let (attempt, crashes) = (r.seen.attempt, r.seen.crashes);
    match &r.seen.phase {
        Phase::New | Phase::Pulling => {}
        Phase::Ended(ended) => records.push(Record::Ended { replica, attempt, ended: ended.clone() }),
        Phase::Waiting(_) if attempt > 1 => {
            let (attempt, crashes) = (attempt - 1, crashes.saturating_sub(1));
            // That one ran, and the runtime remembers its end; the next was not begun.
            records.push(Record::Attempt { replica, attempt, crashes, last_exit: None });
        }
        _ => records.push(Record::Attempt { replica, attempt, crashes, last_exit: r.seen.last_exit }),
    }
}
