//! Busy or idle: no request in flight, no connection, CPU below the threshold between two readings, no busy mark.

use crate::config::Config;
use crate::input::Counters;
use crate::report::Activity;
use crate::units::{CpuMilli, Instant, Millis, Resources};

/// What is known of one attempt's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// Readings of CPU time, oldest first; the first is the newest that is at least a window old.
    readings: Vec<(Instant, u64)>,
    latest: Counters,
    used: Resources,
    requests: u32,
    /// Why the counters say busy; `None` when they say idle.
    counted: Option<String>,
    idle_since: Instant,
}

impl Work {
    /// Of an attempt launched now: it has used no CPU yet.
    pub(crate) fn fresh(now: Instant) -> Self {
        Self {
            readings: vec![(now, 0)],
            latest: Counters::default(),
            used: Resources::default(),
            requests: 0,
            counted: None,
            idle_since: now,
        }
    }

    /// Of an attempt found running: nothing is known until it was read twice.
    pub(crate) fn unknown(now: Instant) -> Self {
        let counted = Some("its use was not measured yet since the agent started".to_owned());
        Self { readings: Vec::new(), counted, ..Self::fresh(now) }
    }

    /// Takes in new counters. Did busy and idle change places?
    pub(crate) fn read(&mut self, now: Instant, counters: Counters, config: &Config) -> bool {
        let before = self.busy().is_some();
        let base = self.base(now, config.idle_window);
        self.readings.push((now, counters.cpu_us));
        self.latest = counters;
        self.counted = self.judge(now, base, config);
        self.flipped(before, now)
    }

    /// Takes in the ingress's count. Did busy and idle change places?
    pub(crate) fn count_requests(&mut self, now: Instant, requests: u32) -> bool {
        let before = self.busy().is_some();
        self.requests = requests;
        self.flipped(before, now)
    }

    /// Requests in it, as the ingress counts them.
    pub(crate) fn in_flight(&self) -> u32 {
        self.requests
    }

    /// Why it is busy, in words; `None` when it is idle.
    pub(crate) fn busy(&self) -> Option<String> {
        match self.requests {
            0 => self.counted.clone(),
            requests => Some(format!("{requests} requests are in flight")),
        }
    }

    pub(crate) fn activity(&self, now: Instant) -> Activity {
        match (self.requests, &self.counted) {
            (0, None) => Activity::Idle { length: now - self.idle_since },
            (requests, _) => Activity::Busy { requests },
        }
    }

    pub(crate) fn used(&self) -> Resources {
        self.used
    }

    pub(crate) fn latest(&self) -> &Counters {
        &self.latest
    }

    fn flipped(&mut self, before: bool, now: Instant) -> bool {
        let after = self.busy().is_some();
        if before && !after {
            self.idle_since = now;
        }
        before != after
    }

    /// The newest reading that is at least a window old, else the oldest there is. Older ones are dropped.
    fn base(&mut self, now: Instant, window: Millis) -> Option<(Instant, u64)> {
        let old_enough = self.readings.iter().rposition(|(at, _)| now - *at >= window).unwrap_or(0);
        self.readings.drain(..old_enough);
        self.readings.first().copied()
    }

    fn judge(&mut self, now: Instant, base: Option<(Instant, u64)>, config: &Config) -> Option<String> {
        self.used.memory = self.latest.memory;
        if self.latest.busy_mark {
            return Some("the app holds its busy mark".to_owned());
        }
        if self.latest.connections > 0 {
            self.measure(now, base);
            return Some(format!("{} TCP connections are open", self.latest.connections));
        }
        let Some((elapsed, spent_us)) = self.measure(now, base) else {
            return Some("its CPU use was read only once since the agent started".to_owned());
        };
        // milli x ms = us: one CPU spends 1,000 us in 1 ms. Short spans are judged as a whole window.
        let allowed_us = config.idle_cpu.0.saturating_mul(elapsed.max(config.idle_window).0);
        (spent_us > allowed_us).then(|| {
            format!(
                "it used {} us of CPU in {elapsed}; idle is below {} of a CPU over {}",
                spent_us, config.idle_cpu, config.idle_window
            )
        })
    }

    fn measure(&mut self, now: Instant, base: Option<(Instant, u64)>) -> Option<(Millis, u64)> {
        let (at, cpu_us) = base?;
        let (elapsed, spent_us) = (now - at, self.latest.cpu_us.saturating_sub(cpu_us));
        self.used.cpu = CpuMilli(spent_us / elapsed.0.max(1));
        Some((elapsed, spent_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu_us: u64) -> Counters {
        Counters { cpu_us, ..Counters::default() }
    }

    #[test]
    fn the_cost_of_a_start_is_not_work() {
        let mut work = Work::fresh(Instant(0));
        assert!(!work.read(Instant(10), cpu(15_000), &Config::default()));
        assert_eq!(work.busy(), None);
    }

    #[test]
    fn burning_is_seen_over_a_window_even_between_close_readings() {
        let config = Config::default();
        let mut work = Work::fresh(Instant(0));
        work.read(Instant(1_000), cpu(1_000), &config);
        assert!(work.read(Instant(2_000), cpu(501_000), &config));
        assert_eq!(work.used().cpu, CpuMilli(500));
        assert!(!work.read(Instant(2_005), cpu(501_000), &config), "the last second still counts");
        assert_eq!(work.activity(Instant(2_005)), Activity::Busy { requests: 0 });
        assert!(work.read(Instant(3_100), cpu(501_000), &config));
        assert_eq!(work.activity(Instant(3_600)), Activity::Idle { length: Millis(500) });
    }

    #[test]
    fn what_was_found_is_busy_until_read_twice() {
        let config = Config::default();
        let mut work = Work::unknown(Instant(0));
        assert!(work.busy().is_some());
        work.read(Instant(5), cpu(90_000_000), &config);
        assert!(work.busy().is_some());
        assert!(work.read(Instant(1_005), cpu(90_000_000), &config));
        assert_eq!(work.busy(), None);
    }

    #[test]
    fn requests_connections_and_the_mark_make_busy() {
        let config = Config::default();
        let mut work = Work::fresh(Instant(0));
        assert!(work.count_requests(Instant(1), 2));
        assert_eq!(work.activity(Instant(1)), Activity::Busy { requests: 2 });
        assert!(work.count_requests(Instant(2), 0));
        assert!(work.read(Instant(3), Counters { connections: 1, ..Counters::default() }, &config));
        assert!(work.read(Instant(4), Counters::default(), &config));
        assert!(work.read(Instant(5), Counters { busy_mark: true, ..Counters::default() }, &config));
    }
}
