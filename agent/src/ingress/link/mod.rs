//! Links between ingresses: HTTP/2 over TLS, both ends with their node's certificate. Each request has a stream of its own to the copy
//! that it was proposed for; the owner answers *full* or *parked* with its count before a byte is sent, or connects the stream to the
//! copy. What flows then is what would flow to a copy here, so whatever reaches a copy here reaches one there.
//!
//! Deliberately absent: reading requests at the owner. It connects and counts, and the ingress that took the request has read it.

mod stream;
mod trust;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::traffic::{Bounce, Outcome};
use bellows_agent_core::{AppId, ReplicaId};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderName, Method, Request, Response, StatusCode};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use stream::{LastWord, LinkStream};
use trust::Removed;
pub use trust::{LinkError, LinkIdentity};

use super::app::Target;
use super::buffer::Lent;
use super::http1::upstream::Place;
use super::http1::way::Way;
use super::thread::{Port, Thread};
use super::tunnel::tunnel;

/// To another node and back, with a handshake; a node that takes longer is not there.
const CONNECT: Duration = Duration::from_secs(2);
/// Of what is under way in one stream, and in all of one link.
const STREAM_WINDOW: u32 = 1 << 20;
const LINK_WINDOW: u32 = 64 << 20;
/// More than an ingress holds.
const STREAMS: u32 = 1 << 20;

const APP: HeaderName = HeaderName::from_static("bellows-app");
const REPLICA: HeaderName = HeaderName::from_static("bellows-replica");
const PORT: HeaderName = HeaderName::from_static("bellows-port");
const HTTP2: HeaderName = HeaderName::from_static("bellows-http2");
const ROOM: HeaderName = HeaderName::from_static("bellows-room");
const COUNT: HeaderName = HeaderName::from_static("bellows-in-flight");

/// Where other ingresses reach this one, and who it is.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who it is.
    pub identity: LinkIdentity,
}

/// What all threads need of it.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) address: SocketAddr,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    removed: Arc<Removed>,
}

impl Trust {
    pub(crate) fn new(config: &LinkConfig) -> Result<Self, LinkError> {
        let removed = Arc::new(watch::channel(BTreeSet::new()).0);
        let (server, client) = trust::configs(&config.identity, removed.clone())?;
        Ok(Self { address: config.address, server, client, removed })
    }

    /// These nodes left for good.
    pub(crate) fn remove(&self, nodes: &[u32]) {
        self.removed.send_if_modified(|removed| {
            let before = removed.len();
            removed.extend(nodes);
            removed.len() > before
        });
    }

    /// Ready when the node that showed these certificates is none any more.
    async fn removed(&self, certificates: Option<&[CertificateDer<'_>]>) {
        let node = certificates.and_then(|chain| trust::node_of(chain.first()?));
        let Some(node) = node else { return };
        if self.removed.subscribe().wait_for(|removed| removed.contains(&node)).await.is_err() {
            std::future::pending().await // the sender is ours
        }
    }
}

/// A thread's links to other ingresses.
#[derive(Default)]
pub(crate) struct Links(RefCell<HashMap<Arc<str>, SendRequest<Bytes>>>);

/// A copy elsewhere did not take a request; with the owner's count if it told one.
pub(crate) struct NotTaken(pub(crate) Bounce);

impl Links {
    /// A stream to this copy, and how many requests its owner counts in it.
    pub(crate) async fn stream(
        &self,
        trust: &Trust,
        owner: &Arc<str>,
        (app, replica, port): (AppId, ReplicaId, Port),
    ) -> Result<(Rc<LinkStream>, u32), NotTaken> {
        let not_reached = |error: &dyn std::fmt::Display| {
            tracing::debug!(owner = &**owner, %error, "an owner cannot be reached");
            NotTaken(Bounce::NotReached)
        };
        let asked = tokio::time::timeout(CONNECT, self.ask(trust, owner, (app, replica, port))).await;
        let (answer, send) = asked.map_err(|late| not_reached(&late))?.map_err(|error| not_reached(&error))?;
        let count = answer.headers().get(COUNT).and_then(|count| count.to_str().ok()?.parse().ok()).unwrap_or(0);
        match answer.status() {
            StatusCode::OK => Ok((LinkStream::new(send, answer.into_body()), count)),
            StatusCode::TOO_MANY_REQUESTS => Err(NotTaken(Bounce::Full(count))),
            StatusCode::CONFLICT => Err(NotTaken(Bounce::Parked)),
            _ => Err(NotTaken(Bounce::NotReached)),
        }
    }

    /// Until the owner of a copy says that there is room in it; an error if it cannot be asked.
    pub(crate) async fn room(
        &self,
        trust: &Trust,
        owner: &Arc<str>,
        (app, replica): (AppId, ReplicaId),
    ) -> Result<(), std::io::Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("https://ingress/")
            .header(APP, app.0)
            .header(REPLICA, replica.to_string())
            .header(ROOM, 1)
            .body(())
            .map_err(std::io::Error::other)?;
        let mut link = self.link(trust, owner).await?;
        let (answer, _) = link.send_request(request, true).map_err(std::io::Error::other)?;
        answer.await.map(drop).map_err(std::io::Error::other)
    }

    async fn ask(
        &self,
        trust: &Trust,
        owner: &Arc<str>,
        (app, replica, port): (AppId, ReplicaId, Port),
    ) -> Result<(Response<h2::RecvStream>, h2::SendStream<Bytes>), std::io::Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("https://ingress/")
            .header(APP, app.0)
            .header(REPLICA, replica.to_string())
            .header(PORT, port.number)
            .header(HTTP2, u16::from(port.http2))
            .body(())
            .map_err(std::io::Error::other)?;
        let mut link = self.link(trust, owner).await?;
        let (answer, send) = link.send_request(request, false).map_err(std::io::Error::other)?;
        Ok((answer.await.map_err(std::io::Error::other)?, send))
    }

    async fn link(&self, trust: &Trust, owner: &Arc<str>) -> std::io::Result<SendRequest<Bytes>> {
        let kept = self.0.borrow().get(owner).cloned();
        let ready = match kept {
            Some(kept) => kept.ready().await.ok(),
            None => None,
        };
        match ready {
            Some(link) => Ok(link),
            None => Box::pin(self.connect(trust, owner)).await,
        }
    }

    async fn connect(&self, trust: &Trust, owner: &Arc<str>) -> std::io::Result<SendRequest<Bytes>> {
        let stream = TcpStream::connect(&**owner).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("bellows-ingress").map_err(std::io::Error::other)?;
        let secure = TlsConnector::from(trust.client.clone()).connect(name, stream).await?;
        let gone = {
            let (trust, shown) = (trust.clone(), secure.get_ref().1.peer_certificates().map(owned));
            async move { trust.removed(shown.as_deref()).await }
        };
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(LINK_WINDOW)
            .handshake(secure);
        let (link, connection) = handshake.await.map_err(std::io::Error::other)?;
        tokio::task::spawn_local(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a link to another ingress ended");
                },
                () = gone => tracing::info!("a link to a node that was removed is ended"),
            }
        });
        let link = link.ready().await.map_err(std::io::Error::other)?;
        self.0.borrow_mut().insert(owner.clone(), link.clone());
        Ok(link)
    }
}

/// Takes links from other ingresses, for as long as the thread lives.
pub(crate) async fn serve(thread: Rc<Thread>, listener: TcpListener, trust: Trust) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::task::spawn_local(link(thread.clone(), stream, trust.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a link");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn owned(chain: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|one| one.clone().into_owned()).collect()
}

async fn link(thread: Rc<Thread>, stream: TcpStream, trust: Trust) {
    let made = async {
        stream.set_nodelay(true)?;
        let secure = TlsAcceptor::from(trust.server.clone()).accept(stream).await?;
        let shown = secure.get_ref().1.peer_certificates().map(owned);
        let handshake = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(LINK_WINDOW)
            .max_concurrent_streams(STREAMS)
            .handshake(secure);
        Ok::<_, std::io::Error>((handshake.await.map_err(std::io::Error::other)?, shown))
    };
    let (mut link, shown) = match tokio::time::timeout(CONNECT, made).await {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return tracing::warn!(%error, "a link was refused"),
        Err(_) => return tracing::warn!("a link did not come about in time"),
    };
    let mut gone = std::pin::pin!(trust.removed(shown.as_deref()));
    let mut closing = thread.closing_seen();
    let mut told = false;
    loop {
        tokio::select! {
            accepted = link.accept() => match accepted {
                Some(Ok((request, respond))) => drop(tokio::task::spawn_local(seat(thread.clone(), request, respond))),
                _ => return,
            },
            () = &mut gone => return tracing::info!("a link of a node that was removed is ended"),
            _ = closing.wait_for(Option::is_some), if !told => {
                told = true;
                link.graceful_shutdown();
            }
        }
    }
}

/// One request of another ingress: admitted and connected to its copy, or not.
async fn seat(thread: Rc<Thread>, request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let app = field(APP).and_then(|app| app.parse().ok()).map(AppId);
    let replica = field(REPLICA).and_then(|id| id.parse::<ReplicaId>().ok());
    let port = field(PORT).and_then(|port| port.parse::<u16>().ok());
    let http2 = field(HTTP2) == Some("1");
    if let (Some(app), Some(replica), Some(_)) = (app, replica, field(ROOM)) {
        return room(&thread, (app, replica), respond).await;
    }
    let _under_way = thread.under_way();
    let (Some(app), Some(replica), Some(port)) = (app, replica, port) else {
        return say(&mut respond, StatusCode::BAD_REQUEST, 0);
    };
    let app = thread.shared.app(app);
    let mut seat = match app.admit(replica) {
        Ok(seat) => seat,
        Err(Bounce::Full(count)) => return say(&mut respond, StatusCode::TOO_MANY_REQUESTS, count),
        Err(_) => return say(&mut respond, StatusCode::CONFLICT, 0),
    };
    let Target::Here { attempt, address, .. } = *seat.target() else {
        return say(&mut respond, StatusCode::CONFLICT, 0);
    };
    let place = Place { replica, attempt, address, port };
    let way = match http2 {
        false => thread.pool.take(place).await.map(Way::Here),
        true => thread.streams(place).await.map(Way::Stream),
    };
    let Ok(way) = way else {
        return say(&mut respond, StatusCode::BAD_GATEWAY, 0);
    };
    let answer = response(StatusCode::OK, app.in_flight(replica));
    let Ok(send) = respond.send_response(answer, false) else { return };
    let stream = LinkStream::new(send, request.into_body());
    if let Way::Here(upstream) = &way
        && let Some(check) = upstream.check_untouched()
    {
        stream.tell_untouched(check);
    }
    let whole = tunnel((&stream, &mut Lent::new()), (&way, Lent::new())).await;
    seat.set(Outcome::Answered);
    match way {
        Way::Here(upstream) if stream.last_word() == Some(LastWord::Kept) => {
            thread.pool.give_back(upstream.recounted());
        }
        Way::Here(upstream) if !whole => upstream.socket.reset(),
        _ => {}
    }
}

/// Another ingress waits for room in a copy of this node; it hears of it when there is some, or leaves.
async fn room(thread: &Thread, (app, replica): (AppId, ReplicaId), mut respond: h2::server::SendResponse<Bytes>) {
    let told = thread.shared.app(app).room(replica);
    tokio::select! {
        _ = told => say(&mut respond, StatusCode::NO_CONTENT, 0),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {}
    }
}

fn response(status: StatusCode, count: u32) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(COUNT, count.into());
    response
}

fn say(respond: &mut h2::server::SendResponse<Bytes>, status: StatusCode, count: u32) {
    if let Err(error) = respond.send_response(response(status, count), true) {
        tracing::debug!(%error, "whoever asked for a seat is gone");
    }
}
