//! The data plane: requests from anywhere to the copies of this node, and to their owners elsewhere.
//!
//! Every decision is made by [`bellows_agent_core::traffic`]; this is the shell around it. As many threads as the machine has cores, each
//! with an event loop, listeners and connections of its own; they meet in `app` only, one short lock for each request. Read in this
//! order: `shared` and `thread`; `wire` and `buffer`, a connection and what passes through it; `app`, a request's seat in a copy or its
//! place in the queue; `http1`, the path of most requests; `http2`, which has its form; `link`, to copies of other nodes; `tcp`.
//!
//! Only this ingress connects to copies of this node, by sockets made in their own networks ([`Dial`]): that is why its counts are exact.

mod answer;
mod app;
mod balance;
mod buffer;
mod changes;
mod dial;
mod http1;
mod http2;
mod link;
mod plane;
mod shared;
mod tcp;
mod thread;
mod time;
mod tls;
mod tunnel;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bellows_agent_core::traffic::{Demand, Entrance, HereCopy, Update};
use bellows_agent_core::{AppId, ReplicaId};
use tokio::sync::watch;

pub use dial::Dial;
pub use link::{LinkConfig, LinkError, LinkIdentity};
pub(crate) use plane::Inside;
pub use tls::{TlsConfig, TlsError};

use http1::upstream::{Open, Pool};
use shared::Shared;
use thread::Thread;

/// What an ingress is told once.
#[derive(Debug, Clone)]
pub struct IngressConfig {
    /// Where it listens.
    pub address: IpAddr,
    /// Event loops.
    pub threads: usize,
    /// Ports for apps that name none of their own.
    pub shared_ports: Vec<u16>,
    /// Is it a reason not to start when another process has one of them? Else that is told in the log once an app would be reached there.
    pub insist: bool,
    /// Certificates, and the ports that take TLS; none when absent.
    pub tls: Option<TlsConfig>,
    /// Where ingresses of other nodes reach this one; nowhere when absent, and then it reaches none.
    pub link: Option<LinkConfig>,
    /// How long others may take.
    pub patience: Patience,
}

/// How long others may take; each is kept to a quarter of a second.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From a head's first byte to its last: longer takes only who wants to keep a place busy.
    pub head: Duration,
    /// Between two requests of one connection, and before the first.
    pub idle: Duration,
    /// Until an app begins to answer, and between two pieces of what it says: longer work answers by pieces.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), answer: Duration::from_secs(120) }
    }
}

impl Default for IngressConfig {
    /// On every address, with port 8080 for all apps, one loop for each core.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            address: thread::EVERYWHERE,
            threads,
            shared_ports: vec![8080],
            insist: true,
            tls: None,
            link: None,
            patience: Patience::default(),
        }
    }
}

impl IngressConfig {
    /// Said at once, not when the first app is there to be asked for.
    fn check_free(&self) -> Result<(), IngressError> {
        let shared = if self.insist { self.all_shared_ports() } else { Vec::new() };
        let shared = shared.into_iter().map(|port| SocketAddr::new(self.address, port));
        let shared = shared.map(|at| (at, "--ingress-port, --ingress-tls-port, --ingress"));
        let link = self.link.as_ref().map(|link| (link.address, "--links"));
        for (at, flags) in shared.chain(link) {
            shared::free(at).map_err(|source| IngressError::Taken { at, flags, source })?;
        }
        Ok(())
    }

    /// Ports for apps that name none of their own, in clear and within TLS.
    pub fn all_shared_ports(&self) -> Vec<u16> {
        let secure = self.tls.as_ref().map_or(&[][..], |tls| &tls.shared_ports);
        self.shared_ports.iter().chain(secure).copied().collect()
    }
}

/// Why an ingress did not start.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// A thread.
    #[error("cannot start a thread of the ingress")]
    Thread(#[source] io::Error),
    /// Who this node is, to others.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Somebody is there already.
    #[error(
        "cannot listen on {at}: another process does, or the address is none of this server's; stop it, or choose another one ({flags})"
    )]
    Taken {
        /// Where.
        at: SocketAddr,
        /// What chooses it.
        flags: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A running ingress. Dropping it ends it.
pub struct Ingress {
    shared: Arc<Shared>,
    open: Arc<Open>,
    closing: watch::Sender<Closing>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// By when everything must have ended; never while it is none.
pub(crate) type Closing = Option<std::time::Instant>;

impl Ingress {
    /// Starts its threads; it listens when it is told of routes.
    pub fn start(config: &IngressConfig, dial: Arc<dyn Dial>) -> Result<Self, IngressError> {
        let shared = Shared::new(config)?;
        config.check_free()?;
        let open = Arc::<Open>::default();
        let (closing, closing_seen) = watch::channel(None);
        let mut threads = Vec::new();
        for number in 0..config.threads.max(1) {
            let (shared, closing) = (shared.clone(), closing_seen.clone());
            let (dial, open) = (dial.clone(), open.clone());
            let life = move || async move {
                if number == 0 {
                    tokio::task::spawn_local(keep_time(shared.clone()));
                    shared.tls.clone().map(|tls| tokio::task::spawn_local(tls.look_after()));
                }
                Thread::run(number, shared, Pool::new(dial, open), closing).await;
            };
            threads.push(start_thread(number, life).map_err(IngressError::Thread)?);
        }
        Ok(Self { shared, open, closing, threads: Mutex::new(threads) })
    }

    /// Takes no new connections, and gives what is under way this long to end: whoever keeps a connection is told with its next answer that
    /// it is the last one, streams of HTTP/2 end behind a GOAWAY, and what is upgraded or raw goes on. Returns when all is over.
    pub fn finish(&self, within: Duration) {
        self.closing.send_if_modified(|closing| {
            let by = std::time::Instant::now() + within;
            let sooner = closing.is_none_or(|before| by < before);
            if sooner {
                *closing = Some(by);
            }
            sooner
        });
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the ingress had failed");
            }
        }
    }

    /// Where requests come in; with `whole`, what is not named is gone.
    pub fn entrances(&self, whole: bool, changed: Vec<Entrance>, gone: &[AppId]) {
        self.shared.update_entrances(whole, changed, gone);
    }

    /// These nodes left for good: links with them end, and their certificates are refused from now on.
    pub fn removed_nodes(&self, nodes: &[u32]) {
        if let Some(trust) = &self.shared.trust {
            trust.remove(nodes);
        }
    }

    /// The leader's word on an app's copies.
    pub fn routes(&self, app: AppId, update: Update) {
        self.shared.app(app).update(update);
    }

    /// What is known of an app's copies elsewhere gets old from now on: the next request asks anew.
    pub fn forget(&self, app: AppId) {
        self.shared.app(app).forget();
    }

    /// This agent's own word on a copy of this node. From its return on nobody is admitted to a copy that is parked.
    pub fn here(&self, app: AppId, copy: HereCopy) {
        self.shared.note_here(copy.replica, Some((app, copy.ready && !copy.parked)));
        self.shared.app(app).here(copy);
    }

    /// A copy of this node has ended.
    pub fn here_no_more(&self, replica: ReplicaId) {
        if let Some((app, _)) = self.shared.note_here(replica, None) {
            self.shared.app(app).here_no_more(replica);
        }
    }

    /// Requests in a copy of this node, now and exactly.
    pub fn in_flight(&self, replica: ReplicaId) -> u32 {
        self.shared.app_of(replica).map_or(0, |app| self.shared.app(app).in_flight(replica))
    }

    /// This ingress's own connections to a copy of this node, used or kept.
    pub fn connections(&self, replica: ReplicaId) -> u32 {
        u32::try_from(self.open.count(replica)).unwrap_or(u32::MAX)
    }

    /// The apps whose demand has changed, with what it is now: at once when a request begins to wait, else a little later, together. To be
    /// asked by one task.
    pub async fn changed(&self) -> Vec<(AppId, Demand)> {
        let apps = self.shared.changes.next().await;
        apps.into_iter().map(|app| (app, self.shared.app(app).take_demand())).collect()
    }

    /// Every app's demand.
    pub fn demand(&self) -> Vec<(AppId, Demand)> {
        self.shared.apps().into_iter().map(|app| (app.id, app.take_demand())).collect()
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

impl std::fmt::Debug for Ingress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress").finish_non_exhaustive()
    }
}

fn start_thread<F: Future<Output = ()>>(
    number: usize,
    life: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || tokio::task::LocalSet::new().block_on(&runtime, life());
    std::thread::Builder::new().name(format!("ingress-{number}")).spawn(run)
}

/// Refuses those that have waited too long, and asks again where the answer was no.
async fn keep_time(shared: Arc<Shared>) {
    const LONG: Duration = Duration::from_secs(3600);
    loop {
        let wake = shared.apps().iter().filter_map(|app| app.tick()).min();
        let length = wake.map_or(LONG, |at| shared.time.until(at));
        // Woken or out of time: both are reasons to look.
        drop(tokio::time::timeout(length, shared.changes.queued.notified()).await);
    }
}
