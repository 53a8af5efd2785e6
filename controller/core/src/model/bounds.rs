//! What the values of a declared app may be: one list, for the door (`AppSpec::check`) and for everything that reads app files, so that neither
//! lets in what the other refuses.

/// Inclusive bounds of one value, in the unit of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Nothing less.
    pub least: u64,
    /// Nothing more.
    pub most: u64,
}

impl Bounds {
    /// Is the value within?
    pub fn hold(&self, value: impl Into<u64>) -> bool {
        (self.least..=self.most).contains(&value.into())
    }
}

const fn bounds(least: u64, most: u64) -> Bounds {
    Bounds { least, most }
}

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 3_600 * SECOND_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Copies of one app: ten times the largest cluster aimed at.
pub const COPIES: Bounds = bounds(0, crate::limits::MOST_REPLICAS as u64);
/// `policy.max` of zero would be an app that can never run.
pub const MOST_COPIES: Bounds = bounds(1, COPIES.most);
/// From the finest share that a cgroup's quota of 100 ms can express, 1 ms, to 4,096 CPUs.
pub const CPU_MILLI: Bounds = bounds(10, 4_096_000);
/// From what a process and its init can start in to more than any server has: that catches a unit forgotten or doubled.
pub const MEMORY_BYTES: Bounds = bounds(MIB, 64 * TIB);
/// Of cgroups of the second version.
pub const CPU_WEIGHT: Bounds = bounds(1, 10_000);
/// In a second. With less than the least a program of a middling size takes minutes to be read.
pub const DISK_BYTES: Bounds = bounds(64 * KIB, TIB);
/// In a second.
pub const DISK_OPERATIONS: Bounds = bounds(10, 100_000_000);
/// The kernel's highest process id is 2^22.
pub const PROCESSES: Bounds = bounds(1, 1 << 22);
/// A file system of less has no room for its own books.
pub const SCRATCH_BYTES: Bounds = bounds(64 * KIB, 64 * TIB);
/// Less holds no stack trace.
pub const LOG_BYTES: Bounds = bounds(64 * KIB, 64 * GIB);
/// TCP's.
pub const PORT: Bounds = bounds(1, 65_535);
/// Longer than a day is a mistyped unit.
pub const STOP_GRACE_MS: Bounds = bounds(0, DAY_MS);
/// Likewise.
pub const DRAIN_DEADLINE_MS: Bounds = bounds(0, DAY_MS);
/// Likewise.
pub const IDLE_GRACE_MS: Bounds = bounds(0, DAY_MS);
/// Less than a second is less than a heartbeat: it would end copies whenever a packet is late.
pub const STOP_AFTER_MS: Bounds = bounds(SECOND_MS, DAY_MS);
/// Of health checks: longer than a day is a mistyped unit.
pub const CHECK_DELAY_MS: Bounds = bounds(0, DAY_MS);
/// More often than ten times a second is work for its own sake.
pub const CHECK_PERIOD_MS: Bounds = bounds(100, DAY_MS);
/// Less than a loaded machine takes to answer anything at all is a mistyped unit.
pub const CHECK_TIMEOUT_MS: Bounds = bounds(10, DAY_MS);
/// None in a row would be neither success nor failure.
pub const CHECK_THRESHOLD: Bounds = bounds(1, 1_000);
/// More than all of what was declared cannot be used.
pub const CPU_TARGET_PERMILLE: Bounds = bounds(10, 1_000);
/// Likewise.
pub const MEMORY_TARGET_PERMILLE: Bounds = bounds(10, 1_000);
/// Requests in one copy at once, as a limit or a target. More connections than a process has file descriptors for cannot be.
pub const CONCURRENCY: Bounds = bounds(1, 1 << 20);
/// What a target of requests per second and copy may be.
pub const REQUEST_RATE: Bounds = bounds(1, 10_000_000);
/// Zero: nothing waits, it is refused at once.
pub const HELD_REQUESTS: Bounds = bounds(0, 1 << 20);
/// Less holds no request with its headers.
pub const HELD_BYTES: Bounds = bounds(KIB, 64 * GIB);
/// Less holds no form; more nobody sends in a day.
pub const MAX_BODY: Bounds = bounds(KIB, 1024 * GIB);
/// Longer than an hour nobody waits for an answer.
pub const HOLD_TIME_MS: Bounds = bounds(0, 3_600 * SECOND_MS);
/// Longer than an hour is a mistyped unit.
pub const SLOW_START_MS: Bounds = bounds(0, 3_600 * SECOND_MS);
/// The stretch over which a rate is counted.
pub const RATE_PER_MS: Bounds = bounds(100, DAY_MS);
/// Letters of a path in a route.
pub const PATH_LETTERS: usize = 1_024;
/// Zero cannot be kept by a single copy.
pub const SKEW: Bounds = bounds(1, COPIES.most);
/// Zero would be an app that fits nowhere.
pub const PER_NODE: Bounds = bounds(1, COPIES.most);

/// Letters of a name, and of the key of a node label.
pub const NAME_LETTERS: usize = 63;

/// Names of apps, tenants and ports: as DNS takes them.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    (1..=NAME_LETTERS).contains(&text.len()) && text.bytes().all(allowed) && edges
}

/// Keys of node labels.
pub fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    (1..=NAME_LETTERS).contains(&text.len()) && text.bytes().all(allowed)
}

/// Host names as requests bear them: DNS labels in small letters, with dots between; or an address.
pub fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.split('.').all(is_name)
}

/// What the path of a request may begin with: visible ASCII after a slash, no query, nothing that a proxy may read in two ways.
pub fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\\\"<>".contains(&byte);
    let clear = text.split('/').all(|segment| segment != "." && segment != "..") && !text.contains("//");
    (1..=PATH_LETTERS).contains(&text.len()) && text.starts_with('/') && text.bytes().all(plain) && clear
}
