//! Wishes to freeze and thaw that wait for their outcome: the core knows them by number.

use std::collections::BTreeMap;

use bellows_agent_core::{Input, ReplicaId};

use crate::news::FreezeAnswer;

/// Who waits.
#[derive(Default)]
pub(crate) struct Freezes {
    last: u64,
    waiting: BTreeMap<u64, FreezeAnswer>,
}

impl Freezes {
    /// A new wish.
    pub(crate) fn wish(&mut self, replica: ReplicaId, frozen: bool, force: bool, answer: FreezeAnswer) -> Input {
        self.last += 1;
        self.waiting.insert(self.last, answer);
        Input::Freeze { replica, frozen, force, ticket: self.last }
    }

    /// Whoever waits for this one.
    pub(crate) fn take(&mut self, ticket: u64) -> Option<FreezeAnswer> {
        self.waiting.remove(&ticket)
    }

    /// Tells why not; whoever wished may have gone.
    pub(crate) fn refuse(&mut self, ticket: u64, why: String) {
        drop(self.take(ticket).map(|answer| answer.send(Err(why))));
    }
}
