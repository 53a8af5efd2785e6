//! How fast the planner places, in CPU time of one thread. `cargo run --release -p bellows-core --example place [nodes]`

use std::time::Duration;

use bellows_core::check::check;
use bellows_core::effect::Effect;
use bellows_core::ids::{NodeId, SessionId};
use bellows_core::input::{Input, Lifecycle, NodeUse, ReplicaReport, Report};
use bellows_core::plan::workload::{BEGIN, Rule, Workload};
use bellows_core::units::{CpuMilli, Millis, Resources};
use bellows_core::{Config, Core};

fn main() {
    let nodes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let plain = Workload { nodes, apps: 1, requests: 1, copies: 100_000, rule: Rule::Plain };
    for rule in [Rule::Plain, Rule::Zones, Rule::PerNode(100)] {
        measure("one request", Workload { rule, ..plain }, false);
        measure(
            "10 copies each, 1000 apps",
            Workload { apps: 1_000, requests: 10_000, copies: 10, rule, ..plain },
            false,
        );
        measure(
            "one copy each, 1000 apps",
            Workload { apps: 1_000, requests: 100_000, copies: 1, rule, ..plain },
            false,
        );
    }
    measure("one copy each, heartbeats", Workload { apps: 1_000, requests: 100_000, copies: 1, ..plain }, true);
    measure("one copy each, one app", Workload { requests: 100_000, copies: 1, ..plain }, false);
}

fn measure(name: &str, work: Workload, heartbeats: bool) {
    if std::env::args().nth(2).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let mut core = Core::new(Config::default());
    for input in work.setup() {
        core.step(BEGIN, input);
    }
    // One heartbeat per node and second of virtual time, the requests in one second.
    let per_request = if heartbeats { work.nodes.div_ceil(work.requests / 10) } else { 0 };
    let (mut orders, mut beats, mut beating) = (0, 0u32, Duration::ZERO);
    let requests: Vec<_> = work.requests().collect();
    let resident = resident_bytes();
    let began = cpu_time();
    for (at, input) in requests.into_iter().enumerate() {
        let now = BEGIN + Millis(at as u64 * 1_000 / u64::from(work.requests));
        orders += count(&core.step(now, input));
        if per_request > 0 && at % 10 == 0 {
            let from = cpu_time();
            for _ in 0..per_request {
                beats += 1;
                let node = beats % work.nodes + 1;
                core.step(now, Workload::heartbeat(node, CpuMilli(u64::from(beats * 37 % 3_000))));
            }
            beating += cpu_time() - from;
        }
    }
    let took = cpu_time() - began - beating;
    let rate = orders as f64 / took.as_secs_f64();
    let per_copy = resident_bytes().saturating_sub(resident) / orders.max(1) as u64;
    let whole = whole_heartbeats(&mut core, work.nodes);
    let broken = check(&core);
    println!(
        "{name:28} {:>10} nodes {:6} placed {orders:6} in {:7.1} ms: {rate:9.0}/s; heartbeats {beats} at {:.2} us; {per_copy} bytes a copy; whole heartbeat {:.2} us; {} violations",
        format!("{:?}", work.rule),
        work.nodes,
        took.as_secs_f64() * 1e3,
        if beats > 0 { beating.as_secs_f64() * 1e6 / f64::from(beats) } else { 0.0 },
        whole.as_secs_f64() * 1e6 / f64::from(work.nodes),
        broken.len()
    );
    broken.iter().take(3).for_each(|violation| println!("    {violation}"));
}

/// A heartbeat of every node that names all its copies, as agents send them: the second round, when nothing is new any more.
fn whole_heartbeats(core: &mut Core, nodes: u32) -> Duration {
    let mut took = Duration::ZERO;
    for round in 1..=2 {
        let now = BEGIN + Millis(1_000 * round);
        let reports: Vec<Input> = (1..=nodes).map(|node| whole(core, NodeId(node), round)).collect();
        let began = cpu_time();
        for report in reports {
            core.step(now, report);
        }
        took = cpu_time() - began;
    }
    took
}

fn whole(core: &Core, node: NodeId, round: u64) -> Input {
    let world = core.world().expect("it leads");
    let seen = world.node(node).expect("it joined");
    let replicas = seen.replicas.values().map(|slot| {
        let copy = world.replicas.at(*slot);
        let (id, app, revision, digest, resources) = (copy.id, copy.app, copy.revision, copy.digest, copy.resources);
        let (lifecycle, ready, attempt) = (Lifecycle::Running, true, 1);
        let used = Resources { cpu: CpuMilli(10 + round), ..Default::default() };
        let address = "10.1.2.3".to_owned();
        ReplicaReport {
            id,
            app,
            revision,
            digest,
            resources,
            lifecycle,
            ready,
            attempt,
            used,
            address,
            ..Default::default()
        }
    });
    let load = Some(NodeUse { used: Resources { cpu: CpuMilli(100), ..Default::default() }, ..Default::default() });
    let acknowledged = seen.session.as_ref().map(|session| session.sent).unwrap_or_default();
    let report = Report { acknowledged, load, replicas: replicas.collect(), refused: Vec::new() };
    Input::Report { node, session: SessionId(u64::from(node.0)), report }
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.expect("the second field is a number") * 4_096
}

/// What this thread had of a CPU: neighbours on the machine do not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let first = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(first.expect("the first field is a number"))
}

fn count(effects: &[Effect]) -> usize {
    effects.iter().map(|effect| if let Effect::Orders { orders, .. } = effect { orders.len() } else { 0 }).sum()
}
