//! What is counted. Registered once, in a registry of ours that is passed in.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// From 10 us (a heartbeat) in steps of 4 to 2.6 s (nobody should see that).
const STEP_BUCKETS: [f64; 10] =
    [0.000_01, 0.000_04, 0.000_16, 0.000_64, 0.002_56, 0.010_24, 0.040_96, 0.163_84, 0.655_36, 2.621_44];

/// Counters move as things happen; gauges are set at each scrape.
pub(crate) struct Metrics {
    pub(super) step_seconds: Histogram,
    pub(super) orders_sent: IntCounter,
    pub(super) placements: IntCounter,
    pub(super) letters_dropped: IntCounter,
    pub(crate) nodes: IntGaugeVec,
    pub(crate) apps: IntGauge,
    pub(crate) copies: IntGaugeVec,
    pub(crate) sessions: IntGauge,
    pub(crate) leading: IntGauge,
    pub(crate) term: IntGauge,
    pub(crate) applied: IntGauge,
    pub(crate) proposals_waiting: IntGauge,
    pub(crate) violations: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| kept(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| kept(registry, IntGauge::new(name, help)?);
        let by =
            |name: &str, help: &str, label: &str| kept(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?);
        let step = HistogramOpts::new("bellows_step_seconds", "Time the core took for one input.");
        Ok(Self {
            step_seconds: kept(registry, Histogram::with_opts(step.buckets(STEP_BUCKETS.to_vec()))?)?,
            orders_sent: counter("bellows_orders_sent_total", "Orders sent to agents.")?,
            placements: counter("bellows_placements_total", "Copies placed on nodes.")?,
            letters_dropped: counter(
                "bellows_raft_letters_dropped_total",
                "Raft messages that had no way to their member.",
            )?,
            nodes: by("bellows_nodes", "Nodes by liveness.", "liveness")?,
            apps: gauge("bellows_apps", "Declared apps.")?,
            copies: by(
                "bellows_copies",
                "Copies of all apps: wanted, ready, starting, stopping, parked, unplaced.",
                "state",
            )?,
            sessions: gauge("bellows_agent_sessions", "Open sessions of agents.")?,
            leading: gauge("bellows_leading", "1 when this member leads with a quorum.")?,
            term: gauge("bellows_raft_term", "Raft's present term.")?,
            applied: gauge(
                "bellows_raft_applied_index",
                "The last entry applied; committed entries are applied at once.",
            )?,
            proposals_waiting: gauge("bellows_raft_proposals_waiting", "Proposals that are not committed yet.")?,
            violations: gauge(
                "bellows_check_violations",
                "Invariants of the core that do not hold. Always 0, or a defect.",
            )?,
        })
    }
}

fn kept<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
