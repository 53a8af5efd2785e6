//! The laboratory itself: what it must find, what it must not, and that it repeats itself.

use bellows_sim::chaos::{self, Options, Planted};

/// Faults and happenings that two hundred seeds must have seen, each at least ten times.
const MUST_FIRE: [&str; 35] = [
    "agents crashed",
    "answers to people lost",
    "apps applied",
    "apps removed",
    "apps scaled",
    "copies crashed",
    "copies got work",
    "crashes of members that lost unsynced writes",
    "cuts around a member",
    "cuts around some nodes",
    "cuts between the leader and the members",
    "cuts through everything",
    "disks slow",
    "images that could not be had",
    "leaders crashed",
    "leaders elected",
    "leaders stalled",
    "members crashed",
    "messages doubled",
    "messages late",
    "messages lost",
    "nodes drained",
    "nodes removed for good",
    "one-way cuts",
    "orders that came late, after their session",
    "requests repeated",
    "revisions applied",
    "servers lost power",
    "snapshots made",
    "snapshots restored",
    "stale loads told",
    "stalls of a leader behind a cut",
    "starts failed",
    "starts slow",
    "stop signals ignored",
];

#[test]
fn two_hundred_seeds_hold() {
    let report = chaos::run(0..200, &Options::default());
    assert!(report.holds(), "{report}");
    assert!(report.events_least >= 2_000, "a seed had only {} events", report.events_least);
    assert!(report.virtual_ms >= 200 * 300_000, "{} ms of virtual time", report.virtual_ms);
    for what in MUST_FIRE {
        let count = report.counts.get(what).copied().unwrap_or(0);
        assert!(count >= 10, "{what}: {count} times in 200 seeds\n{report}");
    }
}

#[test]
fn a_seed_repeats_itself() {
    let options = Options { keep_diary: true, ..Options::default() };
    let (first, second) = (chaos::run_seed(5, &options), chaos::run_seed(5, &options));
    assert_eq!(first.log_hash, second.log_hash);
    assert_eq!((first.events, first.virtual_ms), (second.events, second.virtual_ms));
    assert_eq!(first.diary, second.diary);
    assert!(!first.diary.is_empty());
    assert_eq!(first.log_hash, chaos::run_seed(5, &Options::default()).log_hash, "keeping the log changes nothing");
    assert_ne!(first.log_hash, chaos::run_seed(6, &Options::default()).log_hash, "the seed has no influence");
}

#[test]
fn a_failing_seed_fails_again_in_the_same_way() {
    let options = Options { planted: Planted::StopOnAbsence, ..Options::default() };
    let (first, second) = (chaos::run_seed(0, &options), chaos::run_seed(0, &options));
    assert!(first.failure.is_some());
    assert_eq!(first.failure, second.failure);
    assert_eq!(first.log_hash, second.log_hash);
}

#[test]
fn threads_change_nothing() {
    let small = |threads| Options { threads, nodes: 10, trouble_seconds: 30, ..Options::default() };
    assert_eq!(chaos::run(0..6, &small(1)).log_hash, chaos::run(0..6, &small(3)).log_hash);
}

/// Within the first seeds, and by the law that speaks of it.
fn is_found(planted: Planted, seeds: u64, laws: &[u32]) {
    let report = chaos::run(0..seeds, &Options { planted, ..Options::default() });
    assert!(!report.holds(), "{planted:?} was not found in {seeds} seeds");
    let failure = &report.failures[0];
    assert!(laws.contains(&failure.law), "{planted:?} was found otherwise: {failure}");
}

#[test]
fn a_skipped_fence_check_is_found() {
    is_found(Planted::SkipFenceCheck, 8, &[1, 2]);
}

#[test]
fn a_stop_on_absence_is_found() {
    is_found(Planted::StopOnAbsence, 8, &[6]);
}

#[test]
fn a_lost_fence_is_found() {
    is_found(Planted::LosePersistedFence, 8, &[1]);
}

#[test]
fn a_dropped_reservation_is_found() {
    is_found(Planted::DropReservation, 8, &[7]);
}

#[test]
fn retiring_the_newest_is_found() {
    is_found(Planted::RetireNewest, 8, &[14]);
}
