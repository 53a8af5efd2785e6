//! Chaos: three members, fifty nodes, people who scale, and everything that can go wrong between them.
//!
//! ```text
//!  people --requests--> [host: Member + Core + disk] <--letters--> the other hosts
//!                            ^  |
//!             reports, hello |  | greeting, orders          weather: cuts, crashes, pauses, storms of
//!                            |  v                           late, lost and doubled messages
//!                        [site: AgentCore + journal + machine]
//!                                                  | truth: which processes exist
//!                                                  v
//!                                  laws (see `laws.rs`), after every event
//! ```
//!
//! Reading order: `world` (the queue and the loop), `host`, `site`, `machine` (what a kernel would do), `wire` (what the
//! network does), `people`, `weather` (what goes wrong, when), `laws` (what must hold all the same).
//!
//! Deliberately absent: bytes. Commands and snapshots lie in an arena and travel through raft as their index.

mod convert;
mod diary;
mod event;
mod host;
mod laws;
mod machine;
mod people;
mod report;
mod site;
mod tally;
mod weather;
mod wire;
mod world;

pub use laws::{LAWS, Violation};
pub use report::{Failure, Report, SeedReport};

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How big, how long, and with which bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Servers with an agent.
    pub nodes: u32,
    /// Virtual time during which things go wrong.
    pub trouble_seconds: u64,
    /// Virtual time after it, within which everything must be as declared.
    pub calm_seconds: u64,
    /// A bug on purpose.
    pub planted: Planted,
    /// Seeds run side by side; the result is the same for any number.
    pub threads: usize,
    /// Keep every line of the event log of each seed, not only its hash.
    pub keep_diary: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 50,
            trouble_seconds: 300,
            calm_seconds: 120,
            planted: Planted::None,
            threads: 2,
            keep_diary: false,
        }
    }
}

/// A bug on purpose: the laboratory proves that its laws find each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Planted {
    /// Behave.
    #[default]
    None,
    /// Agents obey orders of any fence and session.
    SkipFenceCheck,
    /// Agents stop what a new session's first orders do not mention.
    StopOnAbsence,
    /// Agents believe a fence without journaling it.
    LosePersistedFence,
    /// The leader does not set aside what it ordered until a heartbeat tells of it.
    DropReservation,
    /// The leader retires the newest copy, whatever the others do.
    RetireNewest,
}

impl Planted {
    /// Every bug.
    pub const ALL: [Self; 5] = [
        Self::SkipFenceCheck,
        Self::StopOnAbsence,
        Self::LosePersistedFence,
        Self::DropReservation,
        Self::RetireNewest,
    ];
}

/// Runs every seed of the range.
pub fn run(seeds: Range<u64>, options: &Options) -> Report {
    let next = AtomicU64::new(seeds.start);
    let mut reports: Vec<SeedReport> = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..options.threads.max(1)).map(|_| scope.spawn(|| work(&next, seeds.end, options))).collect();
        let finished = |worker: thread::ScopedJoinHandle<'_, Vec<SeedReport>>| match worker.join() {
            Ok(reports) => reports,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(finished).collect()
    });
    reports.sort_by_key(|report| report.seed);
    Report::of(options, reports)
}

fn work(next: &AtomicU64, end: u64, options: &Options) -> Vec<SeedReport> {
    let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
    seeds.take_while(|seed| *seed < end).map(|seed| run_seed(seed, options)).collect()
}

/// Runs one seed.
pub fn run_seed(seed: u64, options: &Options) -> SeedReport {
    world::World::new(seed, options).run()
}
