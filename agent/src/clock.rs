//! The agent's clock: Unix milliseconds at its start, counted on by a clock that never goes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bellows_agent_core::units;

/// Reads the time; copies agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    unix: Duration,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> units::Instant {
        instant(self.unix + self.started.elapsed())
    }

    /// How long until then; zero when it is past.
    pub(crate) fn until(&self, at: units::Instant) -> Duration {
        Duration::from_millis((at - self.now()).0)
    }
}

/// A time of the file system, as the core counts.
pub(crate) fn of_file(at: SystemTime) -> units::Instant {
    instant(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn instant(unix: Duration) -> units::Instant {
    units::Instant(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
}
