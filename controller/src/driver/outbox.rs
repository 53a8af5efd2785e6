//! What waits to be sent to one agent. Bounded: an agent that takes nothing loses its session instead of growing our memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bellows_proto::node as wire;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

/// Messages per agent. At most `ORDERS_PER_MESSAGE` orders of about 300 bytes each: 75 MiB in the worst case, and in
/// the usual one (a few orders a message) some kilobytes.
const WAITING_MESSAGES: usize = 256;

/// A batch is cut into messages of this many orders, far below gRPC's 4 MiB a message.
pub(super) const ORDERS_PER_MESSAGE: usize = 1_000;

/// The driver's end.
pub(crate) struct Outbox {
    queue: mpsc::Sender<wire::to_agent::Body>,
    closing: oneshot::Sender<Last>,
    /// Dropped with the outbox: tells the listening side that nobody hears it any more.
    _open: oneshot::Sender<Infallible>,
}

/// The last message of a session.
struct Last {
    refusal: wire::Refusal,
    /// Does it overtake what waits?
    at_once: bool,
}

/// Ends when the driver has let go of the outbox.
pub(crate) struct Closed(oneshot::Receiver<Infallible>);

impl Closed {
    /// Returns when the session is over, whoever ended it.
    pub(crate) async fn closed(self) {
        // The only way for it to end: nothing infallible is ever sent.
        let Err(_dropped) = self.0.await;
    }
}

/// The connection's end: what is to be sent, and at last why nothing more comes.
pub(crate) struct OutboxStream {
    queue: mpsc::Receiver<wire::to_agent::Body>,
    closing: oneshot::Receiver<Last>,
    /// Said when the queue is empty.
    last: Option<wire::Refusal>,
    ended: bool,
}

/// The agent takes its messages too slowly.
#[derive(Debug)]
pub(crate) struct Full;

/// Both ends, and what tells of the end.
pub(crate) fn outbox() -> (Outbox, OutboxStream, Closed) {
    let (sender, queue) = mpsc::channel(WAITING_MESSAGES);
    let (close, closing) = oneshot::channel();
    let (open, closed) = oneshot::channel();
    (
        Outbox { queue: sender, closing: close, _open: open },
        OutboxStream { queue, closing, last: None, ended: false },
        Closed(closed),
    )
}

impl Outbox {
    /// Never waits. A closed connection swallows it: its end is reported by the other side.
    pub(crate) fn send(&self, body: wire::to_agent::Body) -> Result<(), Full> {
        match self.queue.try_send(body) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Overtakes whatever waits.
    pub(crate) fn close(self, refusal: wire::Refusal) {
        self.end(Last { refusal, at_once: true });
    }

    /// After everything that waits.
    pub(crate) fn close_in_order(self, refusal: wire::Refusal) {
        self.end(Last { refusal, at_once: false });
    }

    fn end(self, last: Last) {
        // The connection may have ended meanwhile; then nobody needs the reason.
        let _ = self.closing.send(last);
    }
}

fn message(refusal: wire::Refusal) -> wire::ToAgent {
    wire::ToAgent { body: Some(wire::to_agent::Body::Refusal(refusal)) }
}

impl Stream for OutboxStream {
    type Item = Result<wire::ToAgent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.last.is_none()
            && let Poll::Ready(last) = Pin::new(&mut self.closing).poll(context)
        {
            match last {
                Ok(Last { refusal, at_once: false }) => self.last = Some(refusal),
                other => {
                    self.ended = true;
                    return Poll::Ready(other.ok().map(|last| Ok(message(last.refusal))));
                }
            }
        }
        match (self.queue.poll_recv(context), self.last.is_some()) {
            (Poll::Ready(Some(body)), _) => Poll::Ready(Some(Ok(wire::ToAgent { body: Some(body) }))),
            (Poll::Ready(None), true) => {
                self.ended = true;
                Poll::Ready(self.last.take().map(|refusal| Ok(message(refusal))))
            }
            // The outbox ended after `closing` was looked at: its last word, if any, is there now or comes at once.
            (Poll::Ready(None), false) => match Pin::new(&mut self.closing).poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(last) => {
                    self.ended = true;
                    Poll::Ready(last.ok().map(|last| Ok(message(last.refusal))))
                }
            },
            (Poll::Pending, _) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    fn acknowledge() -> wire::to_agent::Body {
        wire::to_agent::Body::Acknowledge(wire::Acknowledge::default())
    }

    #[tokio::test]
    async fn a_slow_agent_is_told_why_before_anything_else() {
        let (outbox, mut stream, closed) = outbox();
        for _ in 0..WAITING_MESSAGES {
            outbox.send(acknowledge()).expect("room");
        }
        assert!(outbox.send(acknowledge()).is_err());
        outbox.close(wire::Refusal { text: "too slow".to_owned(), ..Default::default() });
        let first = stream.next().await.expect("a message").expect("no error").body;
        assert!(matches!(first, Some(wire::to_agent::Body::Refusal(refusal)) if refusal.text == "too slow"));
        assert!(stream.next().await.is_none());
        closed.closed().await;
    }

    #[tokio::test]
    async fn the_last_orders_arrive_before_the_farewell() {
        let (outbox, mut stream, closed) = outbox();
        outbox.send(acknowledge()).expect("room");
        outbox.send(acknowledge()).expect("room");
        outbox.close_in_order(wire::Refusal { text: "removed".to_owned(), ..Default::default() });
        let mut said = Vec::new();
        while let Some(message) = stream.next().await {
            said.push(message.expect("no error").body.expect("a body"));
        }
        assert_eq!(said[..2], [acknowledge(), acknowledge()]);
        assert!(matches!(&said[2..], [wire::to_agent::Body::Refusal(refusal)] if refusal.text == "removed"));
        closed.closed().await;
    }

    #[tokio::test]
    async fn a_dropped_outbox_ends_the_stream() {
        let (outbox, mut stream, closed) = outbox();
        drop(outbox);
        assert!(stream.next().await.is_none());
        closed.closed().await;
    }
}
