//! The thread that writes raft's log. It blocks on the disk so that the driver never does.

use std::io;
use std::sync::mpsc as blocking;
use std::thread;

use bellows_member::{LogStorage, Persist};
use tokio::sync::mpsc;

/// Batches that wait for the disk. With more, the driver asks the member for no further ones until one is written:
/// at 0.15 ms a batch this is 10 ms of work.
const BATCHES_WAITING: usize = 64;

/// The driver's end of the thread. Dropped, it lets the thread finish what it was given, and end.
pub(crate) struct Writer {
    batches: blocking::SyncSender<Persist>,
    written: mpsc::Receiver<Result<u64, String>>,
    /// Given and not yet reported: never more than `BATCHES_WAITING`, so neither channel is ever full.
    waiting: usize,
    /// Open as long as the thread has the storage.
    gone: mpsc::Receiver<()>,
}

impl Writer {
    /// Takes the storage over, and keeps `guard` (the folder's lock) as long as it has it.
    pub(crate) fn start<S, G>(storage: S, guard: G) -> io::Result<Self>
    where
        S: LogStorage + Send + 'static,
        G: Send + 'static,
    {
        let (batches, given) = blocking::sync_channel(BATCHES_WAITING);
        let (report, written) = mpsc::channel(BATCHES_WAITING);
        let (alive, gone) = mpsc::channel(1);
        thread::Builder::new().name("raft-log".to_owned()).spawn(move || {
            // Dropped in the reverse order: the storage first, then the lock, and at last the sign of life.
            let _alive = alive;
            let _guard = guard;
            write_all(storage, &given, &report);
        })?;
        Ok(Self { batches, written, waiting: 0, gone })
    }

    /// Whether one more batch may be given.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < BATCHES_WAITING
    }

    /// To be written, in order. Only when there is room; that the thread has ended shows in `written`.
    pub(super) fn write(&mut self, batch: Persist) {
        self.waiting += 1;
        let _ = self.batches.try_send(batch);
    }

    /// The number of a batch that is on disk, or why the thread ended.
    pub(super) async fn written(&mut self) -> Result<u64, String> {
        let panicked = || Err("the thread that writes it panicked; the log above says why".to_owned());
        let written = self.written.recv().await.unwrap_or_else(panicked);
        self.waiting = self.waiting.saturating_sub(1);
        written
    }

    /// More of them, without waiting.
    pub(super) fn more_written(&mut self) -> Option<Result<u64, String>> {
        let written = self.written.try_recv().ok()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some(written)
    }

    /// Lets the thread finish and returns when it has let go of the storage.
    pub(super) async fn finish(self) {
        let Self { batches, written: _written, mut gone, .. } = self;
        drop(batches);
        let _ = gone.recv().await;
    }
}

fn write_all<S: LogStorage>(
    mut storage: S,
    given: &blocking::Receiver<Persist>,
    report: &mpsc::Sender<Result<u64, String>>,
) {
    while let Ok(batch) = given.recv() {
        let written = storage.persist(&batch).map(|()| batch.number).map_err(|error| chain(&error));
        let failed = written.is_err();
        // The driver may have ended: then the rest is still written, and nobody told.
        let _ = report.blocking_send(written);
        if failed {
            return;
        }
    }
}

/// An error with its causes, in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
