//! One request and its answer, between a connection and a copy on this node.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bellows_agent_core::traffic::{Bounce, Outcome};

use super::client::{Client, Next};
use super::framing::{BadChunk, Framing};
use super::request::{Bad, Request};
use super::response::{Garbage, Response, Wish};
use super::upstream::Place;
use super::way::Way;
use crate::ingress::answer::Answer;
use crate::ingress::app::{Seat, Target};
use crate::ingress::buffer::Lent;
use crate::ingress::thread::Port;
use crate::ingress::tunnel::tunnel;
use crate::ingress::wire::{Wire, receive, send};

/// For the reader of an answer, or the writer of a body, to do anything at all.
const SENDER_TIME: Duration = Duration::from_secs(60);

/// Most heads find room in this.
const HEAD_MOSTLY: usize = 1000;

/// One request, as far as it has come.
pub(crate) struct Exchange<'c, W> {
    client: &'c Client<W>,
    request: Request,
    /// What of the body is not read yet.
    body: Framing,
    /// How long the body may be, and how much of that is left.
    max_body: u64,
    left: u64,
    /// The head as the app gets it; empty before.
    head: Vec<u8>,
    /// Its sender says no more; it may still listen.
    half_closed: bool,
}

/// What came of it.
pub(crate) enum Exchanged {
    Done(Next),
    /// Nothing was said to whoever asked yet: say this.
    Failed(Answer),
    /// Not a byte can have reached the app.
    Bounced(Seat, Bounce),
}

/// An exchange that did not go well.
enum Trouble {
    /// The copy's fault, before the first byte of its answer was passed on.
    Copy(Answer),
    /// Not a byte reached it.
    NotReached,
    /// The request's own fault.
    Request(Answer),
    /// The asker is gone, or must see that the answer is not whole; and whether that is the copy's fault.
    Cut(Outcome),
}

impl<'c, W: Wire> Exchange<'c, W> {
    pub(crate) fn new(client: &'c Client<W>, request: Request, max_body: u64) -> Self {
        let (body, head) = (request.body, Vec::new());
        Self { client, body, request, max_body, left: max_body, head, half_closed: false }
    }

    /// So much more of the body is passed on, with what stands around its chunks.
    fn charge(&mut self, count: usize) -> Result<(), Trouble> {
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| Trouble::Request(Answer::body_too_large(self.max_body)))?;
        Ok(())
    }

    /// Takes what the asker sends meanwhile, as far as there is room; an error when it is gone.
    pub(crate) fn poll_client(&mut self, cx: &mut Context<'_>, inbound: &mut Lent) -> io::Result<()> {
        while !self.half_closed && !inbound.room().is_empty() {
            match self.client.wire.poll_recv(cx, inbound.room()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => self.half_closed = true,
                Poll::Ready(Ok(count)) => inbound.grew(count),
            }
        }
        Ok(())
    }

    /// The request to the copy and its answer back.
    pub(crate) async fn run(&mut self, inbound: &mut Lent, mut seat: Seat, to: Port) -> Exchanged {
        let replica = seat.target().replica();
        let way = match self.way(&seat, to).await {
            Ok(way) => way,
            Err(why) => return Exchanged::Bounced(seat, why),
        };
        match self.with(inbound, way).await {
            Ok(next) => {
                seat.set(Outcome::Answered);
                Exchanged::Done(next)
            }
            Err(Trouble::NotReached) => Exchanged::Bounced(seat, Bounce::NotReached),
            Err(Trouble::Request(answer)) => Exchanged::Failed(answer),
            Err(Trouble::Copy(answer)) => {
                tracing::debug!(%replica, reason = answer.reason, "a copy failed a request");
                seat.set(Outcome::Failed);
                Exchanged::Failed(answer)
            }
            Err(Trouble::Cut(outcome)) => {
                seat.set(outcome);
                Exchanged::Done(Next::Cut)
            }
        }
    }

    async fn way(&self, seat: &Seat, to: Port) -> Result<Way, Bounce> {
        let thread = &self.client.thread;
        match *seat.target() {
            // In boxes: what is awaited is moved to where it waits, and a request to a copy here would be five times as large.
            Target::At { .. } => Box::pin(thread.there(seat, to)).await.map(Way::There),
            Target::Here { replica, attempt, address } => {
                let place = Place { replica, attempt, address, port: to.number };
                let way = match to.http2 {
                    false => thread.pool.take(place).await.map(Way::Here),
                    true => Box::pin(thread.streams(place)).await.map(Way::Stream),
                };
                way.map_err(|error| {
                    tracing::debug!(%replica, %error, "a copy cannot be connected to");
                    Bounce::NotReached
                })
            }
        }
    }

    async fn with(&mut self, inbound: &mut Lent, way: Way) -> Result<Next, Trouble> {
        if self.head.is_empty() {
            self.head.reserve(HEAD_MOSTLY);
            self.request.write(inbound.filled(), self.client.sender, &mut self.head);
            inbound.consume(self.request.length);
        }
        let mut body = self.body;
        let first = body.take(inbound.filled()).map_err(bad_body)?;
        let whole = body.over();
        let left = self.left;
        self.charge(first)?;
        self.progress(&way);
        let sent = send(&way, &self.head, &inbound.filled()[..first]).await;
        let again = Again { whole, sent_before: way.count_sent(self.head.len() + first) };
        if sent.is_err() && again.possible(&way) {
            return Err(Trouble::NotReached);
        }
        self.body = body;
        if !whole {
            inbound.consume(first); // what is whole is kept until the app answers: it may have to be sent elsewhere
        }
        let replied = self.both(inbound, &way, again, sent.is_ok()).await;
        if let Err(Trouble::NotReached) = replied {
            self.left = left;
            self.body = Framing::Length(first as u64);
        } else if whole {
            inbound.consume(first);
        }
        let Reply { response, goes_on, rest } = replied?;
        if response.status == 101 {
            Box::pin(tunnel((&self.client.wire, inbound), (&way, rest))).await;
            return Ok(Next::Cut);
        }
        let over = self.body.over();
        match way {
            Way::Here(upstream) if response.persistent && over && rest.is_empty() => {
                self.client.thread.pool.give_back(upstream);
            }
            Way::There(stream) if response.persistent && over && rest.is_empty() => stream.keep(),
            way => way.abandon(),
        }
        Ok(if goes_on && over && !self.half_closed { Next::Another } else { Next::Close })
    }

    /// The answer comes back while the rest of the body goes there.
    async fn both(&mut self, inbound: &mut Lent, way: &Way, again: Again, mut feeding: bool) -> Result<Reply, Trouble> {
        let over = Cell::new(self.body.over());
        let persistent = self.request.persistent;
        let wish = Wish {
            kind: self.request.kind,
            old: self.request.old(),
            persistent,
            upgrade: self.request.upgrade.is_some(),
        };
        let begun = Cell::new(false);
        let replier = Replier { client: self.client, way, again, over: &over, begun: &begun, wish };
        let mut reply = pin!(replier.run());
        let mut feed = pin!(self.feed(inbound, way, &over));
        poll_fn(|cx| {
            if feeding && let Poll::Ready(fed) = feed.as_mut().poll(cx) {
                feeding = false;
                // In the midst of an answer nothing else can be said.
                fed.map_err(|why| if begun.get() { Trouble::Cut(Outcome::Left) } else { why })?;
            }
            reply.as_mut().poll(cx)
        })
        .await
    }

    /// The rest of the body to the app; then whatever the asker sends, as far as there is room.
    async fn feed(&mut self, inbound: &mut Lent, way: &Way, over: &Cell<bool>) -> Result<(), Trouble> {
        while !self.body.over() {
            if inbound.is_empty() {
                match receive(&self.client.wire, inbound.room()).await {
                    Ok(0) | Err(_) => return Err(Trouble::Cut(Outcome::Left)),
                    Ok(count) => inbound.grew(count),
                }
            }
            let count = self.body.take(inbound.filled()).map_err(bad_body)?;
            self.charge(count)?;
            self.progress(way);
            if send(way, &inbound.filled()[..count], b"").await.is_err() {
                return Ok(()); // it may have answered before it closed
            }
            inbound.consume(count);
        }
        over.set(true);
        poll_fn(|cx| match self.poll_client(cx, inbound) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Trouble::Cut(Outcome::Left))),
        })
        .await
    }

    fn progress(&self, way: &Way) {
        self.client.progress(way);
    }
}

impl<W: Wire> Client<W> {
    /// Something moved: the app has its time anew, and the asker somewhat more.
    fn progress(&self, way: &Way) {
        let answer = self.thread.shared.patience.answer;
        way.guarded().guard().within(answer);
        self.wire.guarded().guard().within(answer + SENDER_TIME);
    }
}

/// May the request be sent elsewhere? Only when it is still whole here and not a byte of it can have reached the app.
#[derive(Clone, Copy)]
struct Again {
    whole: bool,
    sent_before: u64,
}

impl Again {
    fn possible(self, way: &Way) -> bool {
        self.whole && way.untouched(self.sent_before)
    }
}

/// The head of an answer that was passed on whole, and what came behind it.
struct Reply {
    response: Response,
    goes_on: bool,
    rest: Lent,
}

/// The way back.
struct Replier<'a, W> {
    client: &'a Client<W>,
    way: &'a Way,
    again: Again,
    /// Is the request's body over?
    over: &'a Cell<bool>,
    /// Has anything been said to the asker?
    begun: &'a Cell<bool>,
    wish: Wish,
}

impl<W: Wire> Replier<'_, W> {
    async fn run(self) -> Result<Reply, Trouble> {
        let (mut answer, mut head) = (Lent::new(), Vec::with_capacity(HEAD_MOSTLY));
        let (response, goes_on) = self.head(&mut answer, &mut head).await?;
        let mut body = response.body;
        loop {
            let count = body.take(answer.filled()).map_err(|_| self.broken(&head, "its chunks are malformed"))?;
            // In one piece with its body, where the head that came was no shorter: that is less work for the kernel.
            let joined = answer.prepend(&head);
            if joined && head.len() + count > 0 {
                self.pass(&answer.filled()[..head.len() + count], b"").await?;
                answer.consume(head.len());
            } else if !joined {
                self.pass(&head, &answer.filled()[..count]).await?;
            }
            head.clear();
            answer.consume(count);
            if body.over() {
                return Ok(Reply { response, goes_on, rest: answer });
            }
            match receive(self.way, answer.room()).await {
                Ok(0) if body == Framing::UntilClose && !self.way.guarded().guard().overdue() => {
                    return Ok(Reply { response, goes_on, rest: answer });
                }
                Ok(0) | Err(_) => return Err(Trouble::Cut(Outcome::Failed)),
                Ok(count) => answer.grew(count),
            }
        }
    }

    /// The head of the final answer; what is said before it (100, 103) is passed on.
    async fn head(&self, answer: &mut Lent, head: &mut Vec<u8>) -> Result<(Response, bool), Trouble> {
        loop {
            let persistent = self.wish.persistent && self.over.get() && !self.client.thread.closing();
            let wish = Wish { persistent, ..self.wish };
            let read =
                if answer.is_empty() { None } else { Response::read(answer.filled(), wish, head).map_err(garbage)? };
            match read {
                None => self.more(answer).await?,
                Some((response, _)) if response.status < 200 && response.status != 101 => {
                    answer.consume(response.length);
                    if !self.wish.old {
                        self.pass(head, b"").await?;
                    }
                    head.clear();
                }
                Some((response, goes_on)) => {
                    answer.consume(response.length);
                    return Ok((response, goes_on));
                }
            }
        }
    }

    async fn more(&self, answer: &mut Lent) -> Result<(), Trouble> {
        match receive(self.way, answer.room()).await {
            Ok(0) if self.way.guarded().guard().overdue() && self.over.get() => Err(Trouble::Copy(Answer::no_answer())),
            Ok(0) if self.way.guarded().guard().overdue() => Err(Trouble::Request(Answer::body_too_slow())),
            Ok(0) if answer.is_empty() && self.again.possible(self.way) => Err(Trouble::NotReached),
            Ok(0) => Err(Trouble::Copy(Answer::failed("it closed the connection before it had answered"))),
            Err(error) => Err(Trouble::Copy(Answer::failed(&format!("its connection broke ({error})")))),
            Ok(count) => {
                answer.grew(count);
                Ok(())
            }
        }
    }

    async fn pass(&self, head: &[u8], body: &[u8]) -> Result<(), Trouble> {
        self.client.progress(self.way);
        self.begun.set(true);
        send(&self.client.wire, head, body).await.map_err(|_| Trouble::Cut(Outcome::Left))
    }

    /// With the head not passed on yet it can be said; afterwards it can only be cut.
    fn broken(&self, head: &[u8], what: &str) -> Trouble {
        if head.is_empty() { Trouble::Cut(Outcome::Failed) } else { Trouble::Copy(Answer::failed(what)) }
    }
}

fn garbage(garbage: Garbage) -> Trouble {
    Trouble::Copy(Answer::failed(garbage.0))
}

fn bad_body(_: BadChunk) -> Trouble {
    Trouble::Request(Answer::bad(Bad(400, "the chunks of the body are malformed")))
}
