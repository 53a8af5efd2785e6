//! A connection in one thread: bytes both ways, and a moment by which something must have happened.

use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes both ways, from a shared place: a request and its answer flow at one time.
pub(crate) trait Wire {
    /// Ready when receiving may bring something. Only to be asked when receiving has brought nothing before.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Its moment.
    fn guarded(&self) -> &dyn Guarded;
}

/// How to give a connection up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Only its reading ends, so that its sender can still be told why.
    Reading,
    /// It is over.
    Whole,
}

/// The moment by which something must have happened.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    due: Cell<Option<Instant>>,
    gently: Cell<bool>,
    overdue: Cell<bool>,
}

impl Guard {
    /// It is given up if nothing sets another moment within `length`.
    pub(crate) fn within(&self, length: Duration) {
        self.gently.set(false);
        self.due.set(Some(coarse() + length));
    }

    /// Likewise, but it can still be written to.
    pub(crate) fn read_within(&self, length: Duration) {
        self.within(length);
        self.gently.set(true);
    }

    /// No hurry.
    pub(crate) fn at_leisure(&self) {
        self.due.set(None);
    }

    /// Was it given up?
    pub(crate) fn overdue(&self) -> bool {
        self.overdue.get()
    }

    /// Is it to be given up now, and how?
    fn check(&self, now: Instant) -> Option<Shut> {
        self.due.get().filter(|due| *due <= now)?;
        self.due.set(None);
        self.overdue.set(true);
        Some(if self.gently.get() { Shut::Reading } else { Shut::Whole })
    }
}

/// Something that is given up when it is overdue.
pub(crate) trait Guarded {
    fn guard(&self) -> &Guard;
    fn give_up(&self, how: Shut);
}

/// From now on, as long as it lives.
pub(crate) fn keep_watch<G: Guarded + 'static>(guarded: &Rc<G>) {
    let weak: Weak<dyn Guarded> = Rc::<G>::downgrade(guarded);
    WATCHED.with_borrow_mut(|watched| watched.push(weak));
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: RefCell<TcpStream>,
    guard: Guard,
}

impl Socket {
    /// Watched by this thread from now on.
    pub(crate) fn new(stream: TcpStream) -> Rc<Self> {
        let socket = Rc::new(Self { stream: RefCell::new(stream), guard: Guard::default() });
        keep_watch(&socket);
        socket
    }

    /// For whoever looks after it from now on.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// For system calls of one's own.
    pub(crate) fn stream(&self) -> Ref<'_, TcpStream> {
        self.stream.borrow()
    }

    /// Is there something to read, or its end, by the last look at all sockets? Costs no system call.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.borrow().poll_read_ready(cx)
    }

    /// Bytes that the other side's kernel has taken.
    pub(crate) fn acknowledged(&self) -> io::Result<u64> {
        bellows_runtime::acknowledged(&*self.stream.borrow())
    }

    /// One that is shut already is as good.
    pub(crate) fn shut(&self, how: Shutdown) {
        if let Err(error) = socket2::SockRef::from(&*self.stream.borrow()).shutdown(how) {
            tracing::trace!(%error, "a connection was shut already");
        }
    }

    /// The other side sees that it breaks off, when this side closes it.
    pub(crate) fn reset(&self) {
        if let Err(error) = socket2::SockRef::from(&*self.stream.borrow()).set_linger(Some(Duration::ZERO)) {
            tracing::trace!(%error, "a connection was shut already");
        }
    }
}

impl Guarded for Socket {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn give_up(&self, how: Shut) {
        self.shut(if how == Shut::Reading { Shutdown::Read } else { Shutdown::Both });
    }
}

impl Wire for Rc<Socket> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_readable(self, cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        match parts {
            [one] => Pin::new(&mut *stream).poll_write(cx, one),
            parts => Pin::new(&mut *stream).poll_write_vectored(cx, parts),
        }
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut(Shutdown::Write);
        Poll::Ready(Ok(()))
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}

/// Sends all of both parts, the second behind the first.
pub(crate) async fn send(wire: &impl Wire, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
    poll_fn(|cx| {
        while !first.is_empty() || !second.is_empty() {
            let sent = match (first.is_empty(), second.is_empty()) {
                (true, _) => ready!(wire.poll_send(cx, &[IoSlice::new(second)]))?,
                (_, true) => ready!(wire.poll_send(cx, &[IoSlice::new(first)]))?,
                _ => ready!(wire.poll_send(cx, &[IoSlice::new(first), IoSlice::new(second)]))?,
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_first = sent.min(first.len());
            (first, second) = (&first[of_first..], &second[sent - of_first..]);
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Receives some bytes; none at the end.
pub(crate) async fn receive(wire: &impl Wire, into: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| wire.poll_recv(cx, into)).await
}

thread_local! {
    static WATCHED: RefCell<Vec<Weak<dyn Guarded>>> = const { RefCell::new(Vec::new()) };
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How often the watch goes round: moments are kept no more exactly than this.
const ROUND: Duration = Duration::from_millis(250);

/// The time of the last round: asked for at every request, so the clock is not.
fn coarse() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// Gives up what is overdue, for as long as the thread lives.
pub(crate) async fn watch() {
    let mut round = tokio::time::interval(ROUND);
    loop {
        let now = round.tick().await.into_std();
        NOW.set(Some(now));
        WATCHED.with_borrow_mut(|watched| {
            watched.retain(|one| {
                one.upgrade().is_some_and(|one| {
                    if let Some(how) = one.guard().check(now) {
                        one.give_up(how);
                    }
                    true
                })
            });
        });
    }
}
