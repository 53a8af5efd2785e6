//! Connections to apps that speak HTTP/2: few, each for many requests at once, closed when nobody has used them for a while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bellows_agent_core::ReplicaId;
use bytes::Bytes;
use h2::client::SendRequest;

use super::asking::Asking;
use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::ingress::http1::request::HEAD_MOST;
use crate::ingress::http1::upstream::{Place, Pool};

/// Without a request for so long a connection is closed: it is cheap to keep, and counts as ours.
const KEPT: Duration = Duration::from_secs(10);

/// A thread's connections.
#[derive(Default)]
pub(crate) struct Pool2(RefCell<BTreeMap<Place, Rc<Door>>>);

/// Those to one place. One is made at a time: a burst of requests shares it.
#[derive(Default)]
struct Door {
    open: RefCell<Vec<Connection>>,
    making: tokio::sync::Mutex<()>,
}

struct Connection {
    link: SendRequest<Bytes>,
    streams: Rc<Cell<usize>>,
    used: Rc<Cell<Instant>>,
}

/// A stream's part in a connection.
pub(super) struct Lane {
    streams: Rc<Cell<usize>>,
    used: Rc<Cell<Instant>>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        self.used.set(Instant::now());
    }
}

impl Pool2 {
    /// A stream to this place.
    pub(crate) async fn take(&self, pool: &Pool, place: Place) -> std::io::Result<Rc<Asking>> {
        let door = self.0.borrow_mut().entry(place).or_default().clone();
        if let Some(stream) = door.stream().await {
            return Ok(stream);
        }
        let _one_at_a_time = door.making.lock().await;
        if let Some(stream) = door.stream().await {
            return Ok(stream);
        }
        let connection = Box::pin(connect(pool, place)).await?;
        door.open.borrow_mut().push(connection);
        door.stream().await.ok_or_else(|| std::io::ErrorKind::ConnectionReset.into())
    }

    /// Closes what was not used for a while, and everything to copies of which `over` says so; what is under way ends as it ends.
    pub(crate) fn sweep(&self, over: impl Fn(ReplicaId) -> bool) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|place, door| {
            let over = over(place.replica);
            let mut open = door.open.borrow_mut();
            open.retain(|one| !over && (one.streams.get() > 0 || now - one.used.get() < KEPT));
            !open.is_empty() || door.making.try_lock().is_err()
        });
    }
}

impl Door {
    /// In a connection that takes more, if there is one; those that have ended are forgotten.
    async fn stream(&self) -> Option<Rc<Asking>> {
        loop {
            let free = |one: &&Connection| one.streams.get() < one.link.current_max_send_streams();
            let (link, streams, used) = {
                let open = self.open.borrow();
                let one = open.iter().find(free)?;
                (one.link.clone(), one.streams.clone(), one.used.clone())
            };
            streams.set(streams.get() + 1);
            let lane = Lane { streams, used };
            match link.ready().await {
                Ok(link) => return Some(Asking::new(link, lane)),
                Err(_) => self.open.borrow_mut().retain(|one| !Rc::ptr_eq(&one.streams, &lane.streams)),
            }
        }
    }
}

async fn connect(pool: &Pool, place: Place) -> std::io::Result<Connection> {
    let (stream, counted) = pool.counted(place).await?;
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_MOST as u32)
        .max_send_buffer_size(SEND_BUFFER);
    let (link, connection) = builder.handshake(stream).await.map_err(std::io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(replica = %place.replica, %error, "a connection to a copy ended");
        }
        drop(counted);
    });
    Ok(Connection { link, streams: Rc::default(), used: Rc::new(Cell::new(Instant::now())) })
}
