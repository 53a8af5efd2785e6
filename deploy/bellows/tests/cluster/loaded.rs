//! Lightly loaded, for real: hosts of different sizes, on some of which real CPU and memory is burnt. Every decision is judged by the test's
//! own reckoning, from what the nodes had reported and what had been placed before.

use std::collections::BTreeMap;
use std::time::Instant;

use super::support::burn::{Burn, memory_bytes};
use super::support::local::Local;
use super::support::machine;
use super::*;

/// What one copy declares.
const COPY_CPU_MILLI: u64 = 10;
const COPY_BYTES: u64 = 8 << 20;

/// The bar: ten points of a hundred.
const BAR_PERMILLE: u64 = 100;
/// Within one step of load nodes are equals.
const STEP_PERMILLE: u64 = 50;
/// Two heartbeats. (Late is a node after two and a half.)
const LATE_MS: u64 = 2_000;
/// For so long a copy counts as declared, whatever it uses; and a heartbeat until the leader knows its age.
const WINDOW_MS: u64 = 5_000 + 2_000;

const HOSTS: [&str; 5] = [
    "big:cpu=2,memory=2GiB",
    "small:cpu=1,memory=1GiB",
    "full:cpu=2,memory=1GiB",
    "busy:cpu=1,memory=2GiB",
    "half:cpu=1,memory=1GiB",
];

/// A node as it last reported itself.
#[derive(Debug, Clone, Copy)]
struct Reading {
    cpu_milli: u64,
    memory_bytes: u64,
    cpu_capacity: u64,
    memory_capacity: u64,
    cpu_declared: u64,
    memory_declared: u64,
    /// It speaks in time: a node that does not is ranked behind the others, whatever its load.
    steady: bool,
}

impl Reading {
    fn of(row: &Value) -> Self {
        let number = |of: &str, what: &str| row[of][what].as_u64().unwrap_or_else(|| panic!("no {of}.{what} in {row}"));
        Self {
            cpu_milli: number("used", "cpu_milli"),
            memory_bytes: number("used", "memory_bytes"),
            cpu_capacity: number("capacity", "cpu_milli"),
            memory_capacity: number("capacity", "memory_bytes"),
            cpu_declared: number("declared", "cpu_milli"),
            memory_declared: number("declared", "memory_bytes"),
            steady: row["liveness"] == "up" && row["load_age_ms"].as_u64() < Some(LATE_MS),
        }
    }

    /// Use / capacity in the fuller dimension, with so many more copies.
    fn load(&self, copies: u64) -> u64 {
        let cpu = (self.cpu_milli + copies * COPY_CPU_MILLI) * 1_000 / self.cpu_capacity;
        let memory = (self.memory_bytes + copies * COPY_BYTES) * 1_000 / self.memory_capacity;
        cpu.max(memory)
    }

    /// Could one more go there?
    fn takes(&self, copies: u64) -> bool {
        self.steady
            && self.cpu_declared + (copies + 1) * COPY_CPU_MILLI <= self.cpu_capacity
            && self.memory_declared + (copies + 1) * COPY_BYTES <= self.memory_capacity
    }
}

type Readings = BTreeMap<String, Reading>;

/// A node that was lost once counts as unsteady from then on: for a while it is ranked behind the others.
fn readings(local: &Local) -> Readings {
    let events = local.cli.json_lines(&["events"]);
    let lost = |row: &Value| events.iter().any(|event| event["kind"] == "node_lost" && event["node"] == row["node"]);
    let read = |row: &Value| {
        let reading = Reading::of(row);
        (field(row, "node"), Reading { steady: reading.steady && !lost(row), ..reading })
    };
    local.cli.rows(&["nodes"]).iter().map(read).collect()
}

/// Looks until the answer is yes: a heartbeat makes no event that could be waited for.
fn until(local: &Local, what: &str, ask: impl Fn(&Readings) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let readings = readings(local);
        if ask(&readings) {
            return;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}: {readings:#?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// A decision as its reason tells it.
#[derive(Debug)]
struct Decision {
    copy: u64,
    node: String,
    load: u64,
    age: String,
}

impl Decision {
    /// `...; NODE had load 12‰ (read 391 ms ago) ...`.
    fn of(row: &Value) -> Self {
        let text = field(&row["reason"], "text");
        let parsed = || {
            let (_, rest) = text.split_once(" had load ")?;
            let (load, rest) = rest.split_once("‰ (read ")?;
            Some((load.parse().ok()?, rest.split_once(" ago)")?.0.to_owned()))
        };
        let (load, age) = parsed().unwrap_or_else(|| panic!("no load in the reason: {row}"));
        let copy = field(row, "id").rsplit('-').next().and_then(|counter| counter.parse().ok());
        Self { copy: copy.expect("ids end with a counter"), node: field(row, "node"), load, age }
    }
}

/// Wants so many more copies, waits for them, and gives back how each was decided, in this order, with what the nodes had reported just
/// before and just after.
fn decisions(local: &Local, copies: u32) -> (Vec<Decision>, [Readings; 2]) {
    let known: BTreeSet<String> = distinct(&local.cli.replicas("web"), "id");
    let before = readings(local);
    local.cli.json(&["scale", "web", &copies.to_string()]);
    let after = readings(local);
    local.cli.json(&["scale", "web", &copies.to_string(), "--wait"]);
    let rows = local.cli.replicas("web");
    assert_eq!((rows.len(), ready(&rows)), (copies as usize, copies as usize));
    let fresh = rows.iter().filter(|row| !known.contains(&field(row, "id")));
    let mut decisions: Vec<Decision> = fresh.map(Decision::of).collect();
    decisions.sort_by_key(|decision| decision.copy);
    (decisions, [before, after])
}

/// No copy landed on a node loaded more than the bar above another that could take it. Where a node reported again in the meantime, either
/// reading may have been the one that counted. How many landed where?
fn judge(decisions: &[Decision], [before, after]: &[Readings; 2]) -> BTreeMap<String, u64> {
    let mut placed: BTreeMap<String, u64> = before.keys().map(|node| (node.clone(), 0)).collect();
    for decision in decisions {
        let loads = |node: &str| [before, after].map(|readings| readings[node].load(placed[node]));
        let [one, other] = loads(&decision.node);
        let said = decision.load;
        let slack = 5; // copies started before count with what they use beyond what they declare
        assert!(said + slack >= one.min(other), "the load it saw was not so low: {one}, {other}: {decision:?}");
        for (node, reading) in before.iter().filter(|(node, _)| **node != decision.node) {
            let [one, other] = loads(node);
            let could = reading.takes(placed[node]) && after[node].takes(placed[node]);
            let lighter = one.max(other) + BAR_PERMILLE < said;
            assert!(!(could && lighter), "{node} had {one} or {other} and {placed:?}, but: {decision:?}");
        }
        *placed.get_mut(&decision.node).expect("every node reports") += 1;
    }
    placed
}

/// All decisions at a node rested on one reading: they fell within one heartbeat.
fn one_heartbeat(decisions: &[Decision]) {
    let mut ages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for decision in decisions {
        ages.entry(&decision.node).or_default().insert(&decision.age);
    }
    assert!(ages.values().all(|ages| ages.len() == 1), "{ages:?}");
}

#[test]
fn copies_land_on_lightly_loaded_nodes() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = steady_cluster();
    equal_nodes_share(&local);
    let burns = [Burn::memory(&local, "full", 600), Burn::memory(&local, "half", 200), Burn::cpu(&local, "busy", 400)];
    a_burst_fills_the_valleys(&local);
    drop(burns);
    load_that_moves_is_followed(&local);
    local.down();
}

/// Where the machine stood still for seconds while it came up, nodes were lost, and rank behind others for longer than anybody waits here: then
/// there is another one.
fn steady_cluster() -> Local {
    let hosts: Vec<&str> = HOSTS.iter().flat_map(|host| ["--host", host]).collect();
    for _try in 0..3 {
        let local = Local::up(&hosts);
        let work = tempfile::tempdir().expect("a temporary folder");
        let layout = images::busybox(work.path());
        local.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
        let yaml = "name: web\nimage: busybox\ncommand: [sleep, \"100000\"]\nreplicas: 0\n\
            resources: {cpu: 10m, memory: 8Mi, processes: 16, scratch: 1Mi, log: 64Ki}\n";
        local.cli.apply(yaml, &["--wait"]);
        let was_lost = || local.cli.json_lines(&["events"]).iter().any(|event| event["kind"] == "node_lost");
        until(&local, "no node has any load, or one was lost", |readings| calm(readings) || was_lost());
        if !was_lost() {
            return local;
        }
        local.down();
    }
    panic!("nodes are lost again and again");
}

fn calm(readings: &Readings) -> bool {
    readings.values().all(|reading| reading.steady && reading.load(0) < STEP_PERMILLE - 20)
}

/// Within one step of load nodes are equals, and equals share. What a start costs may show in a reading: then they were not equal, and it is
/// tried again.
fn equal_nodes_share(local: &Local) {
    for _try in 0..5 {
        until(local, "no node has any load", calm);
        let (decisions, readings) = decisions(local, 10);
        let placed = judge(&decisions, &readings);
        local.cli.json(&["scale", "web", "0", "--wait"]);
        if readings.iter().all(calm) {
            assert_eq!(placed.values().copied().collect::<Vec<_>>(), [2; 5], "{placed:?}: {decisions:#?}");
            return;
        }
    }
    panic!("the nodes are never without load");
}

/// Two hundred at once: those that are loaded get none until the others are as loaded. What is reported is what the kernel counts.
fn a_burst_fills_the_valleys(local: &Local) {
    until(local, "what is burnt shows in the loads", |readings| {
        let load = |node: &str| readings[node].load(0);
        let burnt = load("full") > 580 && load("half") > 180 && load("busy") > 250;
        let counted = |host: &str| memory_bytes(local, host).abs_diff(readings[host].memory_bytes) < 8 << 20;
        burnt && load("big") < STEP_PERMILLE && load("small") < STEP_PERMILLE && counted("full") && counted("half")
    });
    let (decisions, readings) = decisions(local, 200);
    assert_eq!(decisions.len(), 200);
    one_heartbeat(&decisions);
    let placed = judge(&decisions, &readings);
    assert!(placed["big"] > placed["busy"] && placed["small"] > placed["half"] && placed["full"] == 0, "{placed:?}");
}

/// What was light is heavy now: single copies and small bursts go elsewhere.
fn load_that_moves_is_followed(local: &Local) {
    local.cli.json(&["scale", "web", "20", "--wait"]);
    let _burn = Burn::cpu(local, "small", 400);
    until(local, "the load has moved", |readings| {
        let load = |node: &str| readings[node].load(0);
        let old = |row: &Value| row["running_ms"].as_u64() > Some(WINDOW_MS);
        load("small") > 250
            && ["big", "full", "busy", "half"].iter().all(|node| load(node) < 2 * STEP_PERMILLE)
            && local.cli.replicas("web").iter().all(old)
    });
    for copies in [21, 22, 23, 40] {
        let (decisions, readings) = decisions(local, copies);
        let placed = judge(&decisions, &readings);
        assert_eq!(placed["small"], 0, "{placed:?}");
    }
}

/// The judge itself is judged: decisions that it must refuse.
mod judged {
    use super::*;

    fn reading(cpu_milli: u64) -> Reading {
        let (cpu_capacity, memory_capacity) = (1_000, 1 << 30);
        Reading {
            cpu_milli,
            memory_bytes: 0,
            cpu_capacity,
            memory_capacity,
            cpu_declared: 0,
            memory_declared: 0,
            steady: true,
        }
    }

    fn judge_one(node: &str, load: u64, light: Reading) -> u64 {
        let readings = Readings::from([("heavy".to_owned(), reading(400)), ("light".to_owned(), light)]);
        let decision = Decision { copy: 1, node: node.to_owned(), load, age: "1 ms".to_owned() };
        judge(&[decision], &[readings.clone(), readings])[node]
    }

    #[test]
    fn the_lighter_node_is_right_and_the_heavier_when_the_lighter_is_full() {
        assert_eq!(judge_one("light", 100, reading(100)), 1);
        assert_eq!(judge_one("heavy", 400, Reading { cpu_declared: 1_000, ..reading(100) }), 1);
        assert_eq!(judge_one("heavy", 400, reading(300)), 1, "ten points are allowed");
    }

    #[test]
    #[should_panic(expected = "light had 299")]
    fn a_planted_copy_on_the_heavier_node_is_found() {
        judge_one("heavy", 400, reading(299));
    }

    #[test]
    #[should_panic(expected = "the load it saw was not so low")]
    fn a_planted_lie_about_the_load_is_found() {
        judge_one("heavy", 150, reading(100));
    }
}
