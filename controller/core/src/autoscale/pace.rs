//! How fast a count may move: so many copies within any stretch of a length.

use std::collections::VecDeque;

use serde::Serialize;

use crate::model::spec::Rate;
use crate::time::Instant;

/// Steps taken lately in one direction, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pace(VecDeque<(Instant, u32)>);

impl Pace {
    /// How many copies may be stepped now; no bound without a rate.
    pub fn allowed(&mut self, now: Instant, rate: Option<Rate>) -> u32 {
        let Some(Rate { copies, per }) = rate else {
            self.0.clear();
            return u32::MAX;
        };
        while self.0.front().is_some_and(|(at, _)| *at + per <= now) {
            self.0.pop_front();
        }
        let taken: u32 = self.0.iter().map(|(_, step)| step).sum();
        copies.saturating_sub(taken)
    }

    /// Notes a step.
    pub fn step(&mut self, now: Instant, copies: u32) {
        self.0.push_back((now, copies));
    }

    /// When the next step is possible, if none is now.
    pub fn next(&self, rate: Option<Rate>) -> Option<Instant> {
        let (at, _) = self.0.front()?;
        Some(*at + rate?.per)
    }
}
