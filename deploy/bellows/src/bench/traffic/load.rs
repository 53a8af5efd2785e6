//! Traffic of all kinds at once, counted: short and long requests, streams, WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ask::{Asker, converse};
use crate::failure::Failure;

/// What is asked for in one way.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// How many ask at once.
    pub askers: usize,
    pub path: &'static str,
    /// Bytes of a whole answer; any when none are named.
    pub bytes: Option<usize>,
    /// Of a WebSocket: messages of one conversation. No WebSocket: none.
    pub messages: u32,
    /// Between an answer and the next request.
    pub pause: Duration,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub served: AtomicU64,
    pub failed: AtomicU64,
    /// The first of them, for people.
    pub why: std::sync::Mutex<Vec<String>>,
}

/// Traffic that runs until it is ended.
pub struct Load {
    stop: watch::Sender<bool>,
    askers: Vec<JoinHandle<()>>,
    tallies: Vec<(&'static str, Arc<Tally>)>,
}

/// Between two messages of a WebSocket.
const PAUSE: Duration = Duration::from_millis(100);

/// So many failures are told in words.
const TOLD: usize = 5;

impl Load {
    /// Everybody begins, at every door in turn.
    pub fn begin(kinds: &[Kind], doors: &[SocketAddr], host: &'static str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (mut askers, mut tallies) = (Vec::new(), Vec::new());
        for kind in kinds {
            let tally = Arc::<Tally>::default();
            tallies.push((kind.name, tally.clone()));
            for number in 0..kind.askers {
                let door = doors[number % doors.len()];
                let (kind, tally, stopped) = (*kind, tally.clone(), stopped.clone());
                askers.push(tokio::spawn(ask_on(kind, door, host, tally, stopped)));
            }
        }
        Self { stop, askers, tallies }
    }

    /// Everybody finishes what is under way: what was served, what failed, and why, of each kind.
    pub async fn end(self) -> Result<Vec<(&'static str, u64, u64)>, Failure> {
        self.stop.send_replace(true);
        for asker in self.askers {
            asker.await.map_err(|error| Failure::from_error(&error))?;
        }
        let counted = self.tallies.iter().map(|(name, tally)| {
            let why = tally.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            why.iter().for_each(|why| eprintln!("note: {name}: {why}"));
            (*name, tally.served.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed))
        });
        Ok(counted.collect())
    }
}

async fn ask_on(kind: Kind, door: SocketAddr, host: &'static str, tally: Arc<Tally>, stopped: watch::Receiver<bool>) {
    let mut asker = Asker::new(door, host);
    while !*stopped.borrow() {
        let got = match kind.messages {
            0 => asker.get(kind.path).await,
            messages => converse(door, host, kind.path, messages, PAUSE).await,
        };
        let whole = got.and_then(|count| match kind.bytes {
            Some(bytes) if count != bytes => Err(format!("{count} bytes instead of {bytes}")),
            _ => Ok(()),
        });
        match whole {
            Ok(()) => tally.served.fetch_add(1, Ordering::Relaxed),
            Err(why) => {
                let mut told = tally.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if told.len() < TOLD {
                    told.push(why);
                }
                tally.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        if !kind.pause.is_zero() {
            tokio::time::sleep(kind.pause).await;
        }
    }
}
