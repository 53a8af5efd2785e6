//! Readiness: is the port listened on? LISTEN makes no event that can be waited for, so one thread looks: every millisecond while an app starts, because
//! looking costs about a microsecond and the first request waits for it, and once a second afterwards.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellows_agent_core::{Input, ReplicaId};
use bellows_runtime::ContainerId;
use tokio::sync::mpsc;

use crate::containers::{Containers, container};
use crate::news::News;

/// While it starts; after a while less often, so that an app that never listens costs nothing.
const TIGHT: Duration = Duration::from_millis(1);
const TIGHT_FOR: Duration = Duration::from_secs(5);
const PATIENT: Duration = Duration::from_millis(20);
/// Once it listens.
const SETTLED: Duration = Duration::from_secs(1);

/// One port that decides readiness.
struct Watched {
    replica: ReplicaId,
    attempt: u32,
    id: ContainerId,
    port: u16,
    since: Instant,
    due: Instant,
    listening: bool,
}

/// Ports that are looked at.
#[derive(Default)]
pub(crate) struct Watcher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    added: Vec<Watched>,
    closed: bool,
}

impl Watcher {
    pub(crate) fn add(&self, replica: ReplicaId, attempt: u32, port: u16) {
        let now = Instant::now();
        let id = container(replica, attempt);
        let watched = Watched { replica, attempt, id, port, since: now, due: now, listening: false };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).added.push(watched);
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_one();
    }

    /// Waits for the next look or something new; tells what is new, or that it is over.
    fn wait(&self, until: Option<Instant>) -> Option<Vec<Watched>> {
        let nothing = |state: &mut State| state.added.is_empty() && !state.closed;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = match until {
            None => self.changed.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let length = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout_while(state, length, nothing).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        (!state.closed).then(|| std::mem::take(&mut state.added))
    }
}

/// Starts the thread that looks.
pub(crate) fn start(
    watcher: Arc<Watcher>,
    containers: Arc<dyn Containers>,
    news: mpsc::Sender<News>,
) -> std::io::Result<JoinHandle<()>> {
    let look = move || {
        let mut watched: Vec<Watched> = Vec::new();
        while let Some(added) = watcher.wait(watched.iter().map(|one| one.due).min()) {
            watched.extend(added);
            let now = Instant::now();
            watched.retain_mut(|one| one.due > now || one.look(&*containers, &news));
        }
    };
    std::thread::Builder::new().name("readiness".to_owned()).spawn(look)
}

impl Watched {
    /// Looks once; is it still worth looking?
    fn look(&mut self, containers: &dyn Containers, news: &mpsc::Sender<News>) -> bool {
        let Ok(listening) = containers.listening(&self.id, self.port) else {
            return false; // it is gone; its end is told elsewhere
        };
        let now = Instant::now();
        if listening != self.listening {
            (self.listening, self.since) = (listening, now);
            let input = Input::Listening { replica: self.replica, attempt: self.attempt, listening };
            if news.blocking_send(News::Core(input)).is_err() {
                return false;
            }
        }
        self.due = now + self.pace(now);
        true
    }

    fn pace(&self, now: Instant) -> Duration {
        match (self.listening, now - self.since < TIGHT_FOR) {
            (true, _) => SETTLED,
            (false, true) => TIGHT,
            (false, false) => PATIENT,
        }
    }
}
