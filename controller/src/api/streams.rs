//! Streams of answers that grow with time: each a small task that follows the driver's changes and ends with its reader.

use std::pin::Pin;
use std::time::Duration;

use bellows_proto::operator as wire;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::driver::{Handle, Question};

/// What a server-side stream is.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers that may wait for a slow reader; beyond it the task waits, and skips what changed meanwhile.
const WAITING: usize = 64;

/// How often a waiter hears of progress at most; of the end it hears at once. A thousand copies become ready within two seconds.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// Progress until the app has settled. Ends with an error when the app is not there.
pub(super) fn await_settled(driver: Handle, asked: wire::AwaitRequest) -> Answers<wire::AwaitProgress> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(status) = follow_settled(&driver, &asked, &sender).await {
            // The reader may have gone; then nobody needs to know.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Progress = mpsc::Sender<Result<wire::AwaitProgress, Status>>;

async fn follow_settled(driver: &Handle, asked: &wire::AwaitRequest, sender: &Progress) -> Result<(), Status> {
    let mut changes = driver.changes();
    let mut told = Told::default();
    while told.next_look(&mut changes, sender).await {
        let progress = match progress(driver, asked).await {
            // It was there: a removed app settles when the last of its copies is forgotten.
            Err(status) if status.code() == Code::NotFound && told.last.is_some() => {
                wire::AwaitProgress { settled: true, ..Default::default() }
            }
            progress => progress?,
        };
        let settled = progress.settled;
        if told.is_due(&progress, Instant::now()) && (sender.send(Ok(progress)).await.is_err() || settled) {
            return Ok(());
        }
    }
    Ok(())
}

/// What a waiter has heard.
#[derive(Default)]
struct Told {
    last: Option<(wire::AwaitProgress, Instant)>,
    /// There is more to tell at this time, changes or not.
    due: Option<Instant>,
}

impl Told {
    /// As [`next_change`], and when something is due.
    async fn next_look(&self, changes: &mut watch::Receiver<u64>, sender: &Progress) -> bool {
        let change = next_change(changes, sender);
        match self.due {
            Some(due) => tokio::time::timeout_at(due, change).await.unwrap_or(true),
            None => change.await,
        }
    }

    /// Whether it is to be told now: that it has settled, and what is new since [`PROGRESS_EVERY`]. Then it counts as told.
    fn is_due(&mut self, progress: &wire::AwaitProgress, now: Instant) -> bool {
        let is_new = self.last.as_ref().is_none_or(|(last, _)| last != progress);
        let next = self.last.as_ref().map(|(_, at)| *at + PROGRESS_EVERY);
        let is_early = !progress.settled && next.is_some_and(|next| now < next);
        self.due = next.filter(|_| is_new && is_early);
        let is_due = is_new && !is_early;
        if is_due {
            self.last = Some((progress.clone(), now));
        }
        is_due
    }
}

async fn progress(driver: &Handle, asked: &wire::AwaitRequest) -> Result<wire::AwaitProgress, Status> {
    let (tenant, app, generation) = (asked.tenant.clone(), asked.app.clone(), asked.generation);
    driver.ask(|answer| Question::Settled { tenant, app, generation, answer }).await
}

/// Events after a sequence; with `follow`, also those to come.
pub(super) fn events(driver: Handle, asked: wire::EventsRequest) -> Answers<wire::Event> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(status) = follow_events(&driver, asked, &sender).await {
            // The reader may have gone; then nobody needs to know.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn follow_events(
    driver: &Handle,
    asked: wire::EventsRequest,
    sender: &mpsc::Sender<Result<wire::Event, Status>>,
) -> Result<(), Status> {
    let mut changes = driver.changes();
    let mut after = asked.after;
    while next_change(&mut changes, sender).await {
        let app = asked.app.clone();
        for event in driver.ask(|answer| Question::Events { after, app, answer }).await? {
            after = event.sequence;
            if sender.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
        if !asked.follow {
            return Ok(());
        }
    }
    Ok(())
}

/// False when the reader has gone. When the driver has gone, the next question says so.
async fn next_change<T>(changes: &mut watch::Receiver<u64>, sender: &mpsc::Sender<T>) -> bool {
    tokio::select! {
        () = sender.closed() => false,
        _ = changes.changed() => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(ready: u32) -> wire::AwaitProgress {
        wire::AwaitProgress { wanted: 9, ready, ..Default::default() }
    }

    #[tokio::test]
    async fn the_first_and_the_end_are_told_at_once_and_the_rest_now_and_then() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert!(told.is_due(&ready(0), now), "the first");
        assert!(!told.is_due(&ready(0), now) && told.due.is_none(), "nothing new");
        assert!(!told.is_due(&ready(1), now), "so soon");
        let due = told.due.expect("a time");
        assert!(!told.is_due(&ready(0), now) && told.due.is_none(), "as it was told");
        assert!(!told.is_due(&ready(2), now) && told.due == Some(due));
        let (changed, mut changes) = watch::channel(0);
        let (sender, _receiver) = mpsc::channel(1);
        changes.mark_unchanged();
        assert!(told.next_look(&mut changes, &sender).await, "without a change");
        assert!(Instant::now() >= due && told.is_due(&ready(2), due));
        assert!(told.is_due(&wire::AwaitProgress { settled: true, ..ready(9) }, due), "the end");
        drop(changed);
    }
}
