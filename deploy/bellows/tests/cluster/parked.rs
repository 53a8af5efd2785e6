//! What replicas use, and parked ones that are frozen: from the command line to the kernel and back.

use super::support::cli::{Cli, text};
use super::support::events::Events;
use super::support::machine;
use super::*;

fn only(cli: &Cli) -> Value {
    cli.replicas("app").remove(0)
}

/// Of the app's only copy.
fn stats(cli: &Cli, interval: &str) -> Value {
    let document = cli.json(&["stats", "app", "--interval", interval]);
    assert_eq!(document["unheard"], Value::Array(Vec::new()));
    document["replicas"][0].clone()
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("{name} in {row}"))
}

#[test]
fn use_is_read_and_counted_between_two_readings() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "2"]);
    let cli = &bench.dev.cli;
    cli.apply(&app("app", "[sh, -c, \"while :; do :; done\"]", "replicas: 1"), &["--wait"]);
    cli.apply(&sleeper("idle", 3), &["--wait"]);
    let row = stats(cli, "2s");
    // 20m of a CPU is what it may use; what it used too much of, by a tick or two, it pays back in the periods that follow.
    let rate = number(&row["rates"], "cpu_milli");
    assert!((5..=100).contains(&rate), "{row}");
    assert!(number(&row, "cpu_us") > 0 && number(&row, "memory_bytes") > 0 && number(&row, "processes") == 2, "{row}");
    assert!(number(&row, "memory_peak_bytes") >= number(&row, "memory_bytes"), "{row}");
    assert_eq!((number(&row, "cpu_limit_milli"), number(&row, "memory_limit_bytes")), (20, 16 << 20));
    assert_eq!(row["frozen"], false);
    let of =
        |subject: &str| cli.json(&["stats", subject, "--interval", "0s"])["replicas"].as_array().map_or(0, Vec::len);
    let node = field(&only(cli), "node");
    let on_node = cli.rows(&["replicas"]).iter().filter(|row| field(row, "node") == node).count();
    assert_eq!((of("idle"), of(&field(&only(cli), "id")), of(&node)), (3, 1, on_node));
    assert_eq!(cli.json(&["stats", "--interval", "0s"])["replicas"].as_array().map_or(0, Vec::len), 4);
    assert_eq!(cli.run(&["stats", "nobody"]).status.code(), Some(5));
    bench.end();
}

/// Parked by a scale-down, and kept from ending by a connection until its drain deadline.
#[test]
fn only_parked_copies_are_frozen_and_they_go_on_when_they_are_wanted_again() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let busy = "name: app\nimage: busybox\nreplicas: 1\nports: [8080]\ndrain_deadline: 10m\n\
                command: [sh, -c, \"httpd -p 8080 -h /www; while :; do :; done\"]\n\
                resources: {cpu: 300m, memory: 32Mi, processes: 16, scratch: 1Mi, log: 64Ki}\n";
    cli.apply(busy, &["--wait"]);
    let id = field(&only(cli), "id");
    let refused = cli.run(&["freeze", &id]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("in rotation"), "{}", text(&refused.stderr));
    let _connection = std::net::TcpStream::connect_timeout(&address(&only(cli), 8080), PATIENCE).expect("it listens");
    // It is counted as busy before it is parked, or it would end at once.
    let mut events = Events::follow(cli);
    events.until("it is busy", PATIENCE, |_| (only(cli)["activity"] == "busy").then_some(()));
    cli.json(&["scale", "app", "0"]);
    events.until("it is parked", PATIENCE, |_| (only(cli)["parked"] == true).then_some(()));
    let frozen = cli.json(&["freeze", &id]);
    assert!(number(&frozen, "memory_after_bytes") <= number(&frozen, "memory_before_bytes"), "{frozen}");
    let row = stats(cli, "200ms");
    assert_eq!((&row["frozen"], number(&row["rates"], "cpu_milli")), (&Value::Bool(true), 0));
    let entered = cli.run(&["exec", &id, "--", "true"]);
    assert!(
        entered.status.code() == Some(125) && text(&entered.stderr).contains("frozen"),
        "{}",
        text(&entered.stderr)
    );
    cli.json(&["thaw", &id]);
    events
        .until("it works again", PATIENCE, |_| (number(&stats(cli, "200ms")["rates"], "cpu_milli") > 0).then_some(()));
    cli.json(&["freeze", &id]);
    // Wanted again: it is taken back, and goes on by itself.
    cli.json(&["scale", "app", "1", "--wait"]);
    events
        .until("it works again", PATIENCE, |_| (number(&stats(cli, "200ms")["rates"], "cpu_milli") > 0).then_some(()));
    assert_eq!(field(&only(cli), "id"), id);
    // Frozen by force in rotation; the end of everything is its end too.
    cli.json(&["freeze", &id, "--force"]);
    bench.end();
}

/// A copy that does nothing, and says that it works: it stays until it says so no more.
#[test]
fn a_copy_that_holds_its_busy_mark_is_not_ended_before_its_drain_deadline() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let hold = "[sh, -c, \"exec 9>/dev/bellows/busy; while ! [ -e /tmp/done ]; do sleep 1; done; exec 9>&-; exec sleep 100000\"]";
    cli.apply(&app("app", hold, "replicas: 1\ndrain_deadline: 10m"), &["--wait"]);
    let id = field(&only(cli), "id");
    let mut events = Events::follow(cli);
    events.until("it is busy", PATIENCE, |_| (only(cli)["activity"] == "busy").then_some(()));
    cli.json(&["scale", "app", "0"]);
    events.until("it is parked", PATIENCE, |_| (only(cli)["parked"] == true).then_some(()));
    let why = events.until("its park is told", PATIENCE, |seen| {
        let parked = seen.iter().find(|event| event["kind"] == "parked")?;
        Some(parked["reason"]["text"].to_string())
    });
    assert!(why.contains("no idle copy is left"), "{why}");
    assert_eq!((only(cli)["activity"].clone(), only(cli)["parked"].clone()), ("busy".into(), true.into()));
    let done = cli.run(&["exec", &id, "--", "sh", "-c", "mkdir -p /tmp; touch /tmp/done"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    events.until("it has ended", PATIENCE, |_| cli.replicas("app").is_empty().then_some(()));
    bench.end();
}
