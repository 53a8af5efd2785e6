//! Beginning and end of `bellows dev` itself.

use std::process::{Command, Stdio};

use super::support::cli::{BELLOWS, text};
use super::support::events::Events;
use super::support::machine;
use super::*;

#[test]
fn what_was_declared_returns_after_kill_nine() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut bench = with_busybox(&["--nodes", "2"]);
    bench.dev.cli.apply(&sleeper("web", 6), &["--wait"]);
    bench.dev.cli.json(&["scale", "web", "8", "--wait"]);
    let before = sleepers(&bench);
    bench.dev.kill();
    let dev = Dev::start_again(&bench.dev, bench.state.path(), &["--nodes", "2"]);
    let again = Bench { dev, state: bench.state };
    let mut events = Events::follow(&again.dev.cli);
    let replicas = events.until("8 ready copies after the restart", PATIENCE, |_| {
        let replicas = again.dev.cli.replicas("web");
        (ready(&replicas) == 8 && replicas.len() == 8).then_some(replicas)
    });
    assert_eq!(distinct(&replicas, "id").len(), 8);
    drop(events);
    assert_eq!(before.len(), 8, "{before:?}");
    assert_eq!(sleepers(&again), before, "the same processes: neither lost nor doubled nor started anew");
    again.end();
}

/// Processes that execute `sleep`, each with its id.
fn sleepers(bench: &Bench) -> std::collections::BTreeSet<String> {
    bench.census().processes.into_iter().filter(|process| process.contains(" sleep 100000")).collect()
}

#[test]
fn fewer_nodes_than_before_leave_nothing_of_the_others() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut bench = with_busybox(&["--nodes", "3"]);
    bench.dev.cli.apply(&sleeper("web", 6), &["--wait"]);
    bench.dev.kill();
    let dev = Dev::start_again(&bench.dev, bench.state.path(), &["--nodes", "1"]);
    let again = Bench { dev, state: bench.state };
    let census = again.census();
    let of_others = census.cgroups.iter().filter(|cgroup| !cgroup.to_string_lossy().contains("node-1"));
    assert_eq!(of_others.collect::<Vec<_>>(), Vec::<&std::path::PathBuf>::new());
    again.end();
}

#[test]
fn replicas_end_also_when_their_agent_does_not_end_well() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut bench = with_busybox(&["--nodes", "1"]);
    bench.dev.cli.apply(&sleeper("web", 3), &["--wait"]);
    let cgroups = bench.census().cgroups;
    let node = cgroups.iter().find(|cgroup| is_node(cgroup)).expect("the node has a cgroup");
    let foreign = node.join("foreign");
    std::fs::create_dir(&foreign).expect("cgroups can be made");
    let status = bench.dev.interrupt();
    let left = bench.census();
    let removed = std::fs::remove_dir(&foreign);
    assert_eq!((status.code(), left.processes.len()), (Some(1), 0), "it says that a cgroup is left: {left:#?}");
    removed.expect("nothing was in it");
    // The next one can end it all.
    let dev = Dev::start_again(&bench.dev, bench.state.path(), &["--nodes", "1"]);
    Bench { dev, state: bench.state }.end();
}

/// Not one of a replica.
fn is_node(cgroup: &std::path::Path) -> bool {
    cgroup.file_name().is_some_and(|name| name.to_string_lossy().starts_with("bellows-"))
}

#[test]
fn the_second_dev_in_a_folder_is_told_of_the_first() {
    let Some(_machine) = machine(&[]) else { return };
    let state = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(state.path(), &["--nodes", "1"]);
    let second = Command::new(BELLOWS).args(["dev", "--state"]).arg(state.path()).stdin(Stdio::null()).output();
    let second = second.expect("the executable was built");
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", dev.pid())), "{said}");
    Bench { dev, state }.end();
}

#[test]
fn without_root_it_says_how_to_get_it() {
    use std::os::unix::process::CommandExt;
    let Some(_machine) = machine(&[]) else { return };
    let state = tempfile::tempdir().expect("a temporary folder");
    let started = Command::new(BELLOWS).args(["dev", "--state"]).arg(state.path()).uid(65534).gid(65534).output();
    let output = match started {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: nobody may not execute {BELLOWS}");
            return;
        }
        output => output.expect("the executable was built"),
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("root") && said.contains("sudo"), "{said}");
}

/// Names of our metrics in a text.
fn metrics(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("bellows_"));
    names
        .map(|name| name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum").to_owned())
        .collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    bench.dev.cli.apply(&sleeper("web", 1), &["--wait"]);
    let page = bench.dev.ready["dashboard"].as_str().expect("the page has an address").to_owned();
    let page = page.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address with a port");
    let served = metrics(&super::support::http::body(page, "/metrics"));
    let files = [include_str!("../../../grafana/bellows.json"), include_str!("../../../prometheus/alerts.yml")];
    let asked: std::collections::BTreeSet<_> = files.into_iter().flat_map(metrics).collect();
    assert!(asked.len() > 5, "the files were read: {asked:?}");
    assert_eq!(asked.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "served: {served:?}");
    bench.end();
}
