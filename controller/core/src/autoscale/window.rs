//! The largest need over a sliding time, in buckets: exact to one bucket, bounded in memory.

use std::collections::VecDeque;

use serde::Serialize;

use crate::time::Instant;
use crate::units::Millis;

/// Largest values per bucket, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Window {
    buckets: VecDeque<(u64, u32)>,
    since: Option<Instant>,
}

impl Window {
    /// Notes a value; forgets what is older than `length`.
    pub fn note(&mut self, now: Instant, value: u32, length: Millis, buckets: u64) {
        self.since.get_or_insert(now);
        let width = (length.0 / buckets.max(1)).max(1);
        let bucket = now.0 / width;
        match self.buckets.back_mut() {
            Some((last, most)) if *last == bucket => *most = (*most).max(value),
            _ => self.buckets.push_back((bucket, value)),
        }
        // A bucket is dropped when even its end lies outside the window.
        let oldest = Instant(now.0.saturating_sub(length.0)).0 / width;
        while self.buckets.front().is_some_and(|(bucket, _)| *bucket < oldest) {
            self.buckets.pop_front();
        }
    }

    /// The largest value noted within the window.
    pub fn largest(&self) -> u32 {
        self.buckets.iter().map(|(_, value)| *value).max().unwrap_or(0)
    }

    /// Has it been watched for the whole length?
    pub fn is_full(&self, now: Instant, length: Millis) -> bool {
        self.since.is_some_and(|since| now >= since + length)
    }

    /// When it will have been.
    pub fn full_at(&self, length: Millis) -> Option<Instant> {
        self.since.map(|since| since + length)
    }

    /// When the largest value falls below `value`, if nothing as large is noted any more; none when it is below already.
    pub fn below_at(&self, value: u32, length: Millis, buckets: u64) -> Option<Instant> {
        let width = (length.0 / buckets.max(1)).max(1);
        let (last, _) = self.buckets.iter().rev().find(|(_, most)| *most >= value)?;
        Some(Instant((last + 1) * width) + length)
    }
}
