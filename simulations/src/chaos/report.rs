//! What a run tells.

use super::tally::Tally;
use super::{Options, Planted};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One seed's result.
#[derive(Clone, Debug, Serialize)]
pub struct SeedReport {
    /// Which.
    pub seed: u64,
    /// Events that were carried out.
    pub events: u64,
    /// How long it took in virtual time.
    pub virtual_ms: u64,
    /// Of the event log: the same seed and program give the same one.
    pub log_hash: u64,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// How often each fault fired and each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The event log, when it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diary: Vec<String>,
}

/// A law was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// When, in virtual time.
    pub at_ms: u64,
    /// Number of the law in [`super::LAWS`].
    pub law: u32,
    /// The law.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
}

/// All seeds' results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many ran.
    pub seeds: u64,
    /// The bug that was planted.
    pub planted: Planted,
    /// Servers per seed.
    pub nodes: u32,
    /// Events of all seeds.
    pub events: u64,
    /// Fewest events of a seed that came to its end.
    pub events_least: u64,
    /// Virtual time of all seeds.
    pub virtual_ms: u64,
    /// Of all seeds' logs, in order of the seeds.
    pub log_hash: u64,
    /// One per failing seed.
    pub failures: Vec<Failure>,
    /// Sums over all seeds.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn of(options: &Options, reports: Vec<SeedReport>) -> Self {
        let mut tally = Tally::default();
        let mut log_hash = 0u64;
        for report in &reports {
            tally.add(&Tally(report.counts.clone()));
            log_hash = log_hash.rotate_left(5) ^ report.log_hash;
        }
        let whole = reports.iter().filter(|report| report.failure.is_none());
        Self {
            seeds: reports.len() as u64,
            planted: options.planted,
            nodes: options.nodes,
            events: reports.iter().map(|report| report.events).sum(),
            events_least: whole.map(|report| report.events).min().unwrap_or(0),
            virtual_ms: reports.iter().map(|report| report.virtual_ms).sum(),
            log_hash,
            failures: reports.into_iter().filter_map(|report| report.failure).collect(),
            counts: tally.0,
        }
    }

    /// Did every seed hold?
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seeds, nodes, events) = (self.seeds, self.nodes, self.events);
        let hours = self.virtual_ms / 3_600_000;
        let minutes = self.virtual_ms / 60_000 % 60;
        writeln!(f, "{seeds} seeds, {nodes} nodes each, {events} events in {hours} h {minutes} min of virtual time")?;
        writeln!(f, "event log hash {:016x}", self.log_hash)?;
        writeln!(f)?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12}  {what}")?;
        }
        writeln!(f)?;
        if self.failures.is_empty() {
            return writeln!(f, "every law held in every seed");
        }
        writeln!(f, "{} seeds failed", self.failures.len())?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_ms / 1_000, self.at_ms % 1_000);
        write!(f, "seed {} at {seconds}.{millis:03} s: law {} ({}): {}", self.seed, self.law, self.rule, self.text)
    }
}
