//! The one loop: news in, one step of the core, the journal first, then everything else. It has a thread of its own because the journal's sync blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::input::LaunchFailure;
use bellows_agent_core::witness::Standing as Witnessed;
use bellows_agent_core::{
    AgentCore, Allowance, AppId, Effect, Fence, Input, Probe, Record, ReplicaId, ReplicaReport, Resources, SessionId,
};
use bellows_proto::node::{FromAgent, Hello, Subscribe, from_agent};
use bellows_runtime::handle::NodeUsage;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::attempts::Attempts;
use crate::clock::{Clock, SinceBoot};
use crate::containers::{Containers, container};
use crate::convert::{Batch, run_spec, wire_fence, wire_replica_report, wire_report, wire_resources};
use crate::freezes::Freezes;
use crate::health::Checks;
use crate::images::Images;
use crate::journal::{Journal, JournalError};
use crate::news::{Greeting, News, Outbound, Standing};
use crate::sample::NodeMeter;
use crate::specs::SpecBook;
use crate::state::StateFolder;
use crate::traffic::{DataPlane, wire_allowance, wire_traffic};
use crate::watch::Watcher;
use crate::worker::{Job, Queue, chain};

/// Where it is written how copies stood that were parked or stopped.
const WITNESS: &str = "bellows_agent::witness";

/// How often to measure while no leader has said how often to report.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// What the server is, for hello.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) boot: String,
    pub(crate) capacity: Resources,
    pub(crate) labels: BTreeMap<String, String>,
    /// Its number in the cluster.
    pub(crate) node: u32,
    /// Where other nodes' ingresses reach its own; empty: they cannot.
    pub(crate) ingress: String,
    /// Where it takes requests for all apps.
    pub(crate) shared_ports: Vec<u16>,
}

/// The loop and what it owns.
pub(crate) struct Driver {
    pub(crate) core: AgentCore,
    pub(crate) journal: Journal,
    pub(crate) specs: SpecBook,
    pub(crate) clock: Clock,
    pub(crate) folder: Arc<StateFolder>,
    pub(crate) facts: Facts,
    pub(crate) queue: Arc<Queue>,
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) images: Arc<Images>,
    pub(crate) plane: Arc<dyn DataPlane>,
    pub(crate) health: Arc<Checks>,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) freezes: Freezes,
    pub(crate) runtime: Handle,
    pub(crate) fence: watch::Sender<Fence>,
    pub(crate) news: mpsc::Sender<News>,
    pub(crate) meter: NodeMeter,
    pub(crate) live: Live,
    /// Set when a controller said no for good.
    pub(crate) refused: watch::Sender<Option<String>>,
    /// How many replicas are on their way out by order; kept up to date once refused.
    pub(crate) ending: watch::Sender<usize>,
}

/// The connection, as far as the driver is concerned.
#[derive(Default)]
pub(crate) struct Live {
    stream: Option<(SessionId, Fence, Outbound)>,
    interval: Option<Duration>,
    /// When to measure next; nothing while a measurement is under way.
    next: Option<tokio::time::Instant>,
}

impl Driver {
    /// Runs until closed, or until the journal fails: an agent that cannot keep its word must not go on.
    pub(crate) async fn run(mut self, mut receiver: mpsc::Receiver<News>, first: Input) -> Result<(), JournalError> {
        self.step(vec![first])?;
        self.journal.compact(&self.core.records(), &self.specs)?;
        self.schedule_measurement();
        let mut news = Vec::new();
        loop {
            let wake = self.wake_at();
            tokio::select! {
                count = receiver.recv_many(&mut news, 256) => if count == 0 { return Ok(()) },
                () = tokio::time::sleep_until(wake) => {}
            }
            if !self.take(std::mem::take(&mut news))? {
                return Ok(());
            }
        }
    }

    /// The connection that speaks for the leader.
    pub(crate) fn live_session(&self) -> Option<(SessionId, Fence)> {
        self.live.stream.as_ref().map(|(session, fence, _)| (*session, *fence))
    }

    fn wake_at(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let core = self.core.wake_at().map(|at| now + self.clock.until(at));
        let far = now + Duration::from_secs(60);
        [core, self.live.next].into_iter().flatten().min().unwrap_or(far)
    }

    /// Everything that came, in one step. False when it is over.
    fn take(&mut self, news: Vec<News>) -> Result<bool, JournalError> {
        let mut inputs = vec![Input::Tick];
        let (mut open, mut refused) = (true, None);
        for one in news {
            match one {
                News::Core(Input::Sampled { readings }) => self.judged(readings, &mut inputs),
                News::Core(input) => {
                    self.hang_up(&input);
                    inputs.push(input);
                }
                News::Greeting(greeting) => inputs.push(self.greeted(greeting)),
                News::Orders(batch) => inputs.push(self.ordered(batch)),
                News::Entrances(push) => self.entrances(push),
                News::Routes(push) => self.routes(push),
                News::Allowances(push) => inputs.push(self.allowed(push)),
                News::Measured { readings, node } => {
                    self.judged(readings, &mut inputs);
                    inputs.extend(self.measured(node));
                }
                // Whoever asked may have gone.
                News::Find { replica, answer } => drop(answer.send(self.standing(replica))),
                News::Freeze { replica, frozen, force, answer } => {
                    inputs.push(self.freezes.wish(replica, frozen, force, answer));
                }
                News::Close => open = false,
                News::Refused(why) => refused = Some(why),
            }
        }
        self.step(inputs)?;
        if refused.is_some() {
            self.ending.send_replace(self.core.ending());
            self.refused.send_replace(refused);
        }
        self.measure_when_due();
        Ok(open)
    }

    fn standing(&self, replica: ReplicaId) -> Option<Standing> {
        let (attempt, lifecycle) = self.core.standing(replica)?;
        let spec = self.core.spec_of(replica).and_then(|digest| self.specs.find(&digest)).cloned();
        Some(Standing { attempt, lifecycle, spec })
    }

    fn greeted(&mut self, greeting: Greeting) -> Input {
        let Greeting { fence, session, heartbeat, stream } = greeting;
        self.live.stream = Some((session, fence, stream));
        self.live.interval = (!heartbeat.is_zero()).then_some(heartbeat);
        Input::Greeting { fence, session }
    }

    fn hang_up(&mut self, input: &Input) {
        if let Input::Disconnected { session } = input {
            self.live.stream.take_if(|(live, _, _)| live == session);
        }
    }

    fn ordered(&mut self, batch: Batch) -> Input {
        let Batch { fence, session, specs, orders } = batch;
        let specs = specs.into_iter().map(|(digest, spec)| {
            let run = run_spec(&spec);
            self.specs.insert(digest, spec);
            (digest, run)
        });
        Input::Orders { fence, session, specs: specs.collect(), orders }
    }

    /// The node's use, as a heartbeat when a leader listens.
    fn measured(&mut self, node: Option<NodeUsage>) -> Option<Input> {
        self.schedule_measurement();
        let now = self.clock.now();
        let load = match node {
            Some(node) => self.meter.read(now, node),
            None => self.meter.recall(now),
        };
        self.core.session()?;
        if let Err(error) = self.folder.touch_contact(&self.facts.boot, SinceBoot::now()) {
            tracing::error!(error = chain(&error), "cannot note that a leader is in touch");
        }
        Some(Input::Heartbeat { load })
    }

    /// A tenth of jitter either way: agents that started together do not report together.
    fn schedule_measurement(&mut self) {
        let interval = self.live.interval.unwrap_or(DEFAULT_INTERVAL);
        self.live.next = Some(tokio::time::Instant::now() + interval.mul_f64(rand::random_range(0.9..=1.1)));
    }

    fn measure_when_due(&mut self) {
        if self.live.next.is_some_and(|at| at <= tokio::time::Instant::now()) {
            self.live.next = None;
            self.queue.push(Job::Measure(self.core.attempts().collect()));
        }
    }

    fn step(&mut self, inputs: Vec<Input>) -> Result<(), JournalError> {
        let effects = self.core.steps(self.clock.now(), inputs);
        let (records, effects): (Vec<Effect>, Vec<Effect>) =
            effects.into_iter().partition(|effect| matches!(effect, Effect::Persist(_)));
        let record = |effect| if let Effect::Persist(record) = effect { Some(record) } else { None };
        self.persist(records.into_iter().filter_map(record).collect())?;
        for effect in effects {
            self.perform(effect);
        }
        if self.refused.borrow().is_some() {
            self.ending.send_replace(self.core.ending());
        }
        Ok(())
    }

    fn persist(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        self.journal.append(&records, &self.specs)?;
        for record in &records {
            if let Record::Ended { replica, .. } | Record::Forgotten { replica } = record {
                self.attempts.over(*replica);
            }
        }
        if self.journal.wants_compaction() {
            self.journal.compact(&self.core.records(), &self.specs)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(Record::Parked { replica, parked: true, .. }) => self.witness(replica, "parked"),
            Effect::Persist(_) => {} // done before
            Effect::Hello { fence, session, inventory, remembered, allowances } => {
                self.hello(fence, session, (inventory, remembered), &allowances);
            }
            Effect::Subscribe { fence, session, apps, dropped } => {
                dropped.iter().for_each(|app| self.plane.forget(*app));
                let numbers = |apps: Vec<AppId>| apps.into_iter().map(|app| app.0).collect();
                let subscribe = Subscribe { session: session.0, apps: numbers(apps), dropped: numbers(dropped) };
                self.send(fence, session, from_agent::Body::Subscribe(subscribe));
            }
            Effect::Traffic { fence, session, apps, replicas } => {
                self.send(fence, session, from_agent::Body::Traffic(wire_traffic(session, apps, replicas)));
            }
            Effect::Serve(serving) => self.serve(serving),
            Effect::Report { fence, session, report } => {
                self.send(fence, session, from_agent::Body::Report(wire_report(session, report)));
            }
            Effect::CloseSession { session, why } => self.close(session, why),
            Effect::Pull { image } => self.pull(image),
            Effect::Launch { replica, attempt, digest } => match self.specs.find(&digest) {
                Some(spec) => self.queue.push(Job::Launch { replica, attempt, spec: spec.clone() }),
                None => self.launch_without_spec(replica, attempt),
            },
            Effect::Watch { replica, attempt, port } => self.watcher.add(replica, attempt, port),
            Effect::Freeze { replica, attempt, frozen, ticket } => {
                let answer = self.freezes.take(ticket);
                match frozen {
                    true => self.queue.push(Job::Freeze { replica, attempt, ticket, answer }),
                    false => {
                        let done = self.thaw(replica, attempt).map(|()| (0, 0));
                        drop(answer.map(|answer| answer.send(done)));
                    }
                }
            }
            Effect::RefuseFreeze { ticket, why } => self.freezes.refuse(ticket, why),
            Effect::Thaw { replica, attempt } => {
                if let Err(error) = self.thaw(replica, attempt) {
                    tracing::error!(%replica, attempt, error, "cannot thaw a container");
                }
            }
            Effect::Check { replica, attempt, probe } => self.check(replica, attempt, probe),
            Effect::Sample { replica, attempt } => self.queue.push(Job::Sample { replica, attempt }),
            Effect::Stop { replica, attempt, .. } => {
                self.witness(replica, "stopped");
                self.queue.overtake_freeze(replica);
                let spec = self.core.spec_of(replica).and_then(|digest| self.specs.find(&digest)).cloned();
                self.queue.push(Job::Stop { replica, attempt, spec });
            }
            Effect::Kill { replica, attempt } => {
                self.queue.overtake_freeze(replica);
                self.queue.push(Job::Kill { replica, attempt });
            }
            Effect::Forget { replica, attempt } => self.queue.push(Job::Forget { replica, attempt }),
            Effect::DropSpec { digest } if self.core.knows_spec(&digest) => {} // carried again meanwhile
            Effect::DropSpec { digest } => self.specs.remove(&digest),
            Effect::Stray { replica, attempt } => tracing::error!(
                %replica,
                attempt,
                "this container runs, but the journal knows no order for it: it is left alone; end it by removing its cgroup's processes"
            ),
        }
    }

    /// For whoever judges afterwards which copies were chosen: how this one and its peers stood.
    fn witness(&self, replica: ReplicaId, what: &str) {
        if !tracing::enabled!(target: WITNESS, tracing::Level::DEBUG) {
            return; // it takes a look at every copy
        }
        let Some(standing) = self.core.witness(replica) else { return };
        let Witnessed { app, requests, busy, idle_others } = standing;
        let (busy, why) = (busy.is_some(), busy.unwrap_or_default());
        tracing::debug!(target: WITNESS, %replica, app = app.0, what, requests, busy, idle_others, why);
    }

    /// Here and not by a worker: what follows in this step, the leader's news first of all, holds only when it goes on. It takes a tenth of a millisecond.
    fn thaw(&self, replica: ReplicaId, attempt: u32) -> Result<(), String> {
        self.queue.overtake_freeze(replica);
        self.containers.thaw(&container(replica, attempt)).map_err(|error| chain(&error))
    }

    /// In a task of its own: a check that hangs holds up nobody, and ends by its time.
    fn check(&self, replica: ReplicaId, attempt: u32, probe: Probe) {
        let spec = self.core.spec_of(replica).and_then(|digest| self.specs.find(&digest)).cloned();
        let (health, news) = (self.health.clone(), self.news.clone());
        self.runtime.spawn(async move {
            let outcome = match spec {
                Some(spec) => health.check(replica, attempt, probe, &spec).await,
                None => Err("its spec is not in this node's journal".to_owned()),
            };
            if news.send(News::Core(Input::Checked { replica, attempt, probe, outcome })).await.is_err() {
                tracing::debug!("news after the end");
            }
        });
    }

    fn launch_without_spec(&self, replica: ReplicaId, attempt: u32) {
        let why = "its spec is not in this node's journal".to_owned();
        let failure = LaunchFailure::Impossible(why);
        self.tell_self(Input::LaunchFailed { replica, attempt, failure });
    }

    /// From a task, because the driver must not wait for itself.
    fn tell_self(&self, input: Input) {
        let news = self.news.clone();
        self.runtime.spawn(async move {
            if news.send(News::Core(input)).await.is_err() {
                tracing::debug!("news after the end");
            }
        });
    }

    fn hello(
        &mut self,
        fence: Fence,
        session: SessionId,
        (inventory, remembered): (Vec<ReplicaReport>, Vec<ReplicaReport>),
        allowances: &[Allowance],
    ) {
        self.fence.send_replace(fence);
        let reports = |all: Vec<ReplicaReport>| all.into_iter().map(wire_replica_report).collect();
        let hello = Hello {
            fence: Some(wire_fence(fence)),
            session: session.0,
            boot: self.facts.boot.clone(),
            capacity: Some(wire_resources(self.facts.capacity)),
            labels: self.facts.labels.clone().into_iter().collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inventory: reports(inventory),
            remembered: reports(remembered),
            ingress_address: self.facts.ingress.clone(),
            allowances: allowances.iter().map(wire_allowance).collect(),
        };
        self.send(fence, session, from_agent::Body::Hello(hello));
    }

    /// To this session only. A stream that takes nothing any more is given up: the next hello tells everything.
    fn send(&mut self, fence: Fence, session: SessionId, body: from_agent::Body) {
        let Some((live, live_fence, stream)) = &self.live.stream else { return };
        if (*live, *live_fence) != (session, fence) {
            return;
        }
        if stream.messages.try_send(FromAgent { body: Some(body) }).is_err() {
            self.close(session, "the controller takes no more reports".to_owned());
        }
    }

    fn close(&mut self, session: SessionId, why: String) {
        let Some((_, _, mut stream)) = self.live.stream.take_if(|(live, _, _)| *live == session) else { return };
        if let Some(close) = stream.close.take()
            && close.send(why).is_err()
        {
            tracing::debug!(%session, "the stream has ended already");
        }
    }

    fn pull(&self, image: String) {
        let (images, news) = (self.images.clone(), self.news.clone());
        self.runtime.spawn(async move {
            let input = match images.ensure(&image).await {
                Ok(()) => Input::ImageReady { image },
                Err(error) => {
                    tracing::warn!(image, error = chain(&error), "an image cannot be had");
                    Input::ImageFailed { image, retry: error.passing(), why: chain(&error) }
                }
            };
            if news.send(News::Core(input)).await.is_err() {
                tracing::debug!("news after the end");
            }
        });
    }
}
