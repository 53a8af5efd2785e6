//! Apps that misbehave and nodes that are emptied.

use super::support::events::Events;
use super::support::machine;
use super::*;

/// The sentences of these events of an app.
fn reasons<'e>(events: &'e [Value], app: &'e str, kind: &'e str) -> impl Iterator<Item = &'e str> {
    let wanted = events.iter().filter(move |event| event["app"] == app && event["kind"] == kind);
    wanted.filter_map(|event| event["reason"]["text"].as_str())
}

#[test]
fn an_out_of_memory_kill_is_told_as_one() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    // 64 MiB of letters are held whole by a shell that may have 16.
    let yaml = "name: eater\nimage: busybox\nresources: {cpu: 500m, memory: 16Mi}\n\
        command: [sh, -c, \"x=$(dd if=/dev/zero bs=1M count=64 | tr '\\\\0' x); sleep 1000\"]\n";
    bench.dev.cli.apply(yaml, &[]);
    let mut events = Events::follow(&bench.dev.cli);
    events.until("an end for want of memory", PATIENCE, |told| {
        reasons(told, "eater", "ended").any(|why| why.contains("out of memory")).then_some(())
    });
    drop(events);
    let explained = bench.dev.cli.json(&["explain", "eater"]).to_string();
    assert!(explained.contains("memory"), "{explained}");
    bench.end();
}

#[test]
fn a_crash_loop_backs_off_with_its_exit_code() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    bench.dev.cli.apply(&app("crasher", "[sh, -c, \"exit 7\"]", "replicas: 1"), &[]);
    let mut events = Events::follow(&bench.dev.cli);
    let told = events.until("the end of a copy that crashed too often", PATIENCE, |told| {
        reasons(told, "crasher", "ended").any(|why| why.contains("exit code 7")).then(|| told.to_vec())
    });
    let starts = told.iter().filter(|event| event["app"] == "crasher" && event["kind"] == "started");
    let starts: Vec<u64> = starts.filter_map(|event| event["at_unix_ms"].as_u64()).collect();
    let pauses: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() >= 2, "attempts restart in place: {told:#?}");
    assert!(pauses.last() > pauses.first().map(|first| first * 2).as_ref(), "each pause is longer: {pauses:?}");
    drop(events);
    let explained = bench.dev.cli.json(&["explain", "crasher"]).to_string();
    assert!(explained.contains("backing off"), "{explained}");
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
