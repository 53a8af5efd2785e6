//! A naive second opinion on every placement: all nodes are looked at, filters and ranking written anew. The planner's choice must be
//! among the best, and where it placed nothing, nothing fits.

use std::collections::BTreeMap;

use bellows_core::check::check;
use bellows_core::effect::{Action, Effect};
use bellows_core::ids::{AppId, LogIndex, NodeId, OrderSequence, ReplicaId, SessionId, SpecDigest};
use bellows_core::input::{Input, NodeFacts, NodeUse, Report};
use bellows_core::model::command::{Change, Command, NodeState};
use bellows_core::model::spec::{AppSpec, Constraint, ConstraintOperator, Scale, Spread, WhenCutOff, WhenFull};
use bellows_core::observe::node::Liveness;
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Resources};
use bellows_core::{Config, Core};
use proptest::prelude::*;

/// A node as the second opinion sees it.
struct Seen {
    serves: bool,
    lost: bool,
    labels: BTreeMap<String, String>,
    capacity: Resources,
    declared: Resources,
    used: Resources,
    distrust: u32,
    copies: u32,
}

fn look(core: &Core, app: AppId) -> BTreeMap<NodeId, Seen> {
    let world = core.world().expect("it leads");
    let now = core.now();
    let mut nodes = BTreeMap::new();
    for (id, node) in world.nodes() {
        let state = core.model().nodes.get(&id).map(|known| known.state);
        let bad = world.apps.get(&app).and_then(|seen| seen.backoff.distrusted.get(&id));
        let crashes = bad.filter(|(_, until)| now < *until).map_or(0, |(level, _)| *level);
        let copies = world.replicas.iter().filter(|copy| copy.app == app && copy.node == id).count() as u32;
        let declared = world.replicas.iter().filter(|copy| copy.node == id);
        nodes.insert(
            id,
            Seen {
                serves: state == Some(NodeState::Active) && node.liveness == Liveness::Up,
                lost: node.liveness == Liveness::Lost,
                labels: node.facts.labels.clone(),
                capacity: node.facts.capacity,
                declared: declared.fold(Resources::default(), |sum, copy| sum + copy.resources),
                used: node.measured.used + node.unmeasured,
                distrust: node.flaps.0 + u32::from(node.late) + crashes,
                copies,
            },
        );
    }
    nodes
}

/// Smaller is better; `None` when it may not. Without the draw: equals are equal.
fn rank(nodes: &BTreeMap<NodeId, Seen>, id: NodeId, spec: &AppSpec) -> Option<(u32, u32, u64, u32)> {
    let node = &nodes[&id];
    let meets = |node: &Seen| {
        node.serves
            && spec
                .constraints
                .iter()
                .all(|one| node.labels.get(&one.label).is_some_and(|value| one.values.contains(value)))
    };
    let left = Resources {
        cpu: CpuMilli(node.capacity.cpu.0.saturating_sub(node.declared.cpu.0)),
        memory: Bytes(node.capacity.memory.0.saturating_sub(node.declared.memory.0)),
    };
    let fits = spec.resources.cpu.0 <= left.cpu.0 && spec.resources.memory.0 <= left.memory.0;
    if !meets(node) || !fits || spec.max_per_node.is_some_and(|most| node.copies >= most) {
        return None;
    }
    let mut skew = 0;
    if let Some(spread) = &spec.spread {
        let part = |id: NodeId, node: &Seen| {
            if spread.by == "node" { Some(id.to_string()) } else { node.labels.get(&spread.by).cloned() }
        };
        let count = |value: &str| -> u32 {
            let there = nodes.iter().filter(|(id, node)| !node.lost && part(**id, node).as_deref() == Some(value));
            there.map(|(_, node)| node.copies).sum()
        };
        let open = nodes.iter().filter(|(_, node)| meets(node)).filter_map(|(id, node)| part(*id, node));
        let floor = open.map(|value| count(&value)).min().unwrap_or(0);
        skew = part(id, node).map_or(u32::MAX, |value| (count(&value) + 1).saturating_sub(floor + spread.max_skew));
        if skew > 0 && spread.when_full == WhenFull::Refuse {
            return None;
        }
    }
    let share = |used: u64, of: u64| (used * 1_000).checked_div(of).unwrap_or(1_000);
    let load = share(node.used.cpu.0, node.capacity.cpu.0).max(share(node.used.memory.0, node.capacity.memory.0));
    Some((skew, node.distrust, load / 50, node.copies))
}

#[derive(Clone, Debug)]
enum Op {
    Scale { app: u32, more: u32 },
    Beat { node: u32, cpu: u64 },
    State { node: u32, cordoned: bool },
    Drop { node: u32 },
    Refuse { node: u32 },
    Wait { tenths: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..=6u32, 1..5u32).prop_map(|(app, more)| Op::Scale { app, more }),
        2 => (1..=6u32, 60..160u32).prop_map(|(app, more)| Op::Scale { app, more }),
        6 => (1..=40u32, 0..4_000u64).prop_map(|(node, cpu)| Op::Beat { node, cpu }),
        1 => (1..=40u32, any::<bool>()).prop_map(|(node, cordoned)| Op::State { node, cordoned }),
        1 => (1..=40u32).prop_map(|node| Op::Drop { node }),
        1 => (1..=40u32).prop_map(|node| Op::Refuse { node }),
        1 => (1..30u64).prop_map(|tenths| Op::Wait { tenths }),
    ]
}

struct Trial {
    core: Core,
    now: Instant,
    index: u64,
    counts: BTreeMap<u32, u32>,
    judged: usize,
}

impl Trial {
    fn commit(&mut self, change: Change) -> Vec<Effect> {
        self.index += 1;
        let command = Command { at: self.now, by: "test".to_owned(), key: String::new(), change };
        self.core.step(self.now, Input::Committed { index: LogIndex(self.index), token: None, command })
    }

    fn begin(nodes: u32, seed: u64) -> Self {
        let core = Core::new(Config { seed, ..Config::default() });
        let mut trial = Self { core, now: Instant(1_000_000), index: 0, counts: BTreeMap::new(), judged: 0 };
        trial.commit(Change::FoundCluster { cluster: "trial".to_owned(), incarnation: 1 });
        trial.core.step(trial.now, Input::BecameLeader { term: 1 });
        for node in 1..=nodes {
            let labels = labels(node);
            let machine = format!("m{node}");
            trial.commit(Change::JoinNode {
                name: format!("n{node}"),
                machine: machine.clone(),
                labels: labels.clone(),
            });
            let (id, session) = (NodeId(node), SessionId(u64::from(node)));
            trial.core.step(trial.now, Input::Connecting { node: id, session, machine, fence: Default::default() });
            let cpu = CpuMilli(2_000 + u64::from(node % 4) * 2_000);
            let facts = NodeFacts { capacity: Resources { cpu, memory: Bytes(4 << 30) }, labels, ..Default::default() };
            trial.core.step(trial.now, Input::Hello { node: id, session, facts, inventory: Vec::new() });
        }
        for app in 1..=6 {
            let change = Change::ApplyApp { spec: Box::new(spec(app)), digest: SpecDigest::default(), expected: None };
            trial.commit(change);
        }
        trial
    }

    fn perform(&mut self, op: &Op, nodes: u32) {
        let within = |node: u32| NodeId(node % nodes + 1);
        match *op {
            Op::Scale { app, more } => self.scale(app, more),
            Op::Wait { tenths } => {
                self.now = self.now + Millis(tenths * 100);
                self.core.step(self.now, Input::Tick);
            }
            Op::State { node, cordoned } => {
                let state = if cordoned { NodeState::Cordoned } else { NodeState::Active };
                let effects = self.commit(Change::SetNodeState { node: within(node), state });
                assert!(starts(&effects).is_empty() || !cordoned, "a cordon starts nothing");
            }
            Op::Beat { node, cpu } => {
                let used = Resources { cpu: CpuMilli(cpu), memory: Bytes(0) };
                self.report(within(node), Some(NodeUse { used, age: Millis(0), pressure: None }));
            }
            Op::Refuse { node } => self.report(within(node), None),
            Op::Drop { node } => {
                let (node, session) = (within(node), SessionId(u64::from(within(node).0)));
                self.core.step(self.now, Input::Disconnected { node, session });
            }
        }
        let broken = check(&self.core);
        assert!(broken.is_empty(), "after {op:?}: {}", broken[0]);
    }

    /// Nothing is acknowledged, so that every reservation stays.
    fn report(&mut self, node: NodeId, load: Option<NodeUse>) {
        let report = Report { acknowledged: OrderSequence(0), load, ..Report::default() };
        self.core.step(self.now, Input::Report { node, session: SessionId(u64::from(node.0)), report });
    }

    fn scale(&mut self, app: u32, more: u32) {
        let id = AppId(app);
        // What waits already is tried again whenever room appears; only fresh demand is judged here.
        let mut nodes = look(&self.core, id);
        let spec = spec(app);
        let count = self.counts.entry(app).or_default();
        *count += more;
        let replicas = *count;
        let change =
            Change::ScaleApp { tenant: "default".to_owned(), name: spec.name.clone(), replicas, expected: None };
        let effects = self.commit(change);
        let starts = starts(&effects);
        for (node, _) in starts.iter().filter(|(_, (app, _))| *app == id).map(|(_, start)| (start.1, ())) {
            let chosen = rank(&nodes, node, &spec);
            let best = nodes.keys().filter_map(|other| rank(&nodes, *other, &spec)).min();
            assert!(chosen.is_some(), "app{app} was placed on {node}, which may not take it");
            assert_eq!(chosen, best, "app{app} was placed on {node}, which is not among the best");
            self.judged += 1;
            let there = nodes.get_mut(&node).expect("orders go to known nodes");
            there.copies += 1;
            there.declared += spec.resources;
            there.used += spec.resources;
        }
        let supply = self.core.world().map_or(0, |world| world.replicas.iter().filter(|copy| copy.app == id).count());
        let fits = nodes.keys().find(|node| rank(&nodes, **node, &spec).is_some());
        assert!(supply >= replicas as usize || fits.is_none(), "app{app} lacks copies, and {fits:?} would take one");
    }
}

fn starts(effects: &[Effect]) -> BTreeMap<ReplicaId, (AppId, NodeId)> {
    let mut found = BTreeMap::new();
    for effect in effects {
        let Effect::Orders { node, orders, .. } = effect else { continue };
        for order in orders {
            if let Action::Start { app, .. } = order.action {
                found.insert(order.replica, (app, *node));
            }
        }
    }
    found
}

fn labels(node: u32) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if !node.is_multiple_of(7) {
        labels.insert("zone".to_owned(), format!("z{}", node % 3));
    }
    if node.is_multiple_of(2) {
        labels.insert("disk".to_owned(), "ssd".to_owned());
    }
    labels
}

/// 1 plain, 2 refusing zones, 3 relaxed zones, 4 per node, 5 constrained and large, 6 refusing nodes.
fn spec(app: u32) -> AppSpec {
    let spread = |by: &str, when_full| Some(Spread { by: by.to_owned(), max_skew: 1, when_full });
    let ssd = Constraint { label: "disk".to_owned(), operator: ConstraintOperator::In, values: vec!["ssd".to_owned()] };
    AppSpec {
        name: format!("app{app}"),
        tenant: "default".to_owned(),
        image: "image".to_owned(),
        image_digest: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: Resources { cpu: CpuMilli(if app == 5 { 700 } else { 100 }), memory: Bytes(64 << 20) },
        processes: 10,
        scratch: Bytes(0),
        log: Bytes(0),
        scale: Scale::Declared { replicas: 0 },
        ports: Vec::new(),
        stop_grace: Millis(1_000),
        drain_deadline: Millis(1_000),
        constraints: if app == 5 { vec![ssd] } else { Vec::new() },
        spread: match app {
            2 => spread("zone", WhenFull::Refuse),
            3 => spread("zone", WhenFull::Relax),
            6 => spread("node", WhenFull::Refuse),
            _ => None,
        },
        max_per_node: (app == 4).then_some(3),
        when_cut_off: WhenCutOff::KeepRunning,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_choice_is_among_the_best(nodes in 1..41u32, seed in any::<u64>(), ops in proptest::collection::vec(op(), 1..40)) {
        let mut trial = Trial::begin(nodes, seed);
        ops.iter().for_each(|op| trial.perform(op, nodes));
    }
}

#[test]
fn the_second_opinion_is_asked() {
    let mut trial = Trial::begin(10, 1);
    trial.perform(&Op::Scale { app: 1, more: 100 }, 10);
    trial.perform(&Op::Scale { app: 2, more: 9 }, 10);
    assert_eq!(trial.judged, 109, "placements went by unjudged");
}
