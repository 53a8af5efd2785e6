//! What must hold after every step, found out naively: nothing here calls the planner's own rules.
//!
//! For tests, for the simulator, and as a metric in the live controller. It costs O(copies x log copies).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::autoscale::Elasticity;
use crate::ids::{AppId, NodeId, ReplicaId};
use crate::input::Lifecycle;
use crate::model::Model;
use crate::model::command::NodeState;
use crate::model::spec::{Elastic, Policy, Scale, WhenFull};
use crate::observe::node::{Liveness, NodeSeen};
use crate::observe::replica::{Placed, Replica, Sight, Stage, Standing};
use crate::observe::world::{AppSeen, World};
use crate::step::Core;
use crate::units::{CpuMilli, Resources};

/// The numbered invariants.
pub const INVARIANTS: [(u32, &str); 18] = [
    (1, "a node's declared copies fit into it, as far as this leader placed them"),
    (2, "a node's figures are the sums over its copies"),
    (3, "an app's figures are the counts of its copies"),
    (4, "every copy is in the lists of its app and its node, and in no other"),
    (5, "replica ids of this leader lie within its counter, and no id bears a higher fence"),
    (6, "only known or removed copies are retired; an orphan never is"),
    (
        7,
        "a stop is ordered only for a copy that was parked with its owner's word, never answered, or ran out of patience",
    ),
    (8, "what cannot be seen is not being stopped"),
    (9, "orders wait only on live sessions, and their sequences lie within what was sent"),
    (10, "a copy placed by this leader respects constraints, per-node limit and a refusing spread"),
    (11, "no surplus of wanted copies stays in rotation where it could be retired"),
    (12, "what is missing has a cause: no room, back-off, brake, unheard nodes, or a takeover under way"),
    (13, "an elastic count lies within its bounds"),
    (14, "the declared world's names and ids agree"),
    (15, "an app's requests are the sums over its ingresses and its copies"),
    (16, "an app's subscribers have been told of every copy as it is, and of no other"),
    (17, "what policies of requests ask for follows from demand, never from the copies that are there"),
    (
        18,
        "what agents may start by themselves is within the app's largest count, and each id is a copy's or a promise's",
    ),
];

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which of `INVARIANTS`.
    pub number: u32,
    /// Where, with figures.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = INVARIANTS.iter().find(|(number, _)| *number == self.number).map_or("?", |(_, rule)| rule);
        write!(f, "invariant {} ({rule}): {}", self.number, self.text)
    }
}

struct Checker<'a> {
    core: &'a Core,
    model: &'a Model,
    world: &'a World,
    by_app: BTreeMap<AppId, Vec<&'a Replica>>,
    by_node: BTreeMap<NodeId, Vec<&'a Replica>>,
    by_both: BTreeMap<(AppId, NodeId), usize>,
    found: Vec<Violation>,
}

/// All violations; none on a sound core.
pub fn check(core: &Core) -> Vec<Violation> {
    let mut found = check_model(core.model());
    let Some(world) = core.world() else { return found };
    let mut by_app: BTreeMap<AppId, Vec<&Replica>> = BTreeMap::new();
    let mut by_node: BTreeMap<NodeId, Vec<&Replica>> = BTreeMap::new();
    let mut by_both: BTreeMap<(AppId, NodeId), usize> = BTreeMap::new();
    for replica in world.replicas.iter() {
        by_app.entry(replica.app).or_default().push(replica);
        by_node.entry(replica.node).or_default().push(replica);
        *by_both.entry((replica.app, replica.node)).or_default() += 1;
    }
    let mut checker = Checker { core, model: core.model(), world, by_app, by_node, by_both, found: Vec::new() };
    checker.check_nodes();
    checker.check_apps();
    checker.check_replicas();
    checker.check_counts();
    found.append(&mut checker.found);
    found
}

fn check_model(model: &Model) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut fail = |text: String| found.push(Violation { number: 14, text });
    for (key, id) in &model.app_names {
        match model.apps.get(id) {
            Some(app) if (&app.current.spec.tenant, &app.current.spec.name) == (&key.0, &key.1) => {}
            _ => fail(format!("{}/{} leads to {id}, which is not it", key.0, key.1)),
        }
    }
    if model.apps.len() != model.app_names.len() {
        fail(format!("{} apps but {} names", model.apps.len(), model.app_names.len()));
    }
    if model.apps.keys().any(|id| *id > model.last_app) || model.nodes.keys().any(|id| *id > model.last_node) {
        fail("an id lies beyond the last one given out".to_owned());
    }
    for (name, id) in &model.node_names {
        if model.nodes.get(id).is_none_or(|node| node.name != *name) {
            fail(format!("node name {name} leads to {id}, which is not it"));
        }
    }
    if model.node_names.len() != model.nodes.len() {
        fail(format!("{} nodes but {} names", model.nodes.len(), model.node_names.len()));
    }
    found
}

impl Checker<'_> {
    fn unless(&mut self, holds: bool, number: u32, text: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { number, text: text() });
        }
    }

    fn check_nodes(&mut self) {
        let world = self.world;
        for (id, seen) in world.nodes() {
            let copies = self.by_node.get(&id).cloned().unwrap_or_default();
            self.check_node_figures(id, seen, &copies);
            self.check_fit(id, seen, &copies);
            let listed: Vec<ReplicaId> = seen.replicas.keys().copied().collect();
            let actual: Vec<ReplicaId> = copies.iter().map(|copy| copy.id).collect();
            self.unless(listed == actual, 4, || format!("{id} lists {listed:?}, there are {actual:?}"));
            let live = seen.session.as_ref().is_some_and(|session| session.live);
            self.unless(seen.liveness != Liveness::Up || live, 9, || format!("{id} is up without a live session"));
        }
    }

    fn check_node_figures(&mut self, id: NodeId, seen: &NodeSeen, copies: &[&Replica]) {
        let sum = |each: &dyn Fn(&Replica) -> Resources| {
            copies.iter().fold(Resources::default(), |sum, copy| sum + each(copy))
        };
        let promised = seen.promises.values().fold(Resources::default(), |sum, promise| sum + promise.resources);
        let reserved = sum(&|copy| copy.resources) + promised;
        self.unless(reserved == seen.reserved, 2, || format!("{id} reserved {:?}, summed {reserved:?}", seen.reserved));
        let window = self.core.config().limits.full_window;
        let unmeasured = sum(&|copy| {
            let young = copy.seen.running_for < window && copy.seen.lifecycle < Lifecycle::Stopping;
            if young { copy.resources - copy.seen.used } else { Resources::default() }
        });
        self.unless(unmeasured == seen.unmeasured, 2, || {
            format!("{id} unmeasured {:?}, summed {unmeasured:?}", seen.unmeasured)
        });
    }

    /// Copies that were there before, and orphans, may overfill a node; nothing may have been added to a full one.
    fn check_fit(&mut self, id: NodeId, seen: &NodeSeen, copies: &[&Replica]) {
        let fits = seen.reserved.fits(&seen.facts.capacity);
        let newest = copies.iter().filter(|copy| copy.ordered.is_some()).map(|copy| copy.id).max();
        self.unless(fits || newest.is_none() || seen.liveness != Liveness::Up, 1, || {
            format!(
                "{id} has {:?} declared of {:?}, and {newest:?} was placed on it",
                seen.reserved, seen.facts.capacity
            )
        });
    }

    fn check_apps(&mut self) {
        let world = self.world;
        for (id, seen) in &world.apps {
            let copies = self.by_app.get(id).cloned().unwrap_or_default();
            let listed: Vec<ReplicaId> = seen.replicas.keys().copied().collect();
            let actual: Vec<ReplicaId> = copies.iter().map(|copy| copy.id).collect();
            self.unless(listed == actual, 4, || format!("{id} lists {listed:?}, there are {actual:?}"));
            let mut on_node: BTreeMap<NodeId, u32> = BTreeMap::new();
            copies.iter().for_each(|copy| *on_node.entry(copy.node).or_default() += 1);
            self.unless(on_node == seen.on_node, 3, || {
                format!("{id} per node {:?}, counted {on_node:?}", seen.on_node)
            });
            let retiring: BTreeSet<ReplicaId> =
                copies.iter().filter(|copy| copy.retire.is_some()).map(|copy| copy.id).collect();
            self.unless(retiring == seen.retiring, 3, || {
                format!("{id} retiring {:?}, counted {retiring:?}", seen.retiring)
            });
            self.check_tally(*id, &copies);
            self.check_traffic(*id, seen, &copies);
        }
    }

    fn check_tally(&mut self, id: AppId, copies: &[&Replica]) {
        let Some(tally) = self.world.apps.get(&id).map(|seen| seen.tally) else { return };
        let count = |want: &dyn Fn(&Replica) -> bool| copies.iter().filter(|copy| want(copy)).count() as u32;
        let known = |copy: &Replica| copy.standing != Standing::Orphan;
        let seen = |copy: &Replica| known(copy) && matches!(copy.sight, Sight::Clear | Sight::Blind);
        let ending = |copy: &Replica| {
            copy.seen.lifecycle >= Lifecycle::Stopping
                || copy.retire.as_ref().is_some_and(|retire| retire.stage == Stage::Stopping)
        };
        let supply = |copy: &Replica| seen(copy) && !ending(copy) && copy.retire.is_none();
        let ready = |copy: &Replica| copy.seen.ready && !copy.seen.parked;
        let rows = [
            ("fresh", tally.fresh, count(&|copy| supply(copy) && copy.fresh)),
            ("fresh_ready", tally.fresh_ready, count(&|copy| supply(copy) && copy.fresh && ready(copy))),
            ("stale", tally.stale, count(&|copy| supply(copy) && !copy.fresh)),
            ("stale_ready", tally.stale_ready, count(&|copy| supply(copy) && !copy.fresh && ready(copy))),
            ("retiring", tally.retiring, count(&|copy| seen(copy) && !ending(copy) && copy.retire.is_some())),
            ("ending", tally.ending, count(&|copy| seen(copy) && ending(copy))),
            ("lost", tally.lost, count(&|copy| known(copy) && copy.sight == Sight::Lost)),
            ("held", tally.held, count(&|copy| known(copy) && matches!(copy.sight, Sight::Held(_)))),
        ];
        for (name, kept, counted) in rows {
            self.unless(kept == counted, 3, || format!("{id} {name} is {kept}, counted {counted}"));
        }
        let working = copies.iter().filter(|copy| seen(copy) && !ending(copy) && copy.seen.ready);
        let cpu = working.fold(CpuMilli(0), |sum, copy| sum + copy.seen.used.cpu);
        let counted = copies.iter().filter(|copy| seen(copy)).fold(0, |sum, copy| sum + u64::from(copy.seen.requests));
        self.unless(counted == tally.in_flight, 15, || {
            format!("{id} has {} in flight, summed {counted}", tally.in_flight)
        });
        self.unless(cpu == tally.used_cpu, 3, || format!("{id} uses {}, summed {cpu}", tally.used_cpu));
    }

    fn check_traffic(&mut self, id: AppId, seen: &AppSeen, copies: &[&Replica]) {
        let held: u64 = seen.requests.ingresses.values().map(|ingress| u64::from(ingress.held)).sum();
        self.unless(held == seen.requests.held, 15, || format!("{id} holds {}, summed {held}", seen.requests.held));
        self.check_promises(id, seen, copies);
        let Some(book) = &seen.routes else { return };
        let told: Vec<(ReplicaId, bool)> = book.in_rotation().collect();
        let visible = |copy: &&&Replica| {
            copy.standing != Standing::Orphan
                && matches!(copy.sight, Sight::Clear | Sight::Blind)
                && copy.seen.ever_ready
                && copy.seen.lifecycle < Lifecycle::Stopping
                && copy.retire.as_ref().is_none_or(|retire| retire.stage != Stage::Stopping)
        };
        let rotating = |copy: &Replica| copy.seen.ready && !copy.seen.parked && copy.retire.is_none();
        let are: Vec<(ReplicaId, bool)> = copies.iter().filter(visible).map(|copy| (copy.id, rotating(copy))).collect();
        self.unless(told == are, 16, || format!("{id}: told {told:?}, there are {are:?}"));
        let strangers = book.subscribers().iter().any(|node| !seen.requests.ingresses.contains_key(node));
        self.unless(!strangers, 16, || format!("{id}: some subscriber never asked for it"));
    }

    fn check_promises(&mut self, id: AppId, seen: &AppSeen, copies: &[&Replica]) {
        let listed: Vec<ReplicaId> = seen.promised.keys().copied().collect();
        let nodes = self.world.nodes().flat_map(|(_, seen)| seen.promises.values());
        let mut there: Vec<ReplicaId> =
            nodes.filter(|promise| promise.allowance.app == id).map(|promise| promise.allowance.id).collect();
        there.sort_unstable();
        self.unless(listed == there, 18, || format!("{id} lists promises {listed:?}, there are {there:?}"));
        let used = copies.iter().find(|copy| seen.promised.contains_key(&copy.id)).map(|copy| copy.id);
        self.unless(used.is_none(), 18, || format!("{used:?} is a copy and still promised"));
        let bounds = self.model.apps.get(&id).map(|known| &known.current.spec.scale);
        let Some(Scale::Policies(bounds)) = bounds else { return };
        let standing = self.world.nodes().flat_map(|(_, seen)| seen.promises.values());
        let standing = standing.filter(|promise| promise.allowance.app == id && promise.over.is_none()).count();
        self.unless(standing <= bounds.max as usize, 18, || format!("{id}: {standing} promised of {}", bounds.max));
    }

    fn check_replicas(&mut self) {
        let world = self.world;
        for copy in world.replicas.iter() {
            let id = copy.id;
            let own = id.fence != world.fence || id.counter <= world.counter;
            self.unless(own && id.fence <= world.fence, 5, || {
                format!("{id} under {} counter {}", world.fence, world.counter)
            });
            let orphan = copy.standing == Standing::Orphan;
            self.unless(!(orphan && copy.retire.is_some()), 6, || format!("{id} is an orphan being retired"));
            let hidden = matches!(copy.sight, Sight::Lost | Sight::Held(_));
            self.unless(!(hidden && copy.retire.is_some()), 8, || format!("{id} is out of sight and being retired"));
            self.check_stop(copy);
            self.check_order(copy);
            self.check_placement(copy);
        }
    }

    fn check_stop(&mut self, copy: &Replica) {
        let Some(retire) = &copy.retire else { return };
        let late = self.core.now() >= retire.deadline;
        let id = copy.id;
        let gently = retire.stage != Stage::StoppingIfIdle || copy.seen.parked || retire.unanswered;
        self.unless(gently, 7, || format!("{id} is stopped, if idle, but not parked"));
        let hard =
            retire.stage != Stage::Stopping || late || retire.unanswered || copy.seen.lifecycle >= Lifecycle::Stopping;
        self.unless(hard, 7, || format!("{id} is stopped before its deadline {}", retire.deadline));
    }

    fn check_order(&mut self, copy: &Replica) {
        let Some(order) = copy.ordered else { return };
        let seen = self.world.node(copy.node);
        let Some(session) = seen.and_then(|seen| seen.session.as_ref()) else { return };
        self.unless(!session.live || order <= session.sent, 9, || {
            format!("{} waits for order {order}, only {} were sent", copy.id, session.sent)
        });
    }

    /// Only copies still on their way are judged: rules and labels may have changed since the others were placed.
    fn check_placement(&mut self, copy: &Replica) {
        let Some(app) = self.model.apps.get(&copy.app).filter(|_| copy.ordered.is_some()) else { return };
        if copy.revision != app.current.number || !matches!(copy.placed, Placed::Chosen(_)) {
            return;
        }
        let spec = &app.current.spec;
        let label =
            |node: NodeId, key: &str| self.world.node(node).and_then(|seen| seen.facts.labels.get(key).cloned());
        let broken = spec.constraints.iter().any(|one| {
            use crate::model::spec::ConstraintOperator::{Exists, In, NotExists, NotIn};
            let value = label(copy.node, &one.label);
            let listed = value.as_ref().is_some_and(|value| one.values.contains(value));
            !match one.operator {
                In => listed,
                NotIn => !listed,
                Exists => value.is_some(),
                NotExists => value.is_none(),
            }
        });
        let here = self.by_both.get(&(copy.app, copy.node)).copied().unwrap_or(0);
        let crowded = spec.max_per_node.is_some_and(|most| here > most as usize);
        let refusing = spec.spread.as_ref().filter(|spread| spread.when_full == WhenFull::Refuse);
        let unlabelled = refusing.is_some_and(|spread| spread.by != "node" && label(copy.node, &spread.by).is_none());
        // A limit may have been lowered while an order is on its way.
        let same_rules = app.current.runs_since == copy.revision;
        self.unless(!broken || !same_rules, 10, || format!("{} breaks a constraint on {}", copy.id, copy.node));
        self.unless(!crowded || !same_rules, 10, || format!("{} is one of {here} on {}", copy.id, copy.node));
        self.unless(!unlabelled || !same_rules, 10, || format!("{} has no part in the spread", copy.id));
    }

    fn check_counts(&mut self) {
        let (model, world) = (self.model, self.world);
        for (id, app) in &model.apps {
            let Some(seen) = world.apps.get(id) else { continue };
            let wanted = match (&app.current.spec.scale, &seen.elastic) {
                (Scale::Policies(bounds), Some(elastic)) => {
                    let within = (bounds.min..=bounds.max).contains(&elastic.wanted);
                    self.unless(within, 13, || format!("{id} wants {} outside its bounds", elastic.wanted));
                    self.check_figures(*id, bounds, elastic);
                    elastic.wanted
                }
                _ => app.wanted,
            };
            if !world.quorum || model.observing || model.incarnation == 0 {
                continue;
            }
            let copies = self.by_app.get(id).cloned().unwrap_or_default();
            self.check_surplus(*id, wanted, &copies);
            self.check_missing(*id, wanted, &copies);
        }
    }

    fn check_figures(&mut self, id: AppId, bounds: &Elastic, elastic: &Elasticity) {
        let demand = elastic.reading.demand;
        for (policy, figure) in bounds.policies.iter().zip(&elastic.reading.figures) {
            let (requests, target) = match policy {
                Policy::Concurrency { target } => (demand.in_flight + demand.held, *target),
                Policy::RequestsPerSecond { target } => (demand.per_second, *target),
                Policy::Cpu { .. } | Policy::Memory { .. } => continue,
            };
            let enough = u64::from(figure.need) * u64::from(target) >= requests;
            let least = u64::from(figure.need.saturating_sub(1)) * u64::from(target) < requests.max(1);
            self.unless(enough && least, 17, || format!("{id}: {} for {requests} at {target} each", figure.need));
        }
    }

    fn check_surplus(&mut self, id: AppId, wanted: u32, copies: &[&Replica]) {
        let rotating = |copy: &&&Replica| {
            copy.standing == Standing::Known
                && copy.fresh
                && copy.retire.is_none()
                && copy.seen.lifecycle < Lifecycle::Stopping
                && copy.sight == Sight::Clear
        };
        let count = copies.iter().filter(rotating).count();
        self.unless(count <= wanted as usize, 11, || format!("{id} wants {wanted}, {count} are in rotation"));
    }

    fn check_missing(&mut self, id: AppId, wanted: u32, copies: &[&Replica]) {
        let Some(seen) = self.world.apps.get(&id) else { return };
        let now = self.core.now();
        let there = copies.iter().filter(|copy| copy.standing == Standing::Known && copy.sight != Sight::Lost);
        let supply =
            there.filter(|copy| matches!(copy.sight, Sight::Held(_)) || copy.seen.lifecycle < Lifecycle::Stopping);
        let backing_off = seen.backoff.due.iter().filter(|due| **due > now).count();
        let excused = seen.unplaced.is_some()
            || now < self.world.brake.until
            || seen.assumed > 0
            || !seen.promised.is_empty()
            || copies.iter().any(|copy| !copy.fresh || copy.retire.is_some());
        let total = supply.count() + backing_off;
        self.unless(excused || total >= wanted as usize, 12, || {
            format!("{id} wants {wanted}, {total} are there or backing off, and nothing says why")
        });
    }
}

/// Is a node one that may be given copies, as people see it?
pub fn takes_copies(core: &Core, node: NodeId) -> bool {
    let active = core.model().nodes.get(&node).is_some_and(|known| known.state == NodeState::Active);
    active && core.world().and_then(|world| world.node(node)).is_some_and(|seen| seen.liveness == Liveness::Up)
}
