//! Waiting before another try: doubling, bounded, and drawn at random so that a thousand agents do not come back at once.

use std::time::Duration;

/// 100 ms, doubling to 5 s; each wait between half and all of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);

impl BackOff {
    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(10)).min(MOST);
        self.failures += 1;
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds_and_begin_anew() {
        let mut back_off = BackOff::default();
        for most in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let wait = back_off.next().as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} ms, at most {most}");
        }
        back_off.reset();
        assert!(back_off.next() <= FIRST);
    }
}
