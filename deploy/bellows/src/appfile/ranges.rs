//! What values are possible, with an example each. The bounds are those of the controller's door: what is refused there is refused here first,
//! so that a person sees all mistakes at once, with their places.

use bellows_core::model::bounds::{self, Bounds};

/// Inclusive bounds, and an example for the message.
pub struct Range {
    pub least: u64,
    pub most: u64,
    pub example: &'static str,
}

const fn range(bounds: Bounds, example: &'static str) -> Range {
    Range { least: bounds.least, most: bounds.most, example }
}

pub const COPIES: Range = range(bounds::COPIES, "3");
pub const MOST_COPIES: Range = range(bounds::MOST_COPIES, "20");
pub const CPU_MILLI: Range = range(bounds::CPU_MILLI, "250m");
pub const MEMORY_BYTES: Range = range(bounds::MEMORY_BYTES, "64Mi");
pub const CPU_WEIGHT: Range = range(bounds::CPU_WEIGHT, "100");
pub const DISK_BYTES: Range = range(bounds::DISK_BYTES, "10Mi");
pub const DISK_OPERATIONS: Range = range(bounds::DISK_OPERATIONS, "500");
pub const PROCESSES: Range = range(bounds::PROCESSES, "256");
pub const SCRATCH_BYTES: Range = range(bounds::SCRATCH_BYTES, "64Mi");
pub const LOG_BYTES: Range = range(bounds::LOG_BYTES, "16Mi");
pub const PORT: Range = range(bounds::PORT, "8080");
pub const STOP_GRACE_MS: Range = range(bounds::STOP_GRACE_MS, "10s");
pub const DRAIN_DEADLINE_MS: Range = range(bounds::DRAIN_DEADLINE_MS, "2m");
pub const IDLE_GRACE_MS: Range = range(bounds::IDLE_GRACE_MS, "30s");
pub const STOP_AFTER_MS: Range = range(bounds::STOP_AFTER_MS, "5m");
pub const CPU_TARGET_PERMILLE: Range = range(bounds::CPU_TARGET_PERMILLE, "60%");
pub const CHECK_DELAY_MS: Range = range(bounds::CHECK_DELAY_MS, "5s");
pub const CHECK_PERIOD_MS: Range = range(bounds::CHECK_PERIOD_MS, "10s");
pub const CHECK_TIMEOUT_MS: Range = range(bounds::CHECK_TIMEOUT_MS, "1s");
pub const CHECK_THRESHOLD: Range = range(bounds::CHECK_THRESHOLD, "3");
/// Of checks that have succeeded once for all.
pub const CHECK_ONCE: Range = Range { least: 1, most: 1, example: "1" };
pub const SKEW: Range = range(bounds::SKEW, "1");
pub const PER_NODE: Range = range(bounds::PER_NODE, "2");
pub const MEMORY_TARGET_PERMILLE: Range = range(bounds::MEMORY_TARGET_PERMILLE, "80%");
pub const CONCURRENCY: Range = range(bounds::CONCURRENCY, "10");
pub const REQUEST_RATE: Range = range(bounds::REQUEST_RATE, "50");
pub const HELD_REQUESTS: Range = range(bounds::HELD_REQUESTS, "1000");
pub const HELD_BYTES: Range = range(bounds::HELD_BYTES, "16Mi");
pub const MAX_BODY: Range = range(bounds::MAX_BODY, "10Mi");
pub const HOLD_TIME_MS: Range = range(bounds::HOLD_TIME_MS, "10s");
pub const SLOW_START_MS: Range = range(bounds::SLOW_START_MS, "5s");
pub const RATE_PER_MS: Range = range(bounds::RATE_PER_MS, "10s");
