//! The latest attempt of each replica that has a log, and whether there will be another: what `bellows logs` goes by.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bellows_agent_core::ReplicaId;
use tokio::sync::watch;

/// One attempt, as far as its log is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    /// Its process may still write.
    pub(crate) running: bool,
    /// The replica has ended: there is no next attempt.
    pub(crate) over: bool,
}

/// All of them; who follows a log waits for changes.
pub(crate) struct Attempts {
    table: Mutex<BTreeMap<ReplicaId, Attempt>>,
    changes: watch::Sender<()>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { table: Mutex::default(), changes: watch::channel(()).0 }
    }
}

impl Attempts {
    pub(crate) fn find(&self, replica: ReplicaId) -> Option<Attempt> {
        self.lock().get(&replica).copied()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn begun(&self, replica: ReplicaId, number: u32) {
        self.lock().insert(replica, Attempt { number, running: true, over: false });
        self.changes.send_replace(());
    }

    /// Found after a restart of the agent, in any order.
    pub(crate) fn found(&self, replica: ReplicaId, found: Attempt) {
        let mut table = self.lock();
        let latest = table.entry(replica).or_insert(found);
        if found.number >= latest.number {
            *latest = found;
        }
    }

    /// Its process has ended and everything that it wrote is in its log.
    pub(crate) fn ended(&self, replica: ReplicaId, number: u32) {
        self.change(replica, |latest| latest.running &= latest.number != number);
    }

    /// The replica has ended.
    pub(crate) fn over(&self, replica: ReplicaId) {
        self.change(replica, |latest| latest.over = true);
    }

    /// Its log is no longer kept.
    pub(crate) fn dropped(&self, replica: ReplicaId, number: u32) {
        let mut table = self.lock();
        if table.get(&replica).is_some_and(|latest| latest.number == number) {
            table.remove(&replica);
        }
        drop(table);
        self.changes.send_replace(());
    }

    fn change(&self, replica: ReplicaId, change: impl FnOnce(&mut Attempt)) {
        if let Some(latest) = self.lock().get_mut(&replica) {
            change(latest);
        }
        self.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Attempt>> {
        // Every change is one insertion, removal or assignment: a panic leaves the table whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
