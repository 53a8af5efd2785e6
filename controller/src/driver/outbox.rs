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
    closing: oneshot::Sender<wire::Refusal>,
    /// Dropped with the outbox: tells the listening side that nobody hears it any more.
    _open: oneshot::Sender<Infallible>,
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
    closing: oneshot::Receiver<wire::Refusal>,
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
        OutboxStream { queue, closing, ended: false },
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
        // The connection may have ended meanwhile; then nobody needs the reason.
        let _ = self.closing.send(refusal);
    }
}

impl Stream for OutboxStream {
    type Item = Result<wire::ToAgent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(refusal) = Pin::new(&mut self.closing).poll(context) {
            self.ended = true;
            let message = |refusal| wire::ToAgent { body: Some(wire::to_agent::Body::Refusal(refusal)) };
            return Poll::Ready(refusal.ok().map(|refusal| Ok(message(refusal))));
        }
        self.queue.poll_recv(context).map(|body| body.map(|body| Ok(wire::ToAgent { body: Some(body) })))
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
    async fn a_dropped_outbox_ends_the_stream() {
        let (outbox, mut stream, closed) = outbox();
        drop(outbox);
        assert!(stream.next().await.is_none());
        closed.closed().await;
    }
}
