//! Health checks: when the next one is due, and what their outcomes mean. As users of Kubernetes know them: so many outcomes in a row count.
//!
//! ```text
//!   running ──startup──▶ started ──┬─ liveness, again and again: its failure ends the attempt, the next begins in place
//!              │                   └─ readiness, again and again: into ready, and out of it
//!              └─ its failure ends the attempt as well
//! ```

use serde::{Deserialize, Serialize};

use crate::units::{Instant, Millis};

/// What an attempt is asked, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Has it started? The others wait for it.
    pub startup: Option<Check>,
    /// Is there hope for it?
    pub liveness: Option<Check>,
    /// Does it answer? Without this check, listening tells.
    pub readiness: Option<Check>,
}

/// When and how often; the shell knows how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// In words, for reasons: `GET /healthz on port 8080`.
    pub what: String,
    /// From the attempt's start to the first one.
    pub initial_delay: Millis,
    /// From one to the next.
    pub period: Millis,
    /// So many in a row are a success.
    pub successes: u32,
    /// So many in a row are a failure.
    pub failures: u32,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Probe {
    /// `startup`.
    Startup,
    /// `liveness`.
    Liveness,
    /// `readiness`.
    Readiness,
}

impl Probe {
    const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As app files call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

impl Health {
    /// The check of this kind, if there is one.
    pub fn check(&self, probe: Probe) -> Option<&Check> {
        match probe {
            Probe::Startup => self.startup.as_ref(),
            Probe::Liveness => self.liveness.as_ref(),
            Probe::Readiness => self.readiness.as_ref(),
        }
    }
}

/// How one check stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Series {
    /// When it is asked next; nothing while it is being asked, and before its time.
    due: Option<Instant>,
    /// When it was asked last.
    asked: Instant,
    successes: u32,
    failures: u32,
    passed: bool,
}

/// How the checks of one attempt stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    startup: Series,
    liveness: Series,
    readiness: Series,
}

/// What one more outcome means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What it meant before.
    Same,
    /// The check passes from now on.
    Passed,
    /// Readiness only: it does not pass any more, or not yet; why, in words.
    Unready(String),
    /// There is no hope for this attempt: why, in words.
    Hopeless(String),
}

impl Probes {
    /// Of an attempt that began at `since`.
    pub(crate) fn begin(health: &Health, since: Instant) -> Self {
        let mut probes = Self::default();
        match &health.startup {
            Some(check) => probes.startup.due = Some(since + check.initial_delay),
            None => probes.begin_others(health, since, since),
        }
        probes
    }

    fn begin_others(&mut self, health: &Health, since: Instant, now: Instant) {
        let due = |check: &Check| (since + check.initial_delay).max(now);
        self.liveness.due = health.liveness.as_ref().map(due);
        self.readiness.due = health.readiness.as_ref().map(due);
    }

    fn series(&mut self, probe: Probe) -> &mut Series {
        match probe {
            Probe::Startup => &mut self.startup,
            Probe::Liveness => &mut self.liveness,
            Probe::Readiness => &mut self.readiness,
        }
    }

    /// The earliest moment at which one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        [&self.startup, &self.liveness, &self.readiness].into_iter().filter_map(|series| series.due).min()
    }

    /// Those that are due: they are asked now.
    pub(crate) fn ask(&mut self, now: Instant) -> Vec<Probe> {
        let mut asked = Vec::new();
        for probe in Probe::ALL {
            let series = self.series(probe);
            if series.due.is_some_and(|due| due <= now) {
                (series.due, series.asked) = (None, now);
                asked.push(probe);
            }
        }
        asked
    }

    /// Nothing is asked any more.
    pub(crate) fn end(&mut self) {
        for probe in Probe::ALL {
            self.series(probe).due = None;
        }
    }

    /// Has it started, as far as the checks tell?
    pub(crate) fn started(&self, health: &Health) -> bool {
        health.startup.is_none() || self.startup.passed
    }

    /// Does it answer, as far as the checks tell; nothing without a readiness check.
    pub(crate) fn ready(&self, health: &Health) -> Option<bool> {
        health.readiness.as_ref().map(|_| self.readiness.passed)
    }

    /// Takes an outcome in.
    pub(crate) fn take(
        &mut self,
        health: &Health,
        since: Instant,
        now: Instant,
        probe: Probe,
        outcome: Result<(), String>,
    ) -> Verdict {
        let Some(check) = health.check(probe) else { return Verdict::Same };
        let series = self.series(probe);
        series.due = Some((series.asked + check.period).max(now));
        match outcome {
            Ok(()) => {
                (series.successes, series.failures) = (series.successes.saturating_add(1), 0);
                if series.passed || series.successes < check.successes.max(1) {
                    return Verdict::Same;
                }
                series.passed = true;
                if probe == Probe::Startup {
                    series.due = None;
                    self.begin_others(health, since, now);
                }
                Verdict::Passed
            }
            Err(why) => {
                (series.successes, series.failures) = (0, series.failures.saturating_add(1));
                if series.failures < check.failures.max(1) {
                    return Verdict::Same;
                }
                let times = if series.failures == 1 {
                    "once".to_owned()
                } else {
                    format!("{} times in a row", series.failures)
                };
                let text = format!("its {} check ({}) failed {times}: {why}", probe.name(), check.what);
                match probe {
                    Probe::Startup | Probe::Liveness => Verdict::Hopeless(text),
                    Probe::Readiness => {
                        series.passed = false;
                        Verdict::Unready(text)
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(successes: u32, failures: u32) -> Option<Check> {
        let what = "GET /".to_owned();
        Some(Check { what, initial_delay: Millis(500), period: Millis(1_000), successes, failures })
    }

    fn failed() -> Result<(), String> {
        Err("status 500".to_owned())
    }

    #[test]
    fn the_others_wait_for_the_start() {
        let health = Health { startup: check(1, 3), liveness: check(1, 1), readiness: check(2, 1) };
        let mut probes = Probes::begin(&health, Instant(100));
        assert_eq!(probes.next(), Some(Instant(600)));
        assert_eq!(probes.ask(Instant(599)), []);
        assert_eq!(probes.ask(Instant(600)), [Probe::Startup]);
        assert_eq!(probes.next(), None, "one at a time");
        assert_eq!(probes.take(&health, Instant(100), Instant(700), Probe::Startup, failed()), Verdict::Same);
        assert_eq!(probes.next(), Some(Instant(1_600)), "a period after it was asked");
        probes.ask(Instant(1_600));
        assert!(!probes.started(&health));
        assert_eq!(probes.take(&health, Instant(100), Instant(1_650), Probe::Startup, Ok(())), Verdict::Passed);
        assert!(probes.started(&health));
        assert_eq!(probes.ask(Instant(1_650)), [Probe::Liveness, Probe::Readiness]);
    }

    #[test]
    fn so_many_in_a_row_count() {
        let health = Health { readiness: check(2, 2), ..Health::default() };
        let mut probes = Probes::begin(&health, Instant(0));
        let mut take = |outcome| probes.take(&health, Instant(0), Instant(9), Probe::Readiness, outcome);
        assert_eq!([take(Ok(())), take(failed()), take(Ok(()))], [Verdict::Same, Verdict::Same, Verdict::Same]);
        assert_eq!(take(Ok(())), Verdict::Passed);
        assert_eq!([take(failed()), take(Ok(())), take(failed())], [Verdict::Same, Verdict::Same, Verdict::Same]);
        let text = "its readiness check (GET /) failed 2 times in a row: status 500".to_owned();
        assert_eq!(take(failed()), Verdict::Unready(text));
        assert_eq!(probes.ready(&health), Some(false));
    }

    #[test]
    fn a_late_answer_does_not_make_up_for_the_time() {
        let health = Health { liveness: check(1, 3), ..Health::default() };
        let mut probes = Probes::begin(&health, Instant(0));
        probes.ask(Instant(500));
        probes.take(&health, Instant(0), Instant(9_000), Probe::Liveness, failed());
        assert_eq!(probes.next(), Some(Instant(9_000)));
    }
}
