//! The main job: copies appear when more are wanted and go when fewer are.

use super::support::cli::field;
use super::support::{events::Events, http, machine};
use super::*;

const HTTPD: &str = "[httpd, -f, -p, \"8080\", -h, /www]";

#[test]
fn twenty_copies_serve_at_addresses_of_their_own_and_go_again() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "3"]);
    let cli = &bench.dev.cli;
    cli.apply(&app("web", HTTPD, "replicas: 0\nports: [8080]"), &["--wait"]);
    cli.json(&["scale", "web", "20", "--wait"]);
    let replicas = cli.replicas("web");
    assert_eq!((replicas.len(), ready(&replicas)), (20, 20), "{replicas:#?}");
    assert_eq!(distinct(&replicas, "node").len(), 3, "spread over all nodes: {replicas:#?}");
    assert_eq!(distinct(&replicas, "address").len(), 20, "{replicas:#?}");
    for replica in &replicas {
        assert_eq!(http::body(address(replica, 8080), "/"), "busybox serves\n");
        assert!(!field(&replica["reason"], "text").is_empty(), "every replica says why it is where it is: {replica}");
    }
    assert_eq!(serving(&bench), 20);
    cli.json(&["scale", "web", "1", "--wait"]);
    assert_eq!(serving(&bench), 1, "the processes of the others are gone when the verb returns");
    assert_eq!(ready(&cli.replicas("web")), 1);
    explained(cli);
    bench.end();
}

/// Containers with a process that executes httpd, seen from outside: by their PID namespaces, as httpd has a process of its own for each
/// request, which may outlive the answer.
fn serving(bench: &Bench) -> usize {
    let processes = bench.census().processes;
    let httpd = processes.iter().filter(|process| process.contains(" httpd -f "));
    let namespace = |process: &String| fs::read_link(format!("/proc/{}/ns/pid", process.split(' ').next()?)).ok();
    httpd.filter_map(namespace).collect::<BTreeSet<_>>().len()
}

/// Both the events and the explanation tell why.
fn explained(cli: &super::support::cli::Cli) {
    let told = cli.json(&["explain", "web"]).to_string();
    assert!(told.contains("web") && told.contains('?'), "{told}");
    let mut events = Events::follow(cli);
    events.until("events with reasons", PATIENCE, |told| (codes(told).len() >= 2).then_some(()));
}

#[test]
fn nginx_of_debian_serves_its_page() {
    let Some(_machine) = machine(&["nginx", "umoci"]) else { return };
    let state = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(state.path(), &["--nodes", "1"]);
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = images::nginx(work.path());
    dev.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "nginx"]);
    let yaml = "name: web\nimage: nginx\ncommand: [/usr/sbin/nginx]\nports: [80]\nreplicas: 2\n";
    dev.cli.apply(yaml, &["--wait"]);
    let replicas = dev.cli.replicas("web");
    assert_eq!(ready(&replicas), 2, "{replicas:#?}");
    for replica in &replicas {
        assert!(http::body(address(replica, 80), "/").contains("Welcome to nginx"));
    }
    Bench { dev, state }.end();
}
