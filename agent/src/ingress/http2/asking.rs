//! A stream to an app that speaks HTTP/2, as a connection of HTTP/1.1 for one request: its text is written to it, the answer's read from it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};

use super::body::{Frames, Text, poll_each};
use super::head::{self, Asker, Whole};
use super::pool::Lane;
use crate::ingress::wire::{Guard, Guarded, Shut, Wire, keep_watch};

/// One stream.
pub(crate) struct Asking {
    request: RefCell<Request>,
    answer: RefCell<Answer>,
    asker: Cell<Asker>,
    /// The app has said that it did nothing about it.
    refused: Cell<bool>,
    given_up: Cell<bool>,
    guard: Guard,
    waker: RefCell<Option<Waker>>,
    _lane: Lane,
}

enum Request {
    /// So much of its head has come.
    Head(Vec<u8>, SendRequest<Bytes>),
    Body(Frames),
    /// It is kept to be reset.
    Over(Option<h2::SendStream<Bytes>>),
}

enum Answer {
    /// Nothing was asked yet.
    None,
    /// Its head is waited for; what comes before it is text already.
    Head(ResponseFuture, Text),
    Body(Text, RecvStream),
}

impl Asking {
    /// Watched by this thread from now on.
    pub(super) fn new(link: SendRequest<Bytes>, lane: Lane) -> Rc<Self> {
        let asking = Rc::new(Self {
            request: RefCell::new(Request::Head(Vec::new(), link)),
            answer: RefCell::new(Answer::None),
            asker: Cell::default(),
            refused: Cell::new(false),
            given_up: Cell::new(false),
            guard: Guard::default(),
            waker: RefCell::default(),
            _lane: lane,
        });
        keep_watch(&asking);
        asking
    }

    /// The app has said that it did nothing about it, and nothing of an answer has come.
    pub(crate) fn refused(&self) -> bool {
        self.refused.get()
    }

    /// A stream that the app says it has not begun is as good as a connection that was closed before: the end of it, without a word.
    fn broken(&self, error: h2::Error) -> io::Result<usize> {
        let unseen = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        self.refused.set(unseen && !matches!(*self.answer.borrow(), Answer::Body(..)));
        if self.refused.get() { Ok(0) } else { Err(io::Error::other(error)) }
    }

    fn poll_text(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize, h2::Error>> {
        let answer = &mut *self.answer.borrow_mut();
        loop {
            match answer {
                Answer::None => return Poll::Pending,
                Answer::Head(_, text) if !text.is_empty() => return Poll::Ready(Ok(text.read(into))),
                Answer::Head(future, text) => {
                    if let Poll::Ready(Some(early)) = future.poll_informational(cx) {
                        text.add(head::response_text(&early?.into_parts().0, self.asker.get(), false).0);
                        continue;
                    }
                    let (parts, stream) = ready!(std::pin::Pin::new(future).poll(cx))?.into_parts();
                    let ends = stream.is_end_stream();
                    let (head, chunked) = head::response_text(&parts, self.asker.get(), ends);
                    *answer = Answer::Body(Text::new(head, chunked, ends), stream);
                }
                Answer::Body(text, stream) => {
                    ready!(text.poll(cx, stream))?;
                    return Poll::Ready(Ok(text.read(into)));
                }
            }
        }
    }
}

impl Guarded for Asking {
    fn guard(&self) -> &Guard {
        &self.guard
    }

    fn give_up(&self, _: Shut) {
        self.given_up.set(true);
        // An answer that has come whole leaves nothing to take back but the rest of the request.
        let reason = if self.answered() { Reason::NO_ERROR } else { Reason::CANCEL };
        match &mut *self.request.borrow_mut() {
            Request::Body(frames) => frames.stream().send_reset(reason),
            Request::Over(Some(stream)) if !self.answered() => stream.send_reset(Reason::CANCEL),
            Request::Over(_) | Request::Head(..) => {}
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Asking {
    fn answered(&self) -> bool {
        matches!(&*self.answer.borrow(), Answer::Body(text, stream) if text.over() || stream.is_end_stream())
    }
}

impl Wire for Rc<Asking> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_recv(cx, &mut []).map_ok(|_| ())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.given_up.get() {
            return Poll::Ready(Ok(0));
        }
        let polled = self.poll_text(cx, into);
        if polled.is_pending() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        polled.map(|read| read.or_else(|error| self.broken(error)))
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_each(parts, |rest| self.poll_send_some(cx, rest))
    }

    fn poll_close(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // its text told where it ends
    }

    fn guarded(&self) -> &dyn Guarded {
        &**self
    }
}

impl Asking {
    fn poll_send_some(&self, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        let request = &mut *self.request.borrow_mut();
        match request {
            Request::Over(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Request::Body(frames) => {
                let (count, over) = ready!(frames.poll_send(cx, text))?;
                if over && let Request::Body(frames) = std::mem::replace(request, Request::Over(None)) {
                    *request = Request::Over(Some(frames.into_stream()));
                }
                Poll::Ready(Ok(count))
            }
            Request::Head(head, link) => {
                let before = head.len();
                head.extend_from_slice(text);
                let Some(whole) = head::read_request(head)? else { return Poll::Ready(Ok(text.len())) };
                let Whole { length, body: framing, head: (message, asker) } = whole;
                let asked = link.send_request(message, framing.over());
                let (answer, stream) = asked.map_err(io::Error::other)?;
                self.asker.set(asker);
                *self.answer.borrow_mut() = Answer::Head(answer, Text::default());
                *request = match framing.over() {
                    true => Request::Over(Some(stream)),
                    false => Request::Body(Frames::new(framing, stream)),
                };
                if let Some(waker) = self.waker.borrow_mut().take() {
                    waker.wake(); // whoever waits for the answer asks for it now
                }
                Poll::Ready(Ok(length - before))
            }
        }
    }
}
