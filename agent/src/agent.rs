//! An agent's life: everything that must be right before it can promise anything, its threads and tasks, its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bellows_agent_core::input::{Found, FoundState};
use bellows_agent_core::{AgentCore, Bytes, Config, CpuMilli, Fence, Input, Record, ReplicaId, Resources, units};
use bellows_runtime::ContainerId;
use bellows_runtime::handle::{Adopted, Error as RuntimeError, Runtime, RuntimeConfig};
use bellows_runtime::image::{Error as StoreError, Store};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use crate::attempts::{Attempt, Attempts};
use crate::calls::Calls;
use crate::clock::Clock;
use crate::config::{AgentConfig, Replicas};
use crate::containers::{Containers, OpenRuntime, attempt_of};
use crate::driver::{Driver, Facts, Live};
use crate::exits::Exits;
use crate::freezes::Freezes;
use crate::health::Checks;
use crate::identity::{Identity, JoinError, join};
use crate::images::Images;
use crate::ingress::{Ingress, IngressConfig, IngressError, Inside, LinkConfig};
use crate::journal::{Journal, JournalError};
use crate::name_servers;
use crate::news::News;
use crate::sample::NodeMeter;
use crate::session::Sessions;
use crate::specs::SpecBook;
use crate::state::{StateError, StateFolder};
use crate::traffic::{DataPlane, NoIngress};
use crate::watch::Watcher;
use crate::worker::{self, Queue, Worker};

/// A node without replicas is heard of when its runtime has made slots ahead, which takes a tenth of a second; no later than this.
const FIRST_POOL: Duration = Duration::from_secs(2);

/// News that waits for the driver: a burst of a thousand launches brings a few thousand.
const NEWS: usize = 65_536;

/// How long a refused agent goes on for the sake of its last orders: twice the usual grace, and a margin.
const LAST_STOPS: Duration = Duration::from_secs(30);

/// How long requests under way may take when the agent ends and its replicas do not: as long as one is held by default, so that what began
/// to wait before goes through.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// And when they end too.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Containers need it.
    #[error(
        "an agent makes containers and must run as root (effective user {uid} does not suffice): start it with sudo, or as a system service"
    )]
    NotRoot {
        /// Who it is.
        uid: u32,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Becoming a node.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The image store.
    #[error("cannot open the image store {path}")]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The runtime.
    #[error("cannot {operation} the container runtime")]
    Runtime {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<RuntimeError>,
    },
    /// The ingress.
    #[error("cannot take requests for apps")]
    Ingress(#[from] IngressError),
    /// Threads.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The boot id.
    #[error("cannot read /proc/sys/kernel/random/boot_id")]
    Boot(#[source] std::io::Error),
}

/// A running agent. Dropping it without `shutdown` leaves replicas running, as a crash does.
pub struct Agent {
    name: String,
    state: PathBuf,
    node: u32,
    containers: Arc<dyn Containers>,
    plane: Arc<dyn DataPlane>,
    queue: Arc<Queue>,
    watcher: Arc<Watcher>,
    exits: Arc<Exits>,
    news: mpsc::Sender<News>,
    closing: watch::Sender<bool>,
    refused: watch::Receiver<Option<String>>,
    ending: watch::Receiver<usize>,
    failed: watch::Receiver<Option<String>>,
    sessions: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    folder: Arc<StateFolder>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("name", &self.name).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Agent {
    /// Joins if it must, adopts what runs, and begins to serve its leader. Returns before the first session: replicas need none.
    pub async fn start(config: AgentConfig) -> Result<Self, StartError> {
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Err(StartError::NotRoot { uid: uid.as_raw() });
        }
        let folder = Arc::new(StateFolder::open(&config.state)?);
        let runtime_config = RuntimeConfig {
            capacity: config.capacity,
            uid_base: config.uid_base,
            nameservers: config.name_servers.clone().unwrap_or_else(name_servers::of_this_node),
            ..RuntimeConfig::new(folder.runtime(), config.cgroup_parent.clone(), config.subnet, config.launcher.clone())
        };
        let identity = join(&config, &folder.identity()?).await?;
        let start = move || Runtime::start(runtime_config).inspect(|runtime| runtime.await_pool(FIRST_POOL));
        let started = tokio::task::spawn_blocking(start).await;
        let runtime = unless_panicked(started)
            .map_err(|source| StartError::Runtime { operation: "start", source: Box::new(source) })?;
        Self::assemble(config, folder, identity, Arc::new(OpenRuntime::new(runtime))).await
    }

    /// The same on another runtime: for tests without root.
    pub async fn start_on(config: AgentConfig, containers: Arc<dyn Containers>) -> Result<Self, StartError> {
        let folder = Arc::new(StateFolder::open(&config.state)?);
        let identity = join(&config, &folder.identity()?).await?;
        Self::assemble(config, folder, identity, containers).await
    }

    async fn assemble(
        config: AgentConfig,
        folder: Arc<StateFolder>,
        identity: Identity,
        containers: Arc<dyn Containers>,
    ) -> Result<Self, StartError> {
        let blocking = {
            let (config, folder, containers) = (config.clone(), folder.clone(), containers.clone());
            move || Prepared::make(&config, &folder, &*containers)
        };
        let prepared = unless_panicked(tokio::task::spawn_blocking(blocking).await)?;
        Parts::new(config, folder, identity, containers)?.run(prepared)
    }

    /// How people call this node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's number in the cluster.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Waits until the agent cannot go on by itself: a controller refused it for good, or its journal failed. Says why. A node that
    /// was removed has been told to stop its replicas before: that is seen through first.
    pub async fn stuck(&self) -> String {
        let (mut refused, mut failed) = (self.refused.clone(), self.failed.clone());
        let mut ending = self.ending.clone();
        let refused = async {
            let why = said(&mut refused).await;
            // Whatever the outcome, it is time: whoever has not ended by then runs on, and the next agent ends it.
            drop(tokio::time::timeout(LAST_STOPS, ending.wait_for(|count| *count == 0)).await);
            why
        };
        tokio::select! {
            why = refused => why,
            why = said(&mut failed) => why,
        }
    }

    /// Ends the agent, and its replicas if so wanted.
    pub async fn shutdown(self, replicas: Replicas) -> Result<(), StartError> {
        let Self { containers, plane, queue, watcher, exits, news, closing, sessions, threads, folder, .. } = self;
        let within = if replicas == Replicas::Leave { LAST_REQUESTS } else { LAST_MOMENT };
        unless_panicked(tokio::task::spawn_blocking(move || plane.finish(within)).await);
        closing.send_replace(true);
        if sessions.await.is_err() {
            tracing::error!("the session's task had failed");
        }
        if news.send(News::Close).await.is_err() {
            tracing::debug!("the driver has ended already");
        }
        drop(news);
        queue.close();
        watcher.close();
        exits.close();
        let end = move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread had failed");
                }
            }
            let ended = match replicas {
                Replicas::End => containers.shutdown(),
                Replicas::Leave => {
                    containers.leave();
                    Ok(())
                }
            };
            drop(folder); // the lock goes last
            ended
        };
        unless_panicked(tokio::task::spawn_blocking(end).await)
            .map_err(|source| StartError::Runtime { operation: "shut down", source: Box::new(source) })
    }
}

/// A panic of a blocking thread goes on in the one that waits for it.
fn unless_panicked<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn said(why: &mut watch::Receiver<Option<String>>) -> String {
    match why.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await, // it ended without a word: nothing is stuck
    }
}

/// What the data plane counts reaches the core as it comes, until the agent ends.
async fn tell_demand(plane: Arc<dyn DataPlane>, news: mpsc::Sender<News>) {
    loop {
        let changed = tokio::select! {
            changed = plane.changed() => changed,
            () = news.closed() => return,
        };
        for (app, demand) in changed {
            if news.send(News::Core(Input::Demand { app, demand })).await.is_err() {
                return;
            }
        }
    }
}

/// What blocking work before the first step brings.
struct Prepared {
    journal: Journal,
    specs: SpecBook,
    records: Vec<Record>,
    adopted: Vec<Adopted>,
    store: Store,
    capacity: Resources,
    boot: String,
}

impl Prepared {
    fn make(config: &AgentConfig, folder: &StateFolder, containers: &dyn Containers) -> Result<Self, StartError> {
        let runtime = |operation| move |source| StartError::Runtime { operation, source: Box::new(source) };
        let mut specs = SpecBook::default();
        let (journal, records) = Journal::open(&folder.journal(), &mut specs)?;
        let store = |source| StartError::Store { path: config.store.clone(), source };
        let store = Store::open(&config.store).map_err(store)?;
        let adopted = containers.adopt().map_err(runtime("adopt what runs in"))?;
        let usage = containers.node_usage().map_err(runtime("measure the node by"))?;
        let capacity =
            Resources { cpu: CpuMilli(usage.capacity_cpu_milli), memory: Bytes(usage.capacity_memory_bytes) };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(StartError::Boot)?;
        Ok(Self { journal, specs, records, adopted, store, capacity, boot: boot.trim().to_owned() })
    }
}

/// What threads and tasks share.
struct Parts {
    config: AgentConfig,
    folder: Arc<StateFolder>,
    identity: Identity,
    containers: Arc<dyn Containers>,
    queue: Arc<Queue>,
    watcher: Arc<Watcher>,
    attempts: Arc<Attempts>,
    closing: watch::Sender<bool>,
    exits: Arc<Exits>,
    clock: Clock,
}

impl Parts {
    fn new(
        config: AgentConfig,
        folder: Arc<StateFolder>,
        identity: Identity,
        containers: Arc<dyn Containers>,
    ) -> Result<Self, StartError> {
        let queue = Arc::new(Queue::default());
        let exits = Arc::new(Exits::new(queue.clone()).map_err(|errno| StartError::Thread(errno.into()))?);
        let (closing, _) = watch::channel(false);
        Ok(Self {
            config,
            folder,
            identity,
            containers,
            queue,
            watcher: Arc::default(),
            attempts: Arc::default(),
            closing,
            exits,
            clock: Clock::start(),
        })
    }

    fn run(self, prepared: Prepared) -> Result<Agent, StartError> {
        let Prepared { journal, specs, records, adopted, store, capacity, boot } = prepared;
        let now = self.clock.now();
        let heard = self.folder.contact(&boot).map_or(now, |moment| self.clock.at(moment));
        let obeyed = highest_fence(&records);
        let found = self.found(adopted, &live(&records));
        let first = Input::Adopted { records, found, heard, boot: boot.clone() };
        let (news, receiver) = mpsc::channel(NEWS);
        let (channel, controller) = watch::channel(None);
        let (fence, fence_seen) = watch::channel(obeyed);
        let (refused, refused_seen) = watch::channel(None);
        let (ending, ending_seen) = watch::channel(0);
        let (failed, failed_seen) = watch::channel(None);
        let images = Arc::new(Images::new(store, controller));
        let plane = self.plane()?;
        tokio::spawn(tell_demand(plane.clone(), news.clone()));
        let driver = Driver {
            core: AgentCore::new(Config { capacity: Some(capacity), ..Config::default() }),
            journal,
            specs,
            clock: self.clock,
            folder: self.folder.clone(),
            facts: self.facts(&boot, capacity),
            queue: self.queue.clone(),
            watcher: self.watcher.clone(),
            attempts: self.attempts.clone(),
            images: images.clone(),
            plane: plane.clone(),
            containers: self.containers.clone(),
            freezes: Freezes::default(),
            health: Arc::new(Checks {
                node: self.config.name.clone(),
                containers: self.containers.clone(),
                images: images.clone(),
            }),
            runtime: Handle::current(),
            fence,
            news: news.clone(),
            meter: NodeMeter::default(),
            live: Live::default(),
            refused,
            ending,
        };
        let mut threads = self.start_threads(&images, &news).map_err(StartError::Thread)?;
        threads.push(start_driver(driver, receiver, first, failed).map_err(StartError::Thread)?);
        let sessions = self.start_sessions(boot, fence_seen, self.calls(images, &news), channel);
        Ok(Agent {
            name: self.config.name,
            state: self.folder.path().to_owned(),
            node: self.identity.node,
            containers: self.containers,
            plane,
            queue: self.queue,
            watcher: self.watcher,
            exits: self.exits,
            news,
            closing: self.closing,
            refused: refused_seen,
            ending: ending_seen,
            failed: failed_seen,
            sessions,
            threads,
            folder: self.folder,
        })
    }

    fn facts(&self, boot: &str, capacity: Resources) -> Facts {
        let shared_ports = self.config.ingress.as_ref().map(IngressConfig::all_shared_ports);
        Facts {
            boot: boot.to_owned(),
            capacity,
            labels: self.config.labels.clone(),
            node: self.identity.node,
            ingress: self.config.links.map(|address| address.to_string()).unwrap_or_default(),
            shared_ports: shared_ports.unwrap_or_default(),
        }
    }

    fn start_threads(&self, images: &Arc<Images>, news: &mpsc::Sender<News>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let mut threads = worker::start(Worker {
            node: self.config.name.clone(),
            containers: self.containers.clone(),
            images: images.clone(),
            queue: self.queue.clone(),
            exits: self.exits.clone(),
            attempts: self.attempts.clone(),
            news: news.clone(),
            kept: Mutex::default(),
        })?;
        threads.push(self.exits.clone().start()?);
        threads.push(crate::watch::start(self.watcher.clone(), self.containers.clone(), news.clone())?);
        Ok(threads)
    }

    fn plane(&self) -> Result<Arc<dyn DataPlane>, StartError> {
        let Some(config) = &self.config.ingress else { return Ok(Arc::new(NoIngress)) };
        let identity = self.identity.for_links();
        let link = self.config.links.map(|address| LinkConfig { address, identity });
        let config = IngressConfig { link, ..config.clone() };
        let ingress = Ingress::start(&config, Arc::new(Inside(self.containers.clone())));
        Ok(Arc::new(ingress?))
    }

    fn calls(&self, images: Arc<Images>, news: &mpsc::Sender<News>) -> Calls {
        Calls {
            node: self.config.name.clone(),
            containers: self.containers.clone(),
            attempts: self.attempts.clone(),
            images,
            news: news.clone(),
        }
    }

    fn start_sessions(
        &self,
        boot: String,
        fence: watch::Receiver<Fence>,
        calls: Calls,
        channel: watch::Sender<Option<Channel>>,
    ) -> tokio::task::JoinHandle<()> {
        let sessions = Sessions {
            controllers: self.config.controllers.clone(),
            identity: self.identity.clone(),
            boot,
            instance: hex::encode(rand::random::<[u8; 16]>()),
            fence,
            news: calls.news.clone(),
            channel,
            calls: Arc::new(calls),
        };
        tokio::spawn(sessions.run(self.closing.subscribe()))
    }

    /// What the runtime still knows, for the core; its ends are watched from here on.
    fn found(&self, adopted: Vec<Adopted>, live: &BTreeSet<ReplicaId>) -> Vec<Found> {
        adopted.into_iter().filter_map(|one| self.found_one(one, live)).collect()
    }

    /// Nobody remembers why it was frozen, and what is done to it next expects that it goes on.
    fn thaw(&self, id: &ContainerId) {
        if let Err(error) = self.containers.thaw(id) {
            tracing::error!(container = %id, error = worker::chain(&error), "cannot make sure that a container is not frozen");
        }
    }

    fn found_one(&self, adopted: Adopted, live: &BTreeSet<ReplicaId>) -> Option<Found> {
        let id = match &adopted {
            Adopted::Alive(running) => running.id.clone(),
            Adopted::Ended(ended) => ended.id.clone(),
        };
        let Some((replica, attempt)) = attempt_of(&id) else {
            tracing::error!(container = %id, "a container of another name runs in this agent's state folder; it is left alone");
            return None;
        };
        let running = matches!(adopted, Adopted::Alive(_));
        let over = !running && !live.contains(&replica);
        self.attempts.found(replica, Attempt { number: attempt, running, over });
        let state = match adopted {
            Adopted::Ended(ended) => FoundState::Ended(worker::exit(ended.exit)),
            Adopted::Alive(running) => {
                self.thaw(&running.id);
                self.exits.watch(replica, attempt, running.pidfd);
                FoundState::Alive {
                    address: running.address.to_string(),
                    since: units::Instant(running.started_unix_ms),
                }
            }
        };
        Some(Found { replica, attempt, state })
    }
}

/// Those that were wanted and had not ended when the journal was last written.
fn live(records: &[Record]) -> BTreeSet<ReplicaId> {
    let mut live = BTreeSet::new();
    for record in records {
        match record {
            Record::Ordered { replica, .. } => drop(live.insert(*replica)),
            Record::Ended { replica, .. } | Record::Forgotten { replica } => drop(live.remove(replica)),
            _ => {}
        }
    }
    live
}

/// The first Open must say it, and the driver has not read the journal yet.
fn highest_fence(records: &[Record]) -> Fence {
    let fence = |record: &Record| if let Record::Fence(fence) = record { Some(*fence) } else { None };
    records.iter().filter_map(fence).max().unwrap_or_default()
}

fn start_driver(
    driver: Driver,
    receiver: mpsc::Receiver<News>,
    first: Input,
    failed: watch::Sender<Option<String>>,
) -> std::io::Result<JoinHandle<()>> {
    let handle = Handle::current();
    let run = move || {
        if let Err(error) = handle.block_on(driver.run(receiver, first)) {
            let why = worker::chain(&error);
            tracing::error!(
                why,
                "the journal failed; this agent takes no more orders. Mend the disk and start it again; replicas run on"
            );
            failed.send_replace(Some(why));
        }
    };
    std::thread::Builder::new().name("driver".to_owned()).spawn(run)
}
