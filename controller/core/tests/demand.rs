//! Demand under faults: whatever ingresses say, and whoever falls silent, the checker holds after every step; when nobody asks any
//! more nothing runs, and whoever asks then is served. And a bug on purpose is found.

mod lab;

use bellows_core::Config;
use bellows_core::ids::{NodeId, SpecDigest};
use bellows_core::input::Request;
use bellows_core::limits::{Limits, Planted};
use bellows_core::model::spec::{AppSpec, Elastic, Policy, Port, Protocol, Route, Scale, Traffic, WhenCutOff};
use bellows_core::units::{Bytes, Millis};
use lab::{Lab, resources};
use proptest::prelude::*;

const NODES: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Hold { node: u32, held: u32 },
    InFlight { each: u32 },
    Arrive { node: u32, count: u64 },
    Disconnect { node: u32 },
    Silence { node: u32 },
    Wake { node: u32 },
    Leader,
    Run { tenths: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let node = || 1..=NODES;
    prop_oneof![
        4 => (node(), 0..40u32).prop_map(|(node, held)| Op::Hold { node, held }),
        3 => (0..8u32).prop_map(|each| Op::InFlight { each }),
        2 => (node(), 0..400u64).prop_map(|(node, count)| Op::Arrive { node, count }),
        1 => node().prop_map(|node| Op::Disconnect { node }),
        1 => node().prop_map(|node| Op::Silence { node }),
        2 => node().prop_map(|node| Op::Wake { node }),
        1 => Just(Op::Leader),
        5 => (1..40u64).prop_map(|tenths| Op::Run { tenths }),
    ]
}

fn spec() -> AppSpec {
    let policies = vec![Policy::Concurrency { target: 4 }, Policy::RequestsPerSecond { target: 50 }];
    let elastic = Elastic { min: 0, max: 12, idle_grace: Millis(3_000), spare: 0, policies, up: None, down: None };
    let route = Route {
        listen: None,
        host: "web.example".to_owned(),
        path: String::new(),
        port: 80,
        tls: false,
        max_body: None,
    };
    AppSpec {
        name: "web".to_owned(),
        tenant: "default".to_owned(),
        image: "web".to_owned(),
        image_digest: "sha256:00".to_owned(),
        command: Vec::new(),
        args: Vec::new(),
        env: Default::default(),
        resources: resources(500, 128),
        processes: 10,
        scratch: Bytes(0),
        log: Bytes(0),
        scale: Scale::Policies(elastic),
        ports: vec![Port { name: String::new(), port: 80, protocol: Protocol::Http }],
        stop_grace: Millis(1_000),
        drain_deadline: Millis(4_000),
        constraints: Vec::new(),
        spread: None,
        max_per_node: None,
        when_cut_off: WhenCutOff::KeepRunning,
        traffic: Traffic { routes: vec![route], ..Traffic::default() },
        health: Default::default(),
        isolation: Default::default(),
    }
}

fn world(planted: Planted) -> Lab {
    let limits = Limits { planted, ..Limits::default() };
    let mut lab = Lab::new(Config { limits, ..Config::default() });
    for node in 1..=NODES {
        lab.join(&format!("n{node}"), resources(4_000, 8_192), Default::default());
    }
    lab.run(Millis(1_000));
    lab.ask(Request::Apply { spec: Box::new(spec()), digest: SpecDigest::default(), expected: None });
    lab
}

fn requests(lab: &mut Lab, each: u32) {
    use bellows_core::input::Activity::{Busy, Idle};
    let mut counted = Vec::new();
    for (node, agent) in &mut lab.agents {
        for (id, copy) in &mut agent.copies {
            copy.idle_since = lab.now;
            copy.report.activity = if each == 0 { Idle { length: Millis(0) } } else { Busy { requests: each } };
            counted.push((*node, *id));
        }
    }
    counted.into_iter().for_each(|(node, id)| lab.in_flight(node, id, each));
}

fn wake(lab: &mut Lab, node: NodeId) {
    if let Some(agent) = lab.agents.get_mut(&node).filter(|agent| agent.silent) {
        agent.silent = false;
        agent.session = None;
    }
}

fn perform(lab: &mut Lab, op: &Op) {
    let app = lab.app("web");
    match *op {
        Op::Hold { node, held } => lab.hold(NodeId(node), app, held, u64::from(held)),
        Op::Arrive { node, count } => {
            let held = lab.agents[&NodeId(node)].asks.get(&app).map_or(0, |asked| asked.held);
            lab.hold(NodeId(node), app, held, count);
        }
        Op::InFlight { each } => requests(lab, each),
        Op::Disconnect { node } => lab.disconnect(NodeId(node)),
        Op::Silence { node } => {
            if let Some(agent) = lab.agents.get_mut(&NodeId(node)) {
                agent.silent = true;
            }
        }
        Op::Wake { node } => wake(lab, NodeId(node)),
        Op::Leader => lab.lead(),
        Op::Run { tenths } => lab.run(Millis(tenths * 100)),
    }
}

fn shown(lab: &Lab) -> (u32, u32) {
    let row = lab.core.view().app(lab.app("web")).expect("it is declared");
    (row.wanted, row.ready)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn nobody_is_forgotten_and_nothing_runs_for_nobody(ops in proptest::collection::vec(op(), 1..40)) {
        let mut lab = world(Planted::None);
        ops.iter().for_each(|op| perform(&mut lab, op));
        for node in 1..=NODES {
            wake(&mut lab, NodeId(node));
        }
        lab.run(Millis(15_000));
        let app = lab.app("web");
        for node in 1..=NODES {
            lab.hold(NodeId(node), app, 0, 0);
        }
        requests(&mut lab, 0);
        lab.run(Millis(20_000));
        prop_assert_eq!(shown(&lab), (0, 0), "nobody asks for it");
        lab.hold(NodeId(1), app, 1, 1);
        lab.run(Millis(1_000));
        let (wanted, ready) = shown(&lab);
        prop_assert!(wanted == 1 && ready == 1, "one request waits: {wanted} wanted, {ready} ready");
        let running = lab.running(app).len();
        prop_assert_eq!(running, 1, "one allowance or one order, never both");
    }
}

/// Copies that start are supply: one who counts only what is ready, beside what is there, starts more with every look.
#[test]
#[should_panic(expected = "invariant 17")]
fn scaling_from_the_copies_that_are_there_is_found() {
    let mut lab = world(Planted::ScaleFromObserved);
    let app = lab.app("web");
    lab.hold(NodeId(1), app, 9, 9);
    lab.run(Millis(100));
    lab.hold(NodeId(1), app, 9, 0);
    lab.run(Millis(2_000));
}
