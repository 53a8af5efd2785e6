//! What waits: first in, first out, bounded in number, bytes and time.

use std::collections::BTreeMap;
use std::fmt;

use crate::units::{Bytes, Instant, Millis};

/// Bounds of what waits in one ingress for one app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Requests.
    pub requests: u32,
    /// Of what has come of them.
    pub bytes: Bytes,
    /// For one request.
    pub time: Millis,
}

impl Default for Hold {
    /// A burst of a thousand, 16 MiB, and the patience of a person.
    fn default() -> Self {
        Self { requests: 1_000, bytes: Bytes(16 << 20), time: Millis(10_000) }
    }
}

/// A request's place in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a request is not served. Told to its sender with 503, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait as may.
    TooMany(u32),
    /// As much waits as may.
    TooMuch(Bytes),
    /// It has waited as long as may be.
    TooLong {
        /// How long.
        waited: Millis,
        /// Why no copy took it, in words.
        why: String,
    },
    /// The app is no more.
    Removed,
}

impl Refusal {
    /// Seconds after which it may go better: the queue is shorter soon, a copy that did not come in time takes longer.
    pub fn retry_after(&self) -> u32 {
        match self {
            Self::TooMany(_) | Self::TooMuch(_) => 1,
            Self::TooLong { .. } => 5,
            Self::Removed => 60,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(most) => write!(f, "{most} requests wait already, as many as this app allows"),
            Self::TooMuch(most) => write!(f, "the requests that wait fill {most}, as much as this app allows"),
            Self::TooLong { waited, why } => write!(f, "no copy could take it within {waited}: {why}"),
            Self::Removed => f.write_str("the app was removed"),
        }
    }
}

/// One that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    since: Instant,
    bytes: Bytes,
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    waiting: BTreeMap<Ticket, Waiting>,
    bytes: Bytes,
}

impl Queue {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.values().map(|one| one.since).min()
    }

    /// Takes its place in the order of arrival, or is refused. `since` is when it came, which may be before it was first sent somewhere.
    pub(super) fn join(&mut self, ticket: Ticket, since: Instant, bytes: Bytes, hold: &Hold) -> Result<(), Refusal> {
        if self.len() >= hold.requests {
            return Err(Refusal::TooMany(hold.requests));
        }
        if self.bytes + bytes > hold.bytes {
            return Err(Refusal::TooMuch(hold.bytes));
        }
        self.waiting.insert(ticket, Waiting { since, bytes });
        self.bytes += bytes;
        Ok(())
    }

    pub(super) fn first(&self) -> Option<Ticket> {
        self.waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    /// It waits no more. Did it?
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let left = self.waiting.remove(&ticket);
        self.bytes = self.bytes - left.map_or(Bytes(0), |one| one.bytes);
        left.is_some()
    }

    /// Those whose time is over, with how long they waited.
    pub(super) fn overdue(&self, now: Instant, hold: &Hold) -> Vec<(Ticket, Millis)> {
        let waited = self.waiting.iter().map(|(ticket, one)| (*ticket, now - one.since));
        waited.filter(|(_, waited)| *waited >= hold.time).collect()
    }

    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.waiting.keys().copied().collect()
    }
}
