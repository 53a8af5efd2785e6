//! A stream of a link as a connection: bytes both ways, to one copy.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};

use crate::ingress::http2::poll_room;
use crate::ingress::wire::{Guard, Guarded, Shut, Wire};

/// One stream.
pub(crate) struct LinkStream {
    send: RefCell<SendStream<Bytes>>,
    receive: RefCell<RecvStream>,
    /// Came, and was not taken yet.
    spare: RefCell<Bytes>,
    ended: Cell<bool>,
    guard: Guard,
    waker: RefCell<Option<Waker>>,
}

impl LinkStream {
    /// Watched by this thread from now on.
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Rc<Self> {
        let stream = Rc::new(Self {
            send: RefCell::new(send),
            receive: RefCell::new(receive),
            spare: RefCell::default(),
            ended: Cell::new(false),
            guard: Guard::default(),
            waker: RefCell::default(),
        });
        crate::ingress::wire::keep_watch(&stream);
        stream
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.guard.overdue() || self.ended.get() {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let mut receive = self.receive.borrow_mut();
        match receive.poll_data(cx) {
            Poll::Pending => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.ended.set(true);
                Poll::Ready(Ok(Bytes::new()))
            }
            Poll::Ready(Some(data)) => {
                let data = data.map_err(io::Error::other)?;
                receive.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
                Poll::Ready(Ok(data))
            }
        }
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
        send.send_data(Bytes::from(data), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.borrow_mut().send_data(Bytes::new(), true).map_err(io::Error::other))
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}
