//! A stream of a link as a connection: bytes both ways, to one copy.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::ingress::http2::poll_room;
use crate::ingress::wire::{Guard, Guarded, Shut, Wire};

/// One stream.
pub(crate) struct LinkStream {
    send: RefCell<SendStream<Bytes>>,
    receive: RefCell<RecvStream>,
    /// Came, and was not taken yet.
    spare: RefCell<Bytes>,
    ended: Cell<bool>,
    /// What the other end said with its end.
    last_word: Cell<Option<LastWord>>,
    /// Has anything been sent?
    spoken: Cell<bool>,
    /// Of the owner: has the app's kernel taken nothing of what came?
    untouched: RefCell<Option<Box<dyn Fn() -> bool>>>,
    guard: Guard,
    waker: RefCell<Option<Waker>>,
}

/// Said with the end of a stream, which else is the end of the app's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// By the asker: the exchange is over, and the app's connection may serve another one.
    Kept,
    /// By the owner: the app had closed its connection before, and nothing of the request reached it.
    Untouched,
}

const LAST_WORD: HeaderName = HeaderName::from_static("bellows-last-word");

impl LastWord {
    fn trailers(self) -> HeaderMap {
        let word = if self == Self::Kept { "kept" } else { "untouched" };
        HeaderMap::from_iter([(LAST_WORD, HeaderValue::from_static(word))])
    }

    fn read(trailers: &HeaderMap) -> Option<Self> {
        match trailers.get(LAST_WORD)?.as_bytes() {
            b"kept" => Some(Self::Kept),
            b"untouched" => Some(Self::Untouched),
            _ => None,
        }
    }
}

impl LinkStream {
    /// Watched by this thread from now on.
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Rc<Self> {
        let stream = Rc::new(Self {
            send: RefCell::new(send),
            receive: RefCell::new(receive),
            spare: RefCell::default(),
            ended: Cell::new(false),
            last_word: Cell::new(None),
            spoken: Cell::new(false),
            untouched: RefCell::default(),
            guard: Guard::default(),
            waker: RefCell::default(),
        });
        crate::ingress::wire::keep_watch(&stream);
        stream
    }

    /// The exchange is over, and so is the stream; the app's connection goes on.
    pub(crate) fn keep(&self) {
        if let Err(error) = self.send.borrow_mut().send_trailers(LastWord::Kept.trailers()) {
            tracing::debug!(%error, "an owner does not hear that an exchange is over");
        }
    }

    /// Asked when the app ends without a word.
    pub(crate) fn tell_untouched(&self, check: impl Fn() -> bool + 'static) {
        *self.untouched.borrow_mut() = Some(Box::new(check));
    }

    /// What the other end said with its end, if it said anything.
    pub(crate) fn last_word(&self) -> Option<LastWord> {
        self.last_word.get()
    }

    fn poll_end(&self, cx: &mut Context<'_>, receive: &mut RecvStream) -> Poll<io::Result<Bytes>> {
        let trailers = ready!(receive.poll_trailers(cx)).map_err(io::Error::other)?;
        self.ended.set(true);
        self.last_word.set(trailers.as_ref().and_then(LastWord::read));
        match self.last_word.get() {
            // Whoever passes bytes on must not pass this end on.
            Some(LastWord::Kept) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            _ => Poll::Ready(Ok(Bytes::new())),
        }
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.guard.overdue() || self.ended.get() {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let mut receive = self.receive.borrow_mut();
        let polled = match receive.poll_data(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => self.poll_end(cx, &mut receive),
            Poll::Ready(Some(data)) => {
                let data = data.map_err(io::Error::other)?;
                receive.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
                Poll::Ready(Ok(data))
            }
        };
        if polled.is_pending() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        polled
    }
}

impl Guarded for LinkStream {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn give_up(&self, _: Shut) {
        self.send.borrow_mut().send_reset(h2::Reason::CANCEL);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Wire for Rc<LinkStream> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.spare.borrow().is_empty() {
            let data = ready!(self.poll_data(cx))?;
            *self.spare.borrow_mut() = data;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut spare = self.spare.borrow_mut();
        while spare.is_empty() {
            *spare = ready!(self.poll_data(cx))?;
            if spare.is_empty() && (self.ended.get() || self.guard.overdue()) {
                return Poll::Ready(Ok(0));
            }
        }
        let count = spare.len().min(into.len());
        spare.copy_to_slice(&mut into[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut send = self.send.borrow_mut();
        let all: usize = parts.iter().map(|part| part.len()).sum();
        let room = ready!(poll_room(cx, &mut send, all))?;
        let mut data = Vec::with_capacity(room.min(all));
        for part in parts {
            let left = room.min(all) - data.len();
            data.extend_from_slice(&part[..left.min(part.len())]);
        }
        let count = data.len();
        self.spoken.set(true);
        send.send_data(Bytes::from(data), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut send = self.send.borrow_mut();
        let untouched = !self.spoken.get() && self.untouched.borrow().as_ref().is_some_and(|check| check());
        let ended = match untouched {
            true => send.send_trailers(LastWord::Untouched.trailers()),
            false => send.send_data(Bytes::new(), true),
        };
        Poll::Ready(ended.map_err(io::Error::other))
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}
