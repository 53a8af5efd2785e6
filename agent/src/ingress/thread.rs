//! One thread of the data plane: an event loop, listeners of its own on every port, connections that stay with it to their end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellows_agent_core::traffic::{Bounce, Entrances, Protocol, Route};
use bellows_agent_core::{AppId, ReplicaId};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Closing;
use super::app::{App, Seat, Target};
use super::balance::{Arrival, Present};
use super::http1::client::Client;
use super::http1::request::Sender;
use super::http1::upstream::{Place, Pool};
use super::http2::Asking;
use super::http2::pool::Pool2;
use super::link::{self, LinkStream, Links, NotTaken};
use super::shared::Shared;
use super::tls::{Secure, Tls};
use super::wire::{self, Socket};
use super::{http2, tcp};

/// Connections that wait to be accepted, of one thread and port: as many as the kernel's own default allows.
const BACKLOG: u32 = 4096;
/// How often connections that nobody uses are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// For so long an owner may take to say that there is room; after that whoever waits asks for itself.
const ROOM: Duration = Duration::from_secs(60);
/// At an end: what is under way is looked at so often, and connections that wait for a request are kept for this long.
const LOOK: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_millis(200);
/// After an accept that failed for want of something.
const SHORT_OF_BREATH: Duration = Duration::from_millis(50);

/// An app's own port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Is it spoken to in HTTP/2?
    pub(crate) http2: bool,
    /// How long a request's body may be.
    pub(crate) max_body: u64,
}

/// What one thread has.
pub(crate) struct Thread {
    pub(crate) number: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pool2: Pool2,
    entrances: RefCell<Arc<Entrances>>,
    apps: RefCell<BTreeMap<AppId, Arc<App>>>,
    listeners: RefCell<BTreeMap<u16, AbortHandle>>,
    links: Links,
    /// Copies elsewhere whose owners will say when there is room.
    watching: RefCell<BTreeSet<(AppId, ReplicaId)>>,
    closing: watch::Receiver<Closing>,
    under_way: Cell<usize>,
    links_task: RefCell<Option<AbortHandle>>,
}

/// Requests, connections of raw TCP, and what other ingresses have here: what an end waits for.
pub(crate) struct UnderWay(Rc<Thread>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

impl Thread {
    /// The thread's whole life.
    pub(crate) async fn run(number: usize, shared: Arc<Shared>, pool: Pool, mut closing: watch::Receiver<Closing>) {
        let mut entrances = shared.entrances.subscribe();
        let first = entrances.borrow_and_update().clone();
        let thread = Rc::new(Self {
            number,
            shared,
            pool,
            pool2: Pool2::default(),
            entrances: RefCell::new(first),
            apps: RefCell::default(),
            listeners: RefCell::default(),
            links: Links::default(),
            watching: RefCell::default(),
            closing: closing.clone(),
            under_way: Cell::new(0),
            links_task: RefCell::default(),
        });
        tokio::task::spawn_local(wire::watch());
        tokio::task::spawn_local(thread.clone().sweep());
        tokio::task::spawn_local(thread.clone().take_arrivals());
        thread.serve_links();
        loop {
            thread.listen();
            tokio::select! {
                changed = entrances.changed() => if changed.is_err() { return },
                _ = closing.wait_for(Option::is_some) => return thread.close().await,
            }
            *thread.entrances.borrow_mut() = entrances.borrow_and_update().clone();
            thread.apps.borrow_mut().clear();
        }
    }

    /// The app that takes requests for this host and path, and its own port.
    pub(crate) fn find(&self, listen: u16, host: &str, path: &str) -> Option<(Arc<App>, Port)> {
        let entrances = self.entrances.borrow();
        let found = entrances.find(listen, host, path)?;
        let Route { port: number, protocol, max_body, .. } = *found.route;
        let max_body = max_body.map_or(u64::MAX, |most| most.0);
        let port = Port { number, http2: protocol == Protocol::Http2, max_body };
        Some((self.app(found.app), port))
    }

    fn app(&self, app: AppId) -> Arc<App> {
        let mut apps = self.apps.borrow_mut();
        apps.entry(app).or_insert_with(|| self.shared.app(app)).clone()
    }

    /// A stream to a copy elsewhere, if its owner admits the request.
    pub(crate) async fn there(self: &Rc<Self>, seat: &Seat, port: Port) -> Result<Rc<LinkStream>, Bounce> {
        let (Target::At { replica, owner }, Some(trust)) = (seat.target(), &self.shared.trust) else {
            return Err(Bounce::NotReached);
        };
        let asked = self.links.stream(trust, owner, (seat.app().id, *replica, port)).await;
        let (stream, count) = asked.map_err(|NotTaken(why)| {
            if why != Bounce::NotReached {
                self.watch_room(seat.app().clone(), *replica, owner.clone());
            }
            why
        })?;
        seat.app().heard(*replica, count);
        Ok(stream)
    }

    /// The owner said no: it is asked to say when it may say yes, once for all who wait here.
    fn watch_room(self: &Rc<Self>, app: Arc<App>, replica: ReplicaId, owner: Arc<str>) {
        if !self.watching.borrow_mut().insert((app.id, replica)) {
            return;
        }
        let thread = self.clone();
        tokio::task::spawn_local(async move {
            let Some(trust) = &thread.shared.trust else { return };
            let told = tokio::time::timeout(ROOM, thread.links.room(trust, &owner, (app.id, replica))).await;
            thread.watching.borrow_mut().remove(&(app.id, replica));
            match told {
                Ok(Ok(())) => app.opened(replica),
                Ok(Err(error)) => tracing::debug!(%replica, %error, "an owner does not say when there is room"),
                Err(_) => {} // whoever still waits asks again
            }
        });
    }

    /// A stream to a copy here that speaks HTTP/2.
    pub(crate) async fn streams(&self, place: Place) -> std::io::Result<Rc<Asking>> {
        self.pool2.take(&self.pool, place).await
    }

    /// Takes requests that other ingresses propose.
    fn serve_links(self: &Rc<Self>) {
        let Some(trust) = self.shared.trust.clone() else { return };
        match self.listener(trust.address.ip(), trust.address.port()) {
            Ok(listener) => {
                let task = tokio::task::spawn_local(link::serve(self.clone(), listener, trust));
                *self.links_task.borrow_mut() = Some(task.abort_handle());
            }
            Err(error) => self.shared.cannot_listen(trust.address.port(), &error),
        }
    }

    /// Is the agent about to end? Then every answer is the last one of its connection.
    pub(crate) fn closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    /// From now until it is dropped an end waits for the caller.
    pub(crate) fn under_way(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(self.clone())
    }

    /// Ready when it is.
    pub(crate) fn closing_seen(&self) -> watch::Receiver<Closing> {
        self.closing.clone()
    }

    /// Opens what is not open, closes what no app wants any more.
    fn listen(self: &Rc<Self>) {
        let wanted: BTreeMap<u16, Protocol> = self.entrances.borrow().ports().collect();
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|port, task| {
            let stays = wanted.contains_key(port) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for port in wanted.keys().filter(|port| !self.shared.refused(**port)) {
            if listeners.contains_key(port) {
                continue;
            }
            match self.listener(self.shared.address, *port) {
                Ok(listener) => {
                    let task = tokio::task::spawn_local(self.clone().accept(listener, *port));
                    listeners.insert(*port, task.abort_handle());
                }
                Err(error) => self.shared.cannot_listen(*port, &error),
            }
        }
    }

    /// Every thread has one on each port: the kernel spreads connections over them.
    fn listener(&self, address: IpAddr, port: u16) -> std::io::Result<TcpListener> {
        let to = SocketAddr::new(address, port);
        self.shared.alone(to)?;
        let socket = match address {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(to)?;
        socket.listen(BACKLOG)
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, port: u16) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.clone().accepted(stream, from.ip(), port),
                Err(error) => {
                    tracing::warn!(port, %error, "cannot accept a connection");
                    tokio::time::sleep(SHORT_OF_BREATH).await;
                }
            }
        }
    }

    /// For this thread, or for one that has fewer connections.
    fn accepted(self: Rc<Self>, stream: TcpStream, from: IpAddr, listen: u16) {
        let Some(other) = self.shared.balance.lighter(self.number) else { return self.welcome(stream, from, listen) };
        match stream.into_std() {
            Ok(stream) => {
                if let Err(arrival) = self.shared.balance.give(other, Arrival { stream, from, listen }) {
                    self.arrived(arrival);
                }
            }
            Err(error) => tracing::warn!(listen, %error, "a connection cannot be given to another thread"),
        }
    }

    /// Connections that other threads have accepted.
    async fn take_arrivals(self: Rc<Self>) {
        let Some(mut arrivals) = self.shared.balance.arrivals(self.number) else { return };
        while let Some(arrival) = arrivals.recv().await {
            self.clone().arrived(arrival);
        }
    }

    fn arrived(self: Rc<Self>, Arrival { stream, from, listen }: Arrival) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.welcome(stream, from, listen),
            Err(error) => tracing::warn!(listen, %error, "a connection cannot be taken from another thread"),
        }
    }

    fn welcome(self: Rc<Self>, stream: TcpStream, address: IpAddr, listen: u16) {
        let present = Present::at(self.clone());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let Some((protocol, secure)) = self.entrances.borrow().spoken(listen) else { return };
        if protocol == Protocol::Tcp {
            tokio::task::spawn_local(async move {
                match secure {
                    false => tcp::serve(self, Socket::new(stream), listen).await,
                    true => self.secure_raw(stream, listen).await,
                }
                drop(present);
            });
            return;
        }
        let sender = Sender { address: address.to_canonical(), secure: false, grpc: false };
        if secure || self.shared.tls.as_ref().is_some_and(|tls| tls.shared_ports.contains(&listen)) {
            tokio::task::spawn_local(async move {
                self.secure(stream, Sender { secure: true, ..sender }, listen).await;
                drop(present);
            });
            return;
        }
        let client = Client { wire: Socket::new(stream), sender, listen, thread: self.clone() };
        tokio::task::spawn_local(async move {
            if let Some((socket, read)) = client.serve().await {
                Box::pin(self.begun(socket, read, sender, listen)).await;
            }
            drop(present);
        });
    }

    /// A connection over TLS; what is spoken in it is agreed on in its beginning.
    async fn secure(self: Rc<Self>, stream: TcpStream, sender: Sender, listen: u16) {
        let Some(stream) = self.taken(stream, |tls| &tls.http, listen).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Box::pin(http2::server::serve(self, stream, sender, listen)).await;
        } else {
            drop(Client { wire: Secure::new(stream), sender, listen, thread: self }.serve().await);
        }
    }

    /// One that is spoken in whatever its app understands.
    async fn secure_raw(self: Rc<Self>, stream: TcpStream, listen: u16) {
        let Some(stream) = self.taken(stream, |tls| &tls.raw, listen).await else { return };
        tcp::serve(self, Secure::raw(stream), listen).await;
    }

    /// A connection that begins as TLS does; nothing, and said why, when it does not come about.
    async fn taken(
        &self,
        stream: TcpStream,
        by: impl Fn(&Tls) -> &TlsAcceptor,
        listen: u16,
    ) -> Option<TlsStream<TcpStream>> {
        let Some(tls) = self.shared.tls.clone() else {
            tracing::warn!(
                listen,
                "a route wants TLS, and this agent has no certificates: start it with --certificates FOLDER"
            );
            return None;
        };
        match tokio::time::timeout(self.shared.patience.head, Box::pin(by(&tls).accept(stream))).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, listen, "a connection over TLS did not come about"),
            Err(_) => tracing::debug!(listen, "a connection over TLS did not come about in time"),
        }
        None
    }

    /// A connection that began as HTTP/2 does, of which so much was read.
    async fn begun(self: Rc<Self>, socket: Rc<Socket>, read: Vec<u8>, sender: Sender, listen: u16) {
        let Some(stream) = Rc::into_inner(socket).map(Socket::into_stream) else { return };
        let (reader, writer) = stream.into_split();
        let whole = tokio::io::join(std::io::Cursor::new(read).chain(reader), writer);
        http2::server::serve(self, whole, sender, listen).await;
    }

    async fn sweep(self: Rc<Self>) {
        let mut round = tokio::time::interval(SWEEP);
        loop {
            round.tick().await;
            let over = |replica| !self.shared.in_rotation(replica);
            self.pool.sweep(over);
            self.pool2.sweep(over);
        }
    }

    /// No new connections; those that are there end with their next answer. One that waits for its next request may just be sent one: such
    /// are closed a moment later.
    async fn close(&self) {
        for task in self.listeners.borrow().values().chain(&*self.links_task.borrow()) {
            task.abort();
        }
        let by = self.closing.borrow().unwrap_or_else(Instant::now);
        let mut round = tokio::time::interval(LOOK);
        let quiet = Instant::now() + QUIET;
        while Instant::now() < by && (Instant::now() < quiet || self.under_way.get() > 0) {
            round.tick().await;
        }
        if self.under_way.get() > 0 {
            tracing::warn!(cut = self.under_way.get(), "the ingress ends, and so do requests that took too long");
        }
    }
}

/// Every address of the machine.
pub(crate) const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
