//! One connection of somebody who asks: head after head, each to its app.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::framing::Framing;
use super::relay::{Exchange, Exchanged};
use super::request::{Bad, HEAD_MOST, Request, Sender};
use crate::ingress::answer::{self, Answer};
use crate::ingress::app::{Placed, Seat, Waiting};
use crate::ingress::buffer::Lent;
use crate::ingress::thread::Thread;
use crate::ingress::wire::{Shut, Wire, receive, send};

/// After the last answer, for its reader to see it before the connection is gone.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_MOST: usize = 256 << 10;

/// One connection.
pub(crate) struct Client<W> {
    pub(crate) wire: W,
    pub(crate) sender: Sender,
    /// The port that it came to.
    pub(crate) listen: u16,
    pub(crate) thread: Rc<Thread>,
}

/// Connections of HTTP/2 begin so, and no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What becomes of a connection after a burst of requests.
enum After {
    /// It is there for more.
    Quiet,
    /// It is over.
    Over,
    /// It speaks HTTP/2; so much was read.
    Http2(Vec<u8>),
}

/// What becomes of the connection after a request.
pub(crate) enum Next {
    /// Another request may come.
    Another,
    /// It is closed, with care for what was sent last.
    Close,
    /// It is gone, or must not look complete.
    Cut,
}

impl<W: Wire> Client<W> {
    /// Serves it to its end, or until it shows that it speaks HTTP/2: then it is given back, with what was read of it. A connection that
    /// waits for the next request takes no more memory than this.
    pub(crate) async fn serve(self) -> Option<(W, Vec<u8>)> {
        let mut first = true;
        loop {
            self.wire.guarded().guard().within(self.thread.shared.patience.idle);
            if poll_fn(|cx| self.wire.poll_readable(cx)).await.is_err() {
                return None;
            }
            match Box::pin(self.burst(first)).await {
                After::Quiet => first = false,
                After::Over => return None,
                After::Http2(read) => return Some((self.wire, read)),
            }
        }
    }

    /// Requests that come one right after the other.
    async fn burst(&self, mut first: bool) -> After {
        let _under_way = self.thread.under_way();
        let mut inbound = Lent::new();
        loop {
            let next = match self.head(&mut inbound).await {
                Ok(Some(request)) => self.request(&mut inbound, request).await,
                Ok(None) if inbound.is_empty() => return After::Over,
                Ok(None) => self.say(Answer::too_slow()).await,
                Err(_) if first && inbound.filled().starts_with(PREFACE) => {
                    self.wire.guarded().guard().at_leisure();
                    return After::Http2(inbound.filled().to_vec());
                }
                Err(bad) => self.say(Answer::bad(bad)).await,
            };
            first = false;
            match next {
                Next::Another if inbound.is_empty() && !self.more(&mut inbound).await => return After::Quiet,
                Next::Another => {}
                Next::Close => {
                    self.linger(&mut inbound).await;
                    return After::Over;
                }
                Next::Cut => {
                    self.wire.guarded().give_up(Shut::Whole);
                    return After::Over;
                }
            }
        }
    }

    /// Is there more already? Then its bytes are taken; an end shows itself at the next look.
    async fn more(&self, inbound: &mut Lent) -> bool {
        let got = poll_fn(|cx| match self.wire.poll_recv(cx, inbound.room()) {
            Poll::Ready(Ok(count)) => Poll::Ready(Some(count)),
            Poll::Ready(Err(_)) => Poll::Ready(Some(0)),
            Poll::Pending => Poll::Ready(None),
        });
        let got = got.await;
        inbound.grew(got.unwrap_or(0));
        got.is_some()
    }

    /// The next head; nothing when the connection ends before it is whole.
    async fn head(&self, inbound: &mut Lent) -> Result<Option<Request>, Bad> {
        self.wire.guarded().guard().read_within(self.thread.shared.patience.head);
        loop {
            if !inbound.is_empty()
                && let Some(request) = Request::read(inbound.filled())?
            {
                return Ok(Some(request));
            }
            debug_assert!(inbound.filled().len() < HEAD_MOST);
            match receive(&self.wire, inbound.room()).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => inbound.grew(count),
            }
        }
    }

    async fn request(&self, inbound: &mut Lent, request: Request) -> Next {
        let (host, path) = (request.host(inbound.filled()), request.path(inbound.filled()));
        let Some((app, to)) = self.thread.find(self.listen, host, path) else {
            let answer = Answer::no_app(host, path);
            return self.say(answer).await;
        };
        if matches!(request.body, Framing::Length(length) if length > to.max_body) {
            return self.say(Answer::body_too_large(to.max_body)).await;
        }
        let mut exchange = Exchange::new(self, request, to.max_body);
        let mut placed = app.arrive(inbound.filled().len());
        loop {
            let seat = match placed {
                Ok(Placed::Go(seat)) => seat,
                Ok(Placed::Wait(waiting)) => match self.wait(waiting, inbound, &mut exchange).await {
                    Ok(seat) => seat,
                    Err(answer) => return self.say_or_cut(answer).await,
                },
                Err(refusal) => return self.say(Answer::refused(&refusal)).await,
            };
            placed = match exchange.run(inbound, seat, to).await {
                Exchanged::Done(next) => return next,
                Exchanged::Failed(answer) => return self.say(answer).await,
                Exchanged::Bounced(seat, why) => seat.bounced(why),
            };
        }
    }

    /// Until there is a seat. What comes meanwhile is kept, as far as there is room; whoever is gone waits no more.
    async fn wait(
        &self,
        waiting: Waiting,
        inbound: &mut Lent,
        exchange: &mut Exchange<'_, W>,
    ) -> Result<Seat, Option<Answer>> {
        self.wire.guarded().guard().at_leisure();
        let mut seat = std::pin::pin!(waiting.seat());
        poll_fn(|cx| {
            if let Poll::Ready(seat) = seat.as_mut().poll(cx) {
                return Poll::Ready(seat.map_err(|refusal| Some(Answer::refused(&refusal))));
            }
            match exchange.poll_client(cx, inbound) {
                Ok(()) => Poll::Pending,
                Err(_) => Poll::Ready(Err(None)),
            }
        })
        .await
    }

    async fn say_or_cut(&self, answer: Option<Answer>) -> Next {
        match answer {
            Some(answer) => self.say(answer).await,
            None => Next::Cut,
        }
    }

    /// Our own words instead of an app's. What is left of the request is not read, so the connection ends.
    async fn say(&self, answer: Answer) -> Next {
        self.wire.guarded().guard().within(LINGER_TIME);
        let text = if self.sender.grpc { answer::grpc(&answer) } else { answer::http1(&answer) };
        match send(&self.wire, &text, b"").await {
            Ok(()) => Next::Close,
            Err(_) => Next::Cut,
        }
    }

    /// Closing with bytes unread would take the answer from its reader: what still comes is thrown away for a short while.
    async fn linger(&self, inbound: &mut Lent) {
        self.wire.guarded().guard().within(LINGER_TIME);
        if poll_fn(|cx| self.wire.poll_close(cx)).await.is_err() {
            return;
        }
        let mut left = LINGER_MOST;
        while left > 0 {
            let unread = inbound.filled().len();
            inbound.consume(unread);
            match receive(&self.wire, inbound.room()).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }
}
