//! Connections to copies on this node: made in the copy's own network, kept for the next request for a short while.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bellows_agent_core::ReplicaId;
use tokio::net::{TcpSocket, TcpStream};

use crate::ingress::dial::Dial;
use crate::ingress::wire::{Guarded, Socket};

/// Below what any server keeps an idle connection for, so that one is hardly ever closed just when it is used again.
const KEPT: Duration = Duration::from_secs(1);
/// To a copy on this machine a connection takes microseconds.
const CONNECT: Duration = Duration::from_secs(2);

/// Which copy, and which of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) replica: ReplicaId,
    pub(crate) attempt: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

/// A connection to a copy; counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: Rc<Socket>,
    pub(crate) place: Place,
    /// Has it served a request before?
    pub(crate) used: bool,
    sent: Cell<u64>,
    _counted: Counted,
}

/// How many connections this ingress has to each copy: for telling them from the app's own.
#[derive(Debug, Default)]
pub(crate) struct Open(std::sync::Mutex<HashMap<ReplicaId, Arc<AtomicUsize>>>);

impl Open {
    pub(crate) fn count(&self, replica: ReplicaId) -> usize {
        let open = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.get(&replica).map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn enter(self: &Arc<Self>, replica: ReplicaId) -> Counted {
        let mut open = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = open.entry(replica).or_default().clone();
        count.fetch_add(1, Ordering::AcqRel);
        Counted { open: self.clone(), replica, count }
    }
}

#[derive(Debug)]
pub(crate) struct Counted {
    open: Arc<Open>,
    replica: ReplicaId,
    count: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut open = self.open.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if open.get(&self.replica).is_some_and(|count| count.load(Ordering::Acquire) == 0) {
                open.remove(&self.replica);
            }
        }
    }
}

/// A thread's connections.
pub(crate) struct Pool {
    dial: Arc<dyn Dial>,
    pub(crate) open: Arc<Open>,
    idle: RefCell<BTreeMap<Place, Vec<(Instant, Upstream)>>>,
}

impl Pool {
    pub(crate) fn new(dial: Arc<dyn Dial>, open: Arc<Open>) -> Self {
        Self { dial, open, idle: RefCell::default() }
    }

    /// The one used last, if its app has not closed it; else a new one.
    pub(crate) async fn take(&self, place: Place) -> std::io::Result<Upstream> {
        match self.kept(&place) {
            Some(kept) => Ok(kept),
            None => Box::pin(self.connect(place)).await,
        }
    }

    fn kept(&self, place: &Place) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(place)?;
        std::iter::from_fn(|| kept.pop()).map(|(_, upstream)| upstream).find(|upstream| !upstream.spoken())
    }

    /// A new one.
    pub(crate) async fn connect(&self, place: Place) -> std::io::Result<Upstream> {
        let (stream, counted) = self.counted(place).await?;
        Ok(Upstream { socket: Socket::new(stream), place, used: false, sent: Cell::new(0), _counted: counted })
    }

    /// A new one, bare; it counts as ours until the second of the pair is dropped.
    pub(crate) async fn counted(&self, place: Place) -> std::io::Result<(TcpStream, Counted)> {
        let stream = self.stream(place).await?;
        Ok((stream, self.open.enter(place.replica)))
    }

    async fn stream(&self, place: Place) -> std::io::Result<TcpStream> {
        let inside = self.dial.socket(place.replica, place.attempt)?;
        let socket = TcpSocket::from_std_stream(inside.into());
        let to = SocketAddr::V4(SocketAddrV4::new(place.address, place.port));
        let stream = tokio::time::timeout(CONNECT, socket.connect(to)).await;
        let stream = stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// For the next request.
    pub(crate) fn give_back(&self, mut upstream: Upstream) {
        upstream.used = true;
        upstream.socket.guard().at_leisure();
        self.idle.borrow_mut().entry(upstream.place).or_default().push((Instant::now(), upstream));
    }

    /// Closes what was not used for a while, and everything to copies of which `over` says so.
    pub(crate) fn sweep(&self, over: impl Fn(ReplicaId) -> bool) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|place, kept| {
            let over = over(place.replica);
            kept.retain(|(since, _)| !over && now - *since < KEPT);
            !kept.is_empty()
        });
    }
}

impl Upstream {
    /// Has the app closed it, or said something unasked? The last look at the sockets tells that nothing came without a system call; that
    /// something came may be news of bytes that were read already (an answer in two pieces), so then the kernel is asked.
    fn spoken(&self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let news = self.socket.poll_readable(&mut cx).is_ready();
        let nothing = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        news && !self.socket.stream().try_read(&mut [0]).is_err_and(nothing)
    }

    /// Of one that was used before: will the kernel on its side have taken nothing of what is sent from now on?
    pub(crate) fn check_untouched(&self) -> Option<impl Fn() -> bool + 'static> {
        let (before, socket) = (self.socket.acknowledged().ok().filter(|_| self.used)?, self.socket.clone());
        Some(move || socket.acknowledged().is_ok_and(|now| now <= before))
    }

    /// Others have sent by it: what was taken so far counts as sent. The kernel counts the connection's opening as one byte.
    pub(crate) fn recounted(self) -> Self {
        self.sent.set(self.socket.acknowledged().map_or(0, |count| count.saturating_sub(1)));
        self
    }

    /// So many bytes more are sent; how many were before.
    pub(crate) fn count_sent(&self, count: usize) -> u64 {
        let before = self.sent.get();
        self.sent.set(before + count as u64);
        before
    }

    /// The app had closed before it was asked, and the kernel on its side has taken nothing of what was sent since. An end that comes as
    /// a reset proves nothing, because a reset does not tell what was taken before it.
    pub(crate) fn untouched(&self, sent_before: u64) -> bool {
        // The kernel counts the connection's opening as one byte.
        self.used && self.socket.acknowledged().is_ok_and(|count| count <= sent_before + 1)
    }
}
