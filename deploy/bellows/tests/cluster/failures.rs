//! Apps that misbehave and nodes that are emptied.

use super::support::events::Events;
use super::support::machine;
use super::*;

#[test]
fn an_out_of_memory_kill_is_told_as_one() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    // A line of 64 MiB is held whole by a shell that may have 16.
    let eater = "[sh, -c, \"x=$(dd if=/dev/zero bs=1M count=64 | tr '\\\\0' x); sleep 1000\"]";
    bench.dev.cli.apply(&app("eater", eater, "replicas: 1"), &[]);
    let mut events = Events::follow(&bench.dev.cli);
    events.until("an out-of-memory kill", PATIENCE, |told| {
        told.iter().any(|event| event.to_string().contains("memory")).then_some(())
    });
    drop(events);
    bench.dev.cli.json(&["rm", "eater"]);
    bench.end();
}

#[test]
fn a_crash_loop_backs_off_with_its_exit_code() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    bench.dev.cli.apply(&app("crasher", "[sh, -c, \"exit 7\"]", "replicas: 1"), &[]);
    let mut events = Events::follow(&bench.dev.cli);
    events.until("the exit code in an event", PATIENCE, |told| {
        told.iter().any(|event| event["app"] == "crasher" && event.to_string().contains('7')).then_some(())
    });
    // Attempts restart in place, each after a longer wait: many in a few seconds would be a loop without a brake.
    let attempts = |rows: &[Value]| rows.iter().filter_map(|row| row["attempt"].as_u64()).max().unwrap_or(0);
    let attempt = events.until("a second attempt", PATIENCE, |_| {
        let attempt = attempts(&bench.dev.cli.rows(&["replicas", "crasher"]));
        (attempt >= 2).then_some(attempt)
    });
    assert!(attempt < 10, "{attempt} attempts already");
    drop(events);
    bench.dev.cli.json(&["rm", "crasher"]);
    bench.end();
}

#[test]
fn a_drained_node_is_left_by_all_copies() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "3"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("web", 9), &["--wait"]);
    assert_eq!(distinct(&cli.replicas("web"), "node").len(), 3);
    cli.json(&["drain", "node-2"]);
    let mut events = Events::follow(cli);
    events.until("9 ready copies, none on node-2", PATIENCE, |_| {
        let replicas = cli.replicas("web");
        let moved = replicas.iter().all(|row| row["node"] != "node-2");
        (moved && ready(&replicas) == 9).then_some(())
    });
    drop(events);
    bench.end();
}
