//! Connections of whoever asks. Each stream is a request of its own; what one connection may cost is bounded: streams at once, heads,
//! what waits to be read or sent, requests that are taken back at once, time without a request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::Connection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::asked::Asked;
use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::ingress::http1::client::Client;
use crate::ingress::http1::request::{HEAD_MOST, Sender};
use crate::ingress::thread::Thread;

/// Requests at once, of one connection: as many as common servers allow, and browsers use.
const STREAMS: u32 = 256;
/// Streams that were ended and are remembered, for frames of theirs that are under way.
const ENDED_STREAMS: usize = 64;
/// Who takes back more requests than this within the time, before any answer, does not want answers: all streams of a page, thrice.
const TAKEN_BACK_MOST: u32 = 3 * STREAMS;
const TAKEN_BACK_TIME: Duration = Duration::from_secs(10);

/// Serves a connection to its end.
pub(crate) async fn serve<T>(thread: Rc<Thread>, io: T, sender: Sender, listen: u16)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_MOST as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(ENDED_STREAMS);
    match tokio::time::timeout(thread.shared.patience.head, builder.handshake(io)).await {
        Ok(Ok(connection)) => Serving { thread, sender, listen, streams: Rc::default() }.run(connection).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection did not begin as HTTP/2 does"),
        Err(_) => tracing::debug!("a connection was too slow to begin"),
    }
}

/// What is known of a connection's streams.
#[derive(Default)]
struct Streams {
    now: Cell<usize>,
    taken_back: RefCell<TakenBack>,
}

struct Serving {
    thread: Rc<Thread>,
    sender: Sender,
    listen: u16,
    streams: Rc<Streams>,
}

impl Serving {
    async fn run<T: AsyncRead + AsyncWrite + Unpin>(self, mut connection: Connection<T, Bytes>) {
        let mut closing = self.thread.closing_seen();
        let mut round = tokio::time::interval(self.thread.shared.patience.idle);
        let (mut told, mut idle) = (false, false);
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        idle = false;
                        self.begin(Asked::new(request, respond));
                    }
                    Some(Err(error)) => return tracing::debug!(%error, "a connection ended"),
                    None => return,
                },
                // Those that have begun end as they end; new ones find another connection.
                _ = closing.wait_for(Option::is_some), if !told => {
                    told = true;
                    connection.graceful_shutdown();
                }
                _ = round.tick() => {
                    let unused = std::mem::replace(&mut idle, self.streams.now.get() == 0);
                    if unused && idle {
                        if told {
                            return; // it was told a whole round ago
                        }
                        told = true;
                        connection.graceful_shutdown();
                    }
                }
            }
            if self.streams.taken_back.borrow().too_many() {
                tracing::debug!(address = %self.sender.address, "a connection takes back its requests all the time: it is ended");
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.streams.taken_back.take();
            }
        }
    }

    fn begin(&self, asked: Rc<Asked>) {
        let streams = self.streams.clone();
        streams.now.set(streams.now.get() + 1);
        let sender = Sender { grpc: asked.grpc(), ..self.sender };
        let client = Client { wire: asked.clone(), sender, listen: self.listen, thread: self.thread.clone() };
        tokio::task::spawn_local(async move {
            client.serve().await;
            streams.now.set(streams.now.get() - 1);
            if asked.taken_back() {
                streams.taken_back.borrow_mut().another(Instant::now());
            }
        });
    }
}

/// Requests that were taken back, lately.
#[derive(Default)]
struct TakenBack {
    since: Option<Instant>,
    count: u32,
}

impl TakenBack {
    fn another(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now - since > TAKEN_BACK_TIME) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
    }

    fn too_many(&self) -> bool {
        self.count > TAKEN_BACK_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_in_a_short_time_are_too_many() {
        let (mut slow, mut fast, start) = (TakenBack::default(), TakenBack::default(), Instant::now());
        for n in 0..10 * TAKEN_BACK_MOST {
            slow.another(start + n * TAKEN_BACK_TIME / 500);
            fast.another(start + n * TAKEN_BACK_TIME / 5_000);
            assert!(!slow.too_many());
        }
        assert!(fast.too_many());
    }
}
