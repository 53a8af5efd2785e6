//! Health checks from the app file to the copy and back: what is ready, what is started again in place, and what people are told of it.

use super::support::cli::{Cli, text};
use super::support::events::Events;
use super::support::machine;
use super::*;

/// Answers 200 on port 8080 as long as there is a /www/ok; listens at once.
const SERVER: &str = "\
name: web
image: busybox
replicas: 1
ports: [8080]
stop_grace: 1s
resources: {cpu: 500m, memory: 32Mi, processes: 32, scratch: 1Mi, log: 64Ki}
command: [sh, -c, \"exec httpd -f -p 8080 -h /www\"]
health:
";

fn server(health: &str) -> String {
    let lines = health.lines().map(|line| format!("  {line}\n"));
    SERVER.to_owned() + &lines.collect::<String>()
}

/// In the only copy.
fn run(cli: &Cli, script: &str) {
    let output = cli.run(&["exec", &only(cli, "id"), "--", "sh", "-c", script]);
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
}

fn only(cli: &Cli, name: &str) -> String {
    field(&cli.replicas("web")[0], name)
}

fn until(cli: &Cli, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let mut events = Events::follow(cli);
    events.until(what, PATIENCE, |_| cli.replicas("web").into_iter().find(&reached))
}

fn is_ready(row: &Value) -> bool {
    row["ready"] == Value::Bool(true)
}

fn explained(cli: &Cli) -> String {
    text(&cli.run(&["explain", &only(cli, "id")]).stdout)
}

#[test]
fn readiness_by_http_comes_and_goes() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let check = "readiness: {http: {port: 8080, path: /ok}, period: 100ms, failure_threshold: 2}";
    cli.apply(&server(check), &[]);
    until(cli, "it runs and listens", |row| field(row, "state") == "running");
    let told = |word: &str| {
        let mut events = Events::follow(cli);
        events
            .until(&format!("explain tells {word}"), PATIENCE, |_| Some(()).filter(|()| explained(cli).contains(word)));
    };
    told("GET /ok on port 8080) failed 2 times in a row: status 404");
    assert!(!is_ready(&cli.replicas("web")[0]), "it listens, but the check decides");
    run(cli, "echo yes > /www/ok");
    let row = until(cli, "it is ready", is_ready);
    assert_eq!(row["attempt"], 1);
    run(cli, "busybox rm /www/ok");
    until(cli, "it is not ready any more", |row| !is_ready(row));
    let events = cli.json_lines(&["events", "--app", "web"]);
    let unhealthy = events.iter().find(|event| event["kind"] == "unhealthy").expect("an event tells of it");
    assert!(field(&unhealthy["reason"], "text").contains("readiness check"), "{unhealthy}");
    bench.end();
}

#[test]
fn a_failed_liveness_starts_it_again_in_place() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let check = "startup: {tcp: 8080, period: 100ms}\n\
                 liveness: {exec: [sh, -c, \"! busybox test -e /www/sick || { echo it is sick; exit 3; }\"], period: 100ms, failure_threshold: 2}";
    cli.apply(&server(check), &["--wait"]);
    let before = only(cli, "id");
    run(cli, "echo yes > /www/sick");
    let row = until(cli, "the second attempt is ready", |row| row["attempt"] == 2 && is_ready(row));
    assert_eq!(field(&row, "id"), before, "in place");
    let events = cli.json_lines(&["events", "--app", "web"]);
    let restarted = events.iter().find(|event| event["kind"] == "restarted").expect("an event tells of it");
    let why = field(&restarted["reason"], "text");
    assert!(why.contains("liveness check") && why.contains("exit code 3, it is sick"), "{why}");
    bench.end();
}

/// A check that never answers ends by its time, as a failure, and holds up no other.
#[test]
fn a_check_that_hangs_fails_by_its_time() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let check = "startup: {exec: [sleep, \"1000\"], period: 100ms, timeout: 50ms, failure_threshold: 2}";
    cli.apply(&server(check), &[]);
    cli.apply(&sleeper("other", 1), &["--wait"]);
    until(cli, "it is started again", |row| row["attempt"].as_u64() > Some(1));
    assert!(
        explained(cli).contains("startup check (sleep 1000) failed 2 times in a row: no answer within 50 ms"),
        "{}",
        explained(cli)
    );
    assert!(!is_ready(&cli.replicas("web")[0]), "the startup check gates it");
    bench.end();
}
