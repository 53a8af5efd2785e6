//! What an agent's mind is told once, with the arithmetic of each bound.

use serde::{Deserialize, Serialize};

use crate::units::{CpuMilli, Millis, Resources};

/// What an agent's mind is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Declared resources of all replicas together may not exceed this; no bound when absent.
    pub capacity: Option<Resources>,
    /// Below this a replica's CPU use counts as idle. 20 milli: what a runtime's timers and garbage collectors take by themselves.
    pub idle_cpu: CpuMilli,
    /// CPU is judged over at least this long, so that the few milliseconds of a start do not look like work. 1 s x 20 milli = 20 ms of CPU.
    pub idle_window: Millis,
    /// Wait before the second attempt; doubles with every crash in a row.
    pub back_off_first: Millis,
    /// The longest wait between attempts.
    pub back_off_most: Millis,
    /// After this many crashes in a row the replica ends. 200 + 400 + 800 + 1,600 ms: five attempts take 3 s and their own running time.
    pub crashes_most: u32,
    /// An attempt that ran this long makes the crashes before it forgotten.
    pub stable_after: Millis,
    /// Ended replicas that are remembered after a leader took note of them, so that the next leader can explain them. 64 at some
    /// 500 bytes are 32 KiB of a hello; from 10,000 nodes 320 MB over the seconds of a change of leader, of which the leader keeps 100 per app.
    pub remembered_most: usize,
    /// Wait before an image is tried again that could not be had for a passing reason.
    pub pull_again: Millis,
    /// Bugs that tests plant to see whether they are found. None in production.
    pub planted: Planted,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: None,
            idle_cpu: CpuMilli(20),
            idle_window: Millis(1_000),
            back_off_first: Millis(200),
            back_off_most: Millis(30_000),
            crashes_most: 5,
            stable_after: Millis(60_000),
            remembered_most: 64,
            pull_again: Millis(2_000),
            planted: Planted::None,
        }
    }
}

impl Config {
    /// How long to wait after this many crashes in a row.
    pub fn back_off(&self, crashes: u32) -> Millis {
        let doublings = crashes.saturating_sub(1).min(20);
        Millis(self.back_off_first.0.saturating_mul(1 << doublings).min(self.back_off_most.0))
    }
}

/// A bug on purpose: the laboratory proves that its checker finds each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planted {
    /// Behave.
    #[default]
    None,
    /// Obey greetings and orders of any fence and session.
    SkipFenceCheck,
    /// Stop what a new session's first orders do not mention.
    StopOnAbsence,
    /// Believe a fence without journaling it.
    LosePersistedFence,
}
