//! The agent's clock: Unix milliseconds at its start, counted on by the time since the server's boot. Setting the server's clock
//! changes nothing, by hours neither forward nor back; and while the server sleeps, time goes by, because leaders count on that
//! (`when_cut_off: stop_after`).
//!
//! Between two starts of the agent the wall clock may be set too. So what is kept on disk to be compared later is kept as boot and
//! [`SinceBoot`], never as a date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellows_agent_core::units;
use nix::time::{ClockId, clock_gettime};

/// Reads the time; copies agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    unix: Duration,
    started: SinceBoot,
}

/// A moment of this boot of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SinceBoot(pub(crate) Duration);

impl SinceBoot {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel since 2.6.39 has this clock");
        Self(time.into())
    }
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix, started: SinceBoot::now() }
    }

    pub(crate) fn now(&self) -> units::Instant {
        self.at(SinceBoot::now())
    }

    /// A moment of this boot, as the core counts; also one before the agent's start.
    pub(crate) fn at(&self, moment: SinceBoot) -> units::Instant {
        let unix = (self.unix + moment.0).saturating_sub(self.started.0);
        units::Instant(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long until then; zero when it is past.
    pub(crate) fn until(&self, at: units::Instant) -> Duration {
        Duration::from_millis((at - self.now()).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wall clock is read once, at the start: what it says later, or said before, changes no length of time.
    #[test]
    fn lengths_do_not_depend_on_the_wall_clock() {
        let hours = |count: u64| Duration::from_secs(count * 3_600);
        let started = SinceBoot(hours(10));
        let right = Clock { unix: hours(400_000), started };
        for wrong in [hours(400_000 - 7), hours(400_000 + 7), Duration::ZERO] {
            let clock = Clock { unix: wrong, started };
            let length = |clock: Clock| clock.at(SinceBoot(hours(12))) - clock.at(SinceBoot(hours(11)));
            assert_eq!(length(clock), length(right));
            assert!(clock.at(SinceBoot(hours(11))) >= clock.at(started), "it never goes back");
        }
    }

    #[test]
    fn it_agrees_with_the_wall_clock_at_its_start() {
        let (before, clock) = (SystemTime::now(), Clock::start());
        let unix = before.duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
        let told = u128::from(clock.now().0);
        assert!((unix..unix + 60_000).contains(&told), "{told} is not just after {unix}");
    }
}
