//! A connection over TLS.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::ingress::wire::{Guard, Guarded, Shut, Wire, keep_watch};

/// One connection.
pub(in crate::ingress) struct Secure {
    stream: RefCell<TlsStream<TcpStream>>,
    /// Did the last look bring nothing? Only then the socket tells whether there is something.
    dry: Cell<bool>,
    /// Taken, and not all given to the socket yet.
    unsent: Cell<usize>,
    /// An end without the words of TLS may be somebody else's doing: here it is none. (HTTP tells by itself where its messages end.)
    strict: bool,
    guard: Guard,
}

impl Secure {
    /// Watched by this thread from now on.
    pub(in crate::ingress) fn new(stream: TlsStream<TcpStream>) -> Rc<Self> {
        Self::watched(stream, false)
    }

    /// Likewise, for what does not tell where it ends.
    pub(in crate::ingress) fn raw(stream: TlsStream<TcpStream>) -> Rc<Self> {
        Self::watched(stream, true)
    }

    fn watched(stream: TlsStream<TcpStream>, strict: bool) -> Rc<Self> {
        let secure = Rc::new(Self {
            stream: RefCell::new(stream),
            dry: Cell::new(false),
            unsent: Cell::new(0),
            strict,
            guard: Guard::default(),
        });
        keep_watch(&secure);
        secure
    }
}

impl Guarded for Secure {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn give_up(&self, how: Shut) {
        let how = if how == Shut::Reading { std::net::Shutdown::Read } else { std::net::Shutdown::Both };
        if let Err(error) = socket2::SockRef::from(self.stream.borrow().get_ref().0).shutdown(how) {
            tracing::trace!(%error, "a connection was shut already");
        }
    }
}

impl Wire for Rc<Secure> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.dry.get() {
            true => self.stream.borrow().get_ref().0.poll_read_ready(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        let read = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut into);
        self.dry.set(read.is_pending());
        match ready!(read) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !self.strict => Poll::Ready(Ok(0)),
            read => Poll::Ready(read.map(|()| into.filled().len())),
        }
    }

    /// What was taken is given to the socket before the next is, so that nothing is left behind; to be asked again with the same bytes.
    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = &mut *self.stream.borrow_mut();
        if self.unsent.get() == 0 {
            self.unsent.set(ready!(Pin::new(&mut *stream).poll_write_vectored(cx, parts))?);
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        Poll::Ready(Ok(self.unsent.take()))
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}
