//! Every duration and bound of the leader's mind, with its arithmetic. One value, passed in; nothing is read from elsewhere.

use serde::{Deserialize, Serialize};

use crate::units::{Millis, Permille};

/// Answers kept for repeated idempotency keys. At 1,000 the search costs microseconds, and a person or a
/// retrying client repeats within seconds, not after a thousand other requests.
pub const KEPT_KEYS: usize = 1_000;

/// Removed nodes that are remembered: their names, and the words for one that comes back. At some 60 bytes each this is 60 KiB of a
/// snapshot, and nobody asks for what a thousand departures have covered.
pub const KEPT_REMOVED: usize = 1_000;

/// Ends that no agent can tell of, kept for `explain`. At some 400 bytes each 200 KiB of a snapshot.
pub const KEPT_ENDS: usize = 500;

/// A request for more copies than this is a mistyped one: ten times the largest cluster aimed at (100,000 copies).
pub const MOST_REPLICAS: u32 = 1_000_000;

/// Durations and bounds. `Default` is what runs in production; tests and the simulator may turn single ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The shell sends `Tick` at least this often. It bounds how late a deadline can be noticed.
    pub tick: Millis,
    /// Agents report this often, ...
    pub heartbeat: Millis,
    /// ... plus or minus this share, so that 10,000 agents do not speak at once.
    pub heartbeat_jitter: Permille,
    /// A node unheard for this long is lost. Four heartbeats at their slowest are 4 x 1.1 s = 4.4 s; with one tick of
    /// 0.1 s on top a dead node is noticed after 4.6 s at the latest, below the promised 5 s.
    pub node_lost: Millis,
    /// A node unheard for this long is late: nothing is placed there while others can take it, and it counts for the
    /// brake. Two heartbeats at their slowest and a little for the way: 2 x 1.1 s + 0.3 s.
    pub node_late: Millis,
    /// A new leader waits this long for nodes that it never heard. An agent finds the new leader within its
    /// longest reconnect pause (2 s) and one refused try (another 2 s); twice that, and two heartbeats, is 10 s.
    pub unknown_grace: Millis,
    /// The brake: more lost nodes than this ...
    pub brake_nodes: u32,
    /// ... and than this share of all nodes, within `node_lost`, look like a cut network rather than dead servers.
    pub brake_share: Permille,
    /// How long the brake stays on after the last suspicious loss, and after a change of leader: six detection windows.
    pub brake_hold: Millis,
    /// Replacements per second while the brake is on. 10/s replaces a rack of 300 copies in 30 s, and costs a
    /// cluster that was merely cut off at most 300 needless starts in `brake_hold`.
    pub brake_starts_per_second: u32,
    /// A copy that the agent gave up on is replaced after this long, doubled with each further one ...
    pub crash_backoff: Millis,
    /// ... up to this. The agent's own attempts come before: N = 5 within about a minute.
    pub crash_backoff_most: Millis,
    /// Copies that stayed ready this long clear the record of crashes.
    pub crash_forgiven: Millis,
    /// A start that a node refused for want of room is tried elsewhere; that node not before this: two heartbeats,
    /// after which its measured load is part of the ranking.
    pub no_room_pause: Millis,
    /// A node that was lost and came back is ranked behind the others for this long, doubled each time ...
    pub flap_backoff: Millis,
    /// ... up to this.
    pub flap_backoff_most: Millis,
    /// Load is compared in steps of this size, else no later field of the ranking is ever reached.
    pub load_step: Permille,
    /// A copy counts as the larger of measured and declared until it ran this long: five heartbeats, so that
    /// a start-up phase without load does not attract the next copies.
    pub full_window: Millis,
    /// Copies above the wanted count during a rollout or drain, as a share of it (never fewer than 1).
    pub surge: Permille,
    /// When an app says `stop_after T`, its lost copies are replaced after T and this: one lost-node window for what the
    /// agent could not know yet, and as much again for clocks that run apart.
    pub cut_off_margin: Millis,
    /// The longest pause between two tries to place what found no room.
    pub unplaced_retry: Millis,
    /// Wanted counts of policies are recorded at most this often.
    pub record_wanted_every: Millis,
    /// Ends that no agent can tell of are recorded at most this often, ...
    pub record_ended_every: Millis,
    /// ... and so many at once, the newest: a storm of refusals must not fill the log. 100/s at 400 bytes are 40 KB/s.
    pub record_ended_most: usize,
    /// A drain or takeover that has not advanced for this long is told as stuck: an order of magnitude above what a start takes.
    pub stuck_after: Millis,
    /// Requests per second are counted over this long: two heartbeats, so that one that is late does not look like a pause.
    #[serde(default = "rate_window")]
    pub rate_window: Millis,
    /// No count falls before demand was watched for this long, however short the idle grace: two heartbeats at their slowest and a
    /// little for the way.
    #[serde(default = "watch_least")]
    pub watch_least: Millis,
    /// So many agents may start the first copy of an idle app by themselves. Each holds room that nothing else can have: two, so that
    /// one of them may be cut off.
    #[serde(default = "allowances_most")]
    pub allowances_most: u32,
    /// `idle_grace` is watched in this many buckets: the window's edge is at most 1/12 of it late.
    pub window_buckets: u64,
    /// Ended copies kept per app for `explain`.
    pub kept_ended: usize,
    /// For copies of an app that was removed before this leader's time: the terms that apps have when they say nothing.
    pub default_stop_grace: Millis,
    /// Likewise.
    pub default_drain_deadline: Millis,
    /// A second agent with a node's identity waits this long for the first one to answer a probe: a live agent answers in
    /// milliseconds, one whose machine is in trouble within a heartbeat and a half.
    pub probe_patience: Millis,
    /// Bugs that tests plant to see whether they are found. None in production.
    #[serde(default)]
    pub planted: Planted,
}

/// A bug on purpose: the laboratory proves that its laws find each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planted {
    /// Behave.
    #[default]
    None,
    /// Set nothing aside for what was ordered.
    DropReservation,
    /// Retire the newest copy, whatever the others do.
    RetireNewest,
    /// Retire the newest copy and stop it at once, without parking it: as others do. `bellows bench traffic` sets it beside the rule.
    StopNewest,
    /// Work the wanted count out from the copies that are there, and start more for each one that is not ready yet.
    ScaleFromObserved,
}

fn rate_window() -> Millis {
    Millis(2_000)
}

fn allowances_most() -> u32 {
    2
}

fn watch_least() -> Millis {
    Millis(2_500)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tick: Millis(100),
            heartbeat: Millis(1_000),
            heartbeat_jitter: Permille(100),
            node_lost: Millis(4_500),
            node_late: Millis(2_500),
            unknown_grace: Millis(10_000),
            brake_nodes: 3,
            brake_share: Permille(100),
            brake_hold: Millis(27_000),
            brake_starts_per_second: 10,
            crash_backoff: Millis(5_000),
            crash_backoff_most: Millis(300_000),
            crash_forgiven: Millis(600_000),
            no_room_pause: Millis(2_000),
            flap_backoff: Millis(60_000),
            flap_backoff_most: Millis(3_600_000),
            load_step: Permille(50),
            full_window: Millis(5_000),
            surge: Permille(250),
            cut_off_margin: Millis(9_000),
            unplaced_retry: Millis(1_000),
            record_wanted_every: Millis(10_000),
            record_ended_every: Millis(1_000),
            record_ended_most: 100,
            stuck_after: Millis(30_000),
            rate_window: rate_window(),
            watch_least: watch_least(),
            allowances_most: allowances_most(),
            window_buckets: 12,
            kept_ended: 100,
            default_stop_grace: Millis(10_000),
            default_drain_deadline: Millis(30_000),
            probe_patience: Millis(1_500),
            planted: Planted::None,
        }
    }
}

impl Limits {
    /// `base` doubled `level - 1` times, at most `most`.
    pub fn doubled(base: Millis, most: Millis, level: u32) -> Millis {
        let factor = 1u64 << level.saturating_sub(1).min(32);
        Millis(base.0.saturating_mul(factor).min(most.0))
    }
}
