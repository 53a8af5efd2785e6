//! Whole clusters: the real executable, real containers, requests from the host. Root only; each test prints why it skips.

mod support;

mod bench;
mod copy;
mod debian;
mod demo;
mod exec;
mod failures;
mod health;
mod kill;
mod life;
mod loaded;
mod local;
mod logs;
mod parked;
mod scaling;
mod traffic;
mod why;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use support::census::Census;
use support::cli::field;
use support::dev::Dev;
use support::images;

/// Reached only when something hangs or is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with busybox loaded, its folder, and a folder for the rest.
struct Bench {
    dev: Dev,
    state: tempfile::TempDir,
}

fn with_busybox(more: &[&str]) -> Bench {
    let state = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(state.path(), more);
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = images::busybox(work.path());
    dev.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
    Bench { dev, state }
}

impl Bench {
    fn census(&self) -> Census {
        Census::of(self.state.path(), &self.dev.range)
    }

    /// Ctrl-C, and then nothing of it is on the machine.
    fn end(mut self) {
        let before = self.census();
        let seen = [before.processes.is_empty(), before.cgroups.is_empty(), before.links.is_empty()];
        assert_eq!(seen, [false; 3], "the census sees what runs: {before:#?}");
        let status = self.dev.interrupt();
        assert!(status.success(), "`bellows dev` ended with {status}");
        let left = Census::when_empty(self.state.path(), &self.dev.range, Duration::from_secs(30));
        assert!(left.is_empty(), "left behind after 30 s: {left:#?}");
    }
}

/// An app whose copies do nothing, quickly.
fn sleeper(name: &str, replicas: u32) -> String {
    app(name, "[sleep, \"100000\"]", &format!("replicas: {replicas}"))
}

fn app(name: &str, command: &str, more: &str) -> String {
    format!(
        "name: {name}\nimage: busybox\ncommand: {command}\nresources: {{cpu: 20m, memory: 16Mi, processes: 16, scratch: 1Mi, log: 64Ki}}\n{more}\n"
    )
}

fn ready(rows: &[Value]) -> usize {
    rows.iter().filter(|row| row["ready"] == Value::Bool(true)).count()
}

fn distinct(rows: &[Value], name: &str) -> BTreeSet<String> {
    rows.iter().map(|row| field(row, name)).collect()
}

fn address(row: &Value, port: u16) -> SocketAddr {
    let text = field(row, "address");
    let ip: IpAddr = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    SocketAddr::new(ip, port)
}

/// Codes of the reasons of these events.
fn codes(events: &[Value]) -> BTreeSet<String> {
    events.iter().filter_map(|event| Some(event["reason"]["code"].as_str()?.to_owned())).collect()
}
