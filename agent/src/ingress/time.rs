//! The ingress's clock: milliseconds that never go back.

use std::time::Duration;

use bellows_agent_core::Instant;

/// Since the ingress began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(std::time::Instant);

impl Time {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn until(&self, at: Instant) -> Duration {
        Duration::from_millis(at.0.saturating_sub(self.now().0))
    }
}
