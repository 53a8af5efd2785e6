//! Streams of answers that grow with time: each a small task that follows the driver's changes and ends with its reader.

use std::pin::Pin;

use bellows_proto::operator as wire;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::driver::{Handle, Question};

/// What a server-side stream is.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers that may wait for a slow reader; beyond it the task waits, and skips what changed meanwhile.
const WAITING: usize = 64;

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
    let mut last = None;
    while next_change(&mut changes, sender).await {
        let progress = match progress(driver, asked).await {
            // It was there: a removed app settles when the last of its copies is forgotten.
            Err(status) if status.code() == Code::NotFound && last.is_some() => {
                wire::AwaitProgress { settled: true, ..Default::default() }
            }
            progress => progress?,
        };
        if last.as_ref() != Some(&progress) {
            last = Some(progress.clone());
            let settled = progress.settled;
            if sender.send(Ok(progress)).await.is_err() || settled {
                return Ok(());
            }
        }
    }
    Ok(())
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
async fn next_change<T>(changes: &mut tokio::sync::watch::Receiver<u64>, sender: &mpsc::Sender<T>) -> bool {
    tokio::select! {
        () = sender.closed() => false,
        _ = changes.changed() => true,
    }
}
