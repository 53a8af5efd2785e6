//! One thread of the data plane: an event loop, listeners of its own on every port, connections that stay with it to their end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::AppId;
use bellows_agent_core::traffic::{Bounce, Entrances, Protocol};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::app::{App, Seat, Target};
use super::http1::client::Client;
use super::http1::request::Sender;
use super::http1::upstream::{Place, Pool};
use super::http2::Asking;
use super::http2::pool::Pool2;
use super::link::{self, LinkStream, Links, NotTaken};
use super::shared::Shared;
use super::wire::{self, Socket};
use super::{http2, tcp};

/// Connections that wait to be accepted, of one thread and port: as many as the kernel's own default allows.
const BACKLOG: u32 = 4096;
/// How often connections that nobody uses are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// After an accept that failed for want of something.
const SHORT_OF_BREATH: Duration = Duration::from_millis(50);

/// An app's own port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Is it spoken to in HTTP/2?
    pub(crate) http2: bool,
}

/// What one thread has.
pub(crate) struct Thread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pool2: Pool2,
    entrances: RefCell<Arc<Entrances>>,
    apps: RefCell<BTreeMap<AppId, Arc<App>>>,
    listeners: RefCell<BTreeMap<u16, AbortHandle>>,
    links: Links,
    closing: watch::Receiver<bool>,
}

impl Thread {
    /// The thread's whole life.
    pub(crate) async fn run(shared: Arc<Shared>, pool: Pool, mut closing: watch::Receiver<bool>) {
        let mut entrances = shared.entrances.subscribe();
        let first = entrances.borrow_and_update().clone();
        let thread = Rc::new(Self {
            shared,
            pool,
            pool2: Pool2::default(),
            entrances: RefCell::new(first),
            apps: RefCell::default(),
            listeners: RefCell::default(),
            links: Links::default(),
            closing: closing.clone(),
        });
        tokio::task::spawn_local(wire::watch());
        tokio::task::spawn_local(thread.clone().sweep());
        thread.serve_links();
        loop {
            thread.listen();
            tokio::select! {
                changed = entrances.changed() => if changed.is_err() { return },
                _ = closing.wait_for(|closing| *closing) => return thread.close().await,
            }
            *thread.entrances.borrow_mut() = entrances.borrow_and_update().clone();
            thread.apps.borrow_mut().clear();
        }
    }

    /// The app that takes requests for this host and path, and its own port.
    pub(crate) fn find(&self, listen: u16, host: &str, path: &str) -> Option<(Arc<App>, Port)> {
        let entrances = self.entrances.borrow();
        let found = entrances.find(listen, host, path)?;
        let port = Port { number: found.route.port, http2: found.route.protocol == Protocol::Http2 };
        Some((self.app(found.app), port))
    }

    fn app(&self, app: AppId) -> Arc<App> {
        let mut apps = self.apps.borrow_mut();
        apps.entry(app).or_insert_with(|| self.shared.app(app)).clone()
    }

    /// A stream to a copy elsewhere, if its owner admits the request.
    pub(crate) async fn there(&self, seat: &Seat, port: Port) -> Result<Rc<LinkStream>, Bounce> {
        let (Target::At { replica, owner }, Some(trust)) = (seat.target(), &self.shared.trust) else {
            return Err(Bounce::NotReached);
        };
        let asked = self.links.stream(trust, owner, (seat.app().id, *replica, port)).await;
        let (stream, count) = asked.map_err(|NotTaken(why)| why)?;
        seat.app().heard(*replica, count);
        Ok(stream)
    }

    /// A stream to a copy here that speaks HTTP/2.
    pub(crate) async fn streams(&self, place: Place) -> std::io::Result<Rc<Asking>> {
        self.pool2.take(&self.pool, place).await
    }

    /// Takes requests that other ingresses propose.
    fn serve_links(self: &Rc<Self>) {
        let Some(trust) = self.shared.trust.clone() else { return };
        match listener(trust.address.ip(), trust.address.port()) {
            Ok(listener) => drop(tokio::task::spawn_local(link::serve(self.clone(), listener, trust))),
            Err(error) => self.shared.cannot_listen(trust.address.port(), &error),
        }
    }

    /// Is the agent about to end? Then every answer is the last one of its connection.
    pub(crate) fn closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Ready when it is.
    pub(crate) fn closing_seen(&self) -> watch::Receiver<bool> {
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
            match listener(self.shared.address, *port) {
                Ok(listener) => {
                    let task = tokio::task::spawn_local(self.clone().accept(listener, *port));
                    listeners.insert(*port, task.abort_handle());
                }
                Err(error) => self.shared.cannot_listen(*port, &error),
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, port: u16) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.clone().welcome(stream, from.ip(), port),
                Err(error) => {
                    tracing::warn!(port, %error, "cannot accept a connection");
                    tokio::time::sleep(SHORT_OF_BREATH).await;
                }
            }
        }
    }

    fn welcome(self: Rc<Self>, stream: TcpStream, address: IpAddr, listen: u16) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let raw = self.entrances.borrow().ports().any(|(port, speaks)| port == listen && speaks == Protocol::Tcp);
        if raw {
            tokio::task::spawn_local(tcp::serve(self, Socket::new(stream), listen));
            return;
        }
        let sender = Sender { address: address.to_canonical(), secure: false };
        let client = Client { wire: Socket::new(stream), sender, listen, thread: self.clone() };
        tokio::task::spawn_local(async move {
            if let Some((socket, read)) = client.serve().await {
                Box::pin(self.begun(socket, read, sender, listen)).await;
            }
        });
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

    /// No new connections; those that are there end with their next answer.
    async fn close(&self) {
        for task in self.listeners.borrow().values() {
            task.abort();
        }
    }
}

/// Every thread has one on each port: the kernel spreads connections over them.
fn listener(address: IpAddr, port: u16) -> std::io::Result<TcpListener> {
    let to = SocketAddr::new(address, port);
    let socket = match address {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(to)?;
    socket.listen(BACKLOG)
}

/// Every address of the machine.
pub(crate) const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
