//! A stream of somebody who asks, as a connection of HTTP/1.1 with one request: its text is read from it, the answer's text written to it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;

use super::body::{Frames, Text, poll_each};
use super::head::{self, Whole};
use crate::ingress::wire::{Guard, Guarded, Shut, Wire, keep_watch};

/// The ingress's own heads are no longer than an app's may be.
const HEAD_MOST: usize = 64 << 10;

/// One stream.
pub(super) struct Asked {
    request: RefCell<(Text, RecvStream)>,
    answer: RefCell<Answer>,
    head_only: bool,
    grpc: bool,
    /// Its sender took it back before an answer had begun.
    taken_back: Cell<bool>,
    unread: Cell<bool>,
    guard: Guard,
    waker: RefCell<Option<Waker>>,
}

enum Answer {
    /// So much of its head has come.
    Head(Vec<u8>, SendResponse<Bytes>),
    Body(Frames),
    Over,
}

impl Asked {
    /// Watched by this thread from now on.
    pub(super) fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Rc<Self> {
        let (parts, body) = request.into_parts();
        let ends = body.is_end_stream();
        let (text, chunked) = head::request_text(&parts, ends);
        let asked = Rc::new(Self {
            request: RefCell::new((Text::new(text, chunked, ends), body)),
            answer: RefCell::new(Answer::Head(Vec::new(), respond)),
            head_only: parts.method == http::Method::HEAD,
            grpc: head::is_grpc(&parts.headers),
            taken_back: Cell::new(false),
            unread: Cell::new(false),
            guard: Guard::default(),
            waker: RefCell::default(),
        });
        keep_watch(&asked);
        asked
    }

    /// Does it ask in gRPC?
    pub(super) fn grpc(&self) -> bool {
        self.grpc
    }

    /// Did its sender take it back before an answer had begun?
    pub(super) fn taken_back(&self) -> bool {
        self.taken_back.get()
    }

    /// The request's end is not its sender's: it listens, and may leave.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let reset = match &mut *self.answer.borrow_mut() {
            Answer::Head(_, respond) => respond.poll_reset(cx),
            Answer::Body(frames) => frames.stream().poll_reset(cx),
            Answer::Over => return Poll::Ready(Ok(0)),
        };
        reset.map(|reset| Err(reset.map_or_else(|error| self.broken(error), |_| self.broken(Reason::CANCEL.into()))))
    }

    fn broken(&self, error: h2::Error) -> io::Error {
        if matches!(*self.answer.borrow(), Answer::Head(..)) {
            self.taken_back.set(error.reason().is_some());
        }
        io::Error::other(error)
    }

    fn over(&self) -> bool {
        self.unread.get() || matches!(*self.answer.borrow(), Answer::Over)
    }
}

impl Guarded for Asked {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn give_up(&self, how: Shut) {
        self.unread.set(true);
        if how == Shut::Whole {
            match &mut *self.answer.borrow_mut() {
                Answer::Head(_, respond) => respond.send_reset(Reason::INTERNAL_ERROR),
                Answer::Body(frames) => frames.stream().send_reset(Reason::INTERNAL_ERROR),
                Answer::Over => {}
            }
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Wire for Rc<Asked> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_recv(cx, &mut []).map_ok(|_| ())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.over() {
            return Poll::Ready(Ok(0)); // whatever else comes of the request is of no use to anybody
        }
        let (text, stream) = &mut *self.request.borrow_mut();
        let polled = match text.poll(cx, stream) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.broken(error))),
            Poll::Ready(Ok(())) if text.is_empty() && text.over() => self.poll_left(cx),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(text.read(into))),
            Poll::Pending => Poll::Pending,
        };
        if polled.is_pending() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        polled
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut answer = self.answer.borrow_mut();
        poll_each(parts, |rest| answer.poll_send(cx, rest, self.head_only))
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answer = self.answer.borrow_mut();
        if let Answer::Body(frames) = &mut *answer {
            frames.close()?;
        }
        *answer = Answer::Over;
        Poll::Ready(Ok(()))
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}

impl Answer {
    fn poll_send(&mut self, cx: &mut Context<'_>, text: &[u8], head_only: bool) -> Poll<io::Result<usize>> {
        match self {
            Self::Over => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Self::Body(frames) => {
                let (count, over) = ready!(frames.poll_send(cx, text))?;
                if over {
                    *self = Self::Over;
                }
                Poll::Ready(Ok(count))
            }
            Self::Head(head, _) if head.len() > HEAD_MOST => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            Self::Head(head, respond) => {
                let before = head.len();
                head.extend_from_slice(text);
                let Some(whole) = head::read_response(head, head_only)? else { return Poll::Ready(Ok(text.len())) };
                let Whole { length, body: framing, head: response } = whole;
                head.clear();
                if response.status().is_informational() {
                    respond.send_informational(response).map_err(io::Error::other)?;
                } else {
                    let stream = respond.send_response(response, framing.over()).map_err(io::Error::other)?;
                    *self = if framing.over() { Self::Over } else { Self::Body(Frames::new(framing, stream)) };
                }
                Poll::Ready(Ok(length - before))
            }
        }
    }
}
