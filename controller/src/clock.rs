//! The clock of the process: Unix milliseconds that never go back, whatever becomes of the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellows_core::time::Instant;

/// Reads the wall clock once and the monotonic clock from then on. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    anchor: std::time::Instant,
    anchor_unix: Duration,
}

impl Clock {
    /// Anchored at the present moment. A wall clock before 1970 counts as 1970.
    pub(crate) fn start() -> Self {
        let anchor_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor: std::time::Instant::now(), anchor_unix }
    }

    pub(crate) fn now(&self) -> Instant {
        let since_epoch = self.anchor_unix + self.anchor.elapsed();
        Instant(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
