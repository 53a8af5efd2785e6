//! What values are possible, with an example each. The controller checks again; this is so that a person sees all mistakes at once.

/// Inclusive bounds, and an example for the message.
pub struct Range {
    pub least: u64,
    pub most: u64,
    pub example: &'static str,
}

const fn range(least: u64, most: u64, example: &'static str) -> Range {
    Range { least, most, example }
}

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 3_600 * SECOND_MS;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Copies of one app: 100 times what the largest published clusters run of one.
pub const COPIES: Range = range(0, 1_000_000, "3");
/// `policy.max` of zero would be an app that can never run.
pub const MOST_COPIES: Range = range(1, COPIES.most, "20");
/// From a thousandth to 1,024 CPUs.
pub const CPU_MILLI: Range = range(1, 1_024_000, "250m");
/// Below 1 MiB no process starts.
pub const MEMORY_BYTES: Range = range(MIB, 64 * TIB, "64Mi");
/// The kernel's highest pid is 2^22.
pub const PROCESSES: Range = range(1, 1 << 22, "256");
/// Zero: the root file system is read-only in effect.
pub const SCRATCH_BYTES: Range = range(0, 64 * TIB, "64Mi");
/// Less than 64 KiB holds no stack trace.
pub const LOG_BYTES: Range = range(64 << 10, 64 << 30, "16Mi");
/// TCP's.
pub const PORT: Range = range(1, 65_535, "8080");
/// Longer than an hour is a job's business, not a signal handler's.
pub const STOP_GRACE_MS: Range = range(0, 3_600 * SECOND_MS, "10s");
/// A week.
pub const DRAIN_DEADLINE_MS: Range = range(0, 7 * DAY_MS, "2m");
/// A day.
pub const IDLE_GRACE_MS: Range = range(0, DAY_MS, "30s");
/// Less than a second is less than a heartbeat: it would end copies whenever a packet is late.
pub const STOP_AFTER_MS: Range = range(SECOND_MS, 7 * DAY_MS, "5m");
/// More than all of what was declared cannot be used.
pub const CPU_TARGET_PERMILLE: Range = range(10, 1_000, "60%");
/// Zero could never hold while copies are odd.
pub const SKEW: Range = range(1, 1_000_000, "1");
/// Zero would be an app that fits nowhere.
pub const PER_NODE: Range = range(1, 1_000_000, "2");
