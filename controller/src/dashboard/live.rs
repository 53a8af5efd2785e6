//! `/live`: server-sent events. `state` holds a snapshot, `events` the events since the last message.
//!
//! One task makes the snapshots for all readers, on change only, at most four a second, and only while somebody reads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Shared;
use super::shapes::{self, Snapshot};
use crate::driver::{Handle, Question};

/// Four a second: a person sees no more.
const PAUSE: Duration = Duration::from_millis(250);

/// Open pages. Each costs a copy of the snapshot; more than this is no person.
const MOST_READERS: usize = 64;

/// Events that a new page is shown.
const RECENT_EVENTS: usize = 200;

/// Messages that may wait for one slow page.
const WAITING: usize = 4;

/// The latest snapshot, for all readers.
#[derive(Clone)]
pub(super) struct Feed {
    snapshots: Arc<watch::Sender<Arc<str>>>,
    /// A reader came.
    poke: mpsc::Sender<()>,
}

impl Feed {
    /// Starts the task that makes snapshots; it ends with the driver or with the last clone of the feed.
    pub(super) fn start(driver: Handle) -> Self {
        let snapshots = Arc::new(watch::Sender::new(Arc::from("")));
        let (poke, poked) = mpsc::channel(1);
        let publish = snapshots.clone();
        tokio::spawn(async move {
            if let Err(status) = publish_all(&driver, &publish, poked).await {
                tracing::debug!(status = status.message(), "live updates ended");
            }
        });
        Self { snapshots, poke }
    }
}

async fn publish_all(
    driver: &Handle,
    publish: &watch::Sender<Arc<str>>,
    mut poked: mpsc::Receiver<()>,
) -> Result<(), Status> {
    let mut changes = driver.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            poked = poked.recv() => if poked.is_none() { return Ok(()) },
        }
        if publish.receiver_count() > 0 {
            let overview = driver.ask(Question::Overview).await?;
            let text = serde_json::to_string(&Snapshot::new(overview)).expect("texts and numbers are always JSON");
            publish.send_replace(Arc::from(text));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub(super) async fn live(State(shared): State<Shared>) -> Response {
    if shared.live.snapshots.receiver_count() >= MOST_READERS {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open; close some\n").into_response();
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    let reader = Reader {
        snapshots: shared.live.snapshots.subscribe(),
        driver: shared.driver,
        sender,
        shown: Arc::from(""),
        after: None,
    };
    // Full means that a poke is on its way already; closed, that the driver has ended, which the reader will see.
    let _ = shared.live.poke.try_send(());
    tokio::spawn(reader.run());
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response()
}

/// One open page.
struct Reader {
    snapshots: watch::Receiver<Arc<str>>,
    driver: Handle,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    /// The snapshot that the page has.
    shown: Arc<str>,
    /// The last event that the page has.
    after: Option<u64>,
}

impl Reader {
    async fn run(mut self) {
        let driver = self.driver.clone();
        // Whatever ends it (page closed, driver ended) ends the stream, and the page connects again by itself.
        tokio::select! {
            () = driver.ended() => {}
            () = async { while self.update().await.is_some() {} } => {}
        }
    }

    async fn update(&mut self) -> Option<()> {
        tokio::select! {
            () = self.sender.closed() => return None,
            changed = self.snapshots.changed() => changed.ok()?,
        }
        let snapshot = self.snapshots.borrow_and_update().clone();
        if snapshot != self.shown {
            self.send("state", &snapshot).await?;
            self.shown = snapshot;
        }
        let events = self.new_events().await?;
        if !events.is_empty() {
            let text = serde_json::to_string(&events).expect("texts and numbers are always JSON");
            self.send("events", &text).await?;
        }
        Some(())
    }

    async fn new_events(&mut self) -> Option<Vec<shapes::Event>> {
        let (after, app) = (self.after.unwrap_or(0), String::new());
        let mut events = self.driver.ask(|answer| Question::Events { after, app, answer }).await.ok()?;
        if self.after.is_none() {
            events.drain(..events.len().saturating_sub(RECENT_EVENTS));
        }
        self.after = Some(events.last().map_or(after, |last| last.sequence));
        Some(events.into_iter().map(shapes::Event::new).collect())
    }

    async fn send(&self, kind: &str, text: &str) -> Option<()> {
        self.sender.send(Ok(Event::default().event(kind).data(text))).await.ok()
    }
}
