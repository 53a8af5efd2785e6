//! Under load an agent is killed, then the controller, then a node is cut off: what is not in the hands of whoever went is served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::super::support::local::Local;
use super::super::support::parts::{Part, Parts};
use super::super::support::{http, machine};
use super::super::{PATIENCE, images, ready};
use super::*;

/// Who ask at once, each one request after the other.
const ASKERS: usize = 8;

/// A request takes as long: some are under way at any moment.
const APP: &str = "name: web\nimage: busybox\ncommand: [/bin/httpd, -f, -p, \"8080\", -h, /www]\nreplicas: 4\n\
    resources: {cpu: 100m, memory: 32MiB}\nspread: {by: node, max_skew: 1, when_full: refuse}\nconcurrency: {target: 1}\n\
    ports: [{name: web, port: 8080, protocol: http}]\nroutes: [{to: web}]\n";

/// Requests to one door until it is ended.
struct Load {
    stop: std::sync::Arc<AtomicBool>,
    askers: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    fn begin(door: SocketAddr) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let ask = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || ask_on(door, &stop))
        };
        Self { askers: (0..ASKERS).map(ask).collect(), stop }
    }

    /// How many were served, and what was wrong with the others.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Release);
        let asked = self.askers.into_iter().map(|asker| asker.join().expect("it only counts"));
        asked.fold((0, Vec::new()), |(served, mut failed), (more, wrong)| {
            failed.extend(wrong);
            (served + more, failed)
        })
    }
}

fn ask_on(door: SocketAddr, stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut served, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Acquire) {
        match http::get(door, "/") {
            Ok(answer) if answer.contains(" 200 ") && answer.ends_with("busybox serves\n") => served += 1,
            other => failed.push(format!("{other:?}")),
        }
    }
    (served, failed)
}

fn with_web() -> Parts {
    let parts = Parts::start(2);
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = images::busybox(work.path());
    parts.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
    parts.cli.apply(APP, &["--wait"]);
    served(parts.doors[0]);
    served(parts.doors[1]);
    parts
}

/// Until a door serves: it opens a moment after the app is declared, or its agent has joined again.
fn served(door: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while !http::get(door, "/").is_ok_and(|answer| answer.ends_with("busybox serves\n")) {
        assert!(Instant::now() < until, "{door} serves nobody");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// So much load passes.
fn go_on(length: Duration) {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

fn end(parts: Parts) {
    parts.cli.json(&["rm", "web", "--wait"]);
    parts.end();
}

/// Nobody's request is lost but those in its hands; its copies go on under the next one.
#[test]
fn a_killed_agent_fails_only_what_is_in_its_hands() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = with_web();
    let copies = parts.copies();
    let load = Load::begin(parts.doors[0]);
    go_on(Duration::from_secs(1));
    parts.agents[1].kill();
    go_on(Duration::from_secs(1));
    assert!(parts.agents[1].restart());
    parts.agents[1].await_line();
    served(parts.doors[1]);
    go_on(Duration::from_secs(1));
    let (served, failed) = load.end();
    println!("agent killed: {served} served, {} failed", failed.len());
    assert!(served > 100 && failed.len() <= ASKERS, "{served} served, {} failed: {failed:#?}", failed.len());
    assert_eq!(parts.copies().programs, copies.programs, "the same processes as before");
    assert_eq!(ready(&parts.cli.replicas("web")), 4);
    end(parts);
}

/// Routes are known where requests are: nobody notices.
#[test]
fn a_killed_controller_fails_no_request() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = with_web();
    let loads = [0, 1].map(|node| Load::begin(parts.doors[node]));
    go_on(Duration::from_secs(1));
    parts.controller.kill();
    go_on(Duration::from_secs(2));
    assert!(parts.controller.restart());
    Part::await_line(&mut parts.controller);
    go_on(Duration::from_secs(2));
    for load in loads {
        let (served, failed) = load.end();
        println!("controller killed: {served} served, {} failed", failed.len());
        assert!(served > 100 && failed.is_empty(), "{served} served: {failed:#?}");
    }
    end(parts);
}

/// An ingress that the leader cannot reach serves by what it knows, from its own copies and from those of other nodes.
#[test]
fn a_node_that_is_cut_off_serves_on() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = Local::up(&["--agents", "2"]);
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = images::busybox(work.path());
    local.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
    local.cli.apply(APP, &["--wait"]);
    let script = "n=0; until busybox wget -q -O - http://127.0.0.1:8080/; do n=$((n+1)); [ $n -lt 200 ] || exit 1; busybox sleep 0.05; done";
    let first = local.exec("n1", &["busybox", "sh", "-c", script]);
    assert!(first.status.success(), "{first:?}");
    local.json("cut", &["n1", "m1"]);
    let script = "for n in $(busybox seq 100); do busybox wget -q -O - http://127.0.0.1:8080/ || exit 1; busybox sleep 0.07; done";
    let during = local.exec("n1", &["busybox", "sh", "-c", script]);
    assert!(during.status.success(), "{during:?}");
    assert_eq!(during.stdout, b"busybox serves\n".repeat(100), "seven seconds, in which the leader takes it for lost");
    local.json("heal", &[]);
    local.cli.json(&["rm", "web", "--wait"]);
    local.down();
}
