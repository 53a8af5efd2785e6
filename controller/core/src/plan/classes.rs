//! Candidates kept ordered per class of requests: the same constraints and the same spread label, and for an app with many copies
//! a class of its own, in which the copies per node are part of the key. A class catches up with what changed when it is asked;
//! a heartbeat only notes that its node changed.

use std::collections::BTreeMap;

use super::score::Rank;
use super::tree::{DEAD, Key, Tree};
use crate::ids::{AppId, NodeId};
use crate::model::spec::{AppSpec, Constraint};
use crate::observe::node::{Liveness, NodeSeen};
use crate::turn::Scene;

/// What the requests of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassKey {
    constraints: Vec<Constraint>,
    /// The label that copies are spread over; not "node", which the count per node answers.
    by: Option<String>,
    app: Option<AppId>,
}

impl ClassKey {
    /// Must the class know how many nodes have how many copies?
    fn keeps_levels(&self, spec: &AppSpec) -> bool {
        self.app.is_some() && spec.spread.as_ref().is_some_and(|spread| spread.by == "node")
    }
}

/// The nodes of a class.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// Changes up to here are in.
    position: u64,
    /// When it was asked last.
    asked: u64,
    /// By node id: its zone, its leaf there, and what was counted for it.
    spots: Vec<Option<Spot>>,
    /// One per value of the spread's label, and one for nodes without it.
    pub zones: Vec<Zone>,
    values: BTreeMap<String, usize>,
    /// The zone of the nodes without the label.
    unlabelled: Option<usize>,
    /// In the class of one app that is spread over nodes: nodes in service by how many copies they have.
    levels: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Spot {
    zone: u32,
    leaf: u32,
    /// The node's, when its zone and service were looked up.
    shape: u32,
    in_service: bool,
    copies: u32,
}

/// Nodes that share a value of the spread's label.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    /// Do they have the label?
    pub labelled: bool,
    /// Ordered.
    pub tree: Tree,
    /// Nodes in service that meet the constraints.
    pub open: u32,
    /// Copies of the app, in the class of one app.
    pub copies: u32,
}

/// All classes, and what they have not heard yet.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    kept: BTreeMap<ClassKey, Class>,
    /// Nodes that changed, oldest first; the first has number `base`.
    changed: Vec<NodeId>,
    base: u64,
    clock: u64,
}

/// Leaves of all classes together: 2^22 at 64 bytes each (two levels of sums) are 256 MiB at the very most.
const MOST_LEAVES: usize = 1 << 22;

/// Walking past so many copies is never worth a class.
pub const FEW: u64 = 64;

impl Classes {
    /// A node changed. When nobody asks for long, the list is dropped and classes are built anew.
    pub fn touch(&mut self, node: NodeId, nodes: usize) {
        if self.changed.len() > 4 * nodes + 64 {
            self.base += self.changed.len() as u64 + 1;
            self.changed.clear();
        }
        self.changed.push(node);
    }

    /// The rules of an app changed: its own class no longer holds.
    pub fn forget(&mut self, app: AppId) {
        self.kept.retain(|key, _| key.app != Some(app));
    }

    /// The class of a request, up to date. It is taken out; give it back with `keep`.
    pub fn take(&mut self, scene: &Scene<'_>, spec: &AppSpec, app: Option<AppId>) -> (ClassKey, Class) {
        let by = spec.spread.as_ref().map(|spread| &spread.by).filter(|by| *by != "node");
        let key = ClassKey { constraints: spec.constraints.clone(), by: by.cloned(), app };
        let mut class = self.kept.remove(&key).unwrap_or_default();
        self.clock += 1;
        class.asked = self.clock;
        let end = self.base + self.changed.len() as u64;
        if class.spots.is_empty() || class.position < self.base {
            class = Class { asked: self.clock, ..Class::default() };
            scene.world.nodes().for_each(|(node, _)| class.refresh(scene, spec, &key, node));
        } else {
            let from = (class.position - self.base) as usize;
            self.changed[from..].iter().for_each(|node| class.refresh(scene, spec, &key, *node));
        }
        class.position = end;
        (key, class)
    }

    /// Keeps a class that was told of every change since it was taken.
    pub fn keep_current(&mut self, key: ClassKey, mut class: Class) {
        class.position = self.base + self.changed.len() as u64;
        self.keep(key, class);
    }

    /// Keeps a class for the next request; drops those that were asked longest ago when there are too many.
    pub fn keep(&mut self, key: ClassKey, class: Class) {
        let leaves = class.spots.len().max(1);
        self.kept.insert(key, class);
        if self.kept.len() * leaves > MOST_LEAVES && self.kept.len() > 1 {
            let oldest = self.kept.iter().min_by_key(|(_, class)| class.asked).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.kept.remove(&key));
        }
    }
}

impl Class {
    /// Puts a node where it belongs now. What seldom changes is looked at only when the node's shape has changed.
    fn refresh(&mut self, scene: &Scene<'_>, spec: &AppSpec, key: &ClassKey, node: NodeId) {
        let Some(seen) = scene.world.node(node) else {
            self.forget(node);
            return;
        };
        let spot = match self.spot(node) {
            Some(spot) if spot.shape == seen.shape => spot,
            old => self.settle(scene, spec, key, (node, seen), old),
        };
        let here = key.app.map_or(0, |app| scene.copies_on(app, node));
        let counted = if seen.liveness == Liveness::Lost { 0 } else { here };
        self.put(scene, (spec, key), (node, seen), Spot { copies: counted, ..spot }, here);
    }

    /// One more copy of the app was placed on a node that serves; nothing else about it has changed. For the rest of the request
    /// the node's key counts that app's copies, in a class of many apps too: else each further copy would search past it.
    pub fn placed(&mut self, scene: &Scene<'_>, spec: &AppSpec, key: &ClassKey, app: AppId, node: NodeId) {
        let (Some(seen), Some(spot)) = (scene.world.node(node), self.spot(node)) else { return };
        if key.app.is_some() {
            let copies = spot.copies + 1;
            self.put(scene, (spec, key), (node, seen), Spot { copies, ..spot }, copies);
        } else {
            self.put(scene, (spec, key), (node, seen), spot, scene.copies_on(app, node));
        }
    }

    /// The request is over: in a class of many apps the node's key counts no app's copies again.
    pub fn restore(&mut self, scene: &Scene<'_>, spec: &AppSpec, key: &ClassKey, node: NodeId) {
        let (Some(seen), Some(spot)) = (scene.world.node(node), self.spot(node)) else { return };
        self.put(scene, (spec, key), (node, seen), spot, 0);
    }

    /// Writes a node's spot. The key is made with the app's copies `here`, lost ones too.
    fn put(
        &mut self,
        scene: &Scene<'_>,
        (spec, key): (&AppSpec, &ClassKey),
        (node, seen): (NodeId, &NodeSeen),
        spot: Spot,
        here: u32,
    ) {
        let before = self.spots[node.0 as usize].map_or(0, |old| old.copies);
        if spot.copies != before && key.keeps_levels(spec) {
            self.move_level(spot.in_service.then_some(before), spot.in_service.then_some(spot.copies));
        }
        let zone = &mut self.zones[spot.zone as usize];
        zone.copies = zone.copies + spot.copies - before;
        let crowded = here > 0 && spec.max_per_node.is_some_and(|most| here >= most);
        if spot.in_service && !crowded {
            zone.tree.set(spot.leaf as usize, scene.node_rank(node, seen, here).key(), seen.room());
        } else {
            zone.tree.set(spot.leaf as usize, DEAD, Default::default());
        }
        self.spots[node.0 as usize] = Some(spot);
    }

    /// Looks up whether the node serves, and its zone; it gets a new leaf when its label changed.
    fn settle(
        &mut self,
        scene: &Scene<'_>,
        spec: &AppSpec,
        key: &ClassKey,
        (node, seen): (NodeId, &NodeSeen),
        old: Option<Spot>,
    ) -> Spot {
        let zone = self.zone_of_value(key.by.as_ref().and_then(|by| scene.label(node, by)));
        if old.is_some_and(|old| old.zone != zone) {
            self.forget(node);
        }
        let at = node.0 as usize;
        if self.spots.len() <= at {
            self.spots.resize(at + 1, None);
        }
        let (zones, shape) = (&mut self.zones[zone as usize], seen.shape);
        let spot = self.spots[at].unwrap_or_else(|| {
            let leaf = u32::try_from(zones.tree.push(node)).expect("there are as many leaves as nodes");
            Spot { zone, leaf, shape, in_service: false, copies: 0 }
        });
        let in_service = scene.out_of_service(node, spec).is_none();
        zones.open = zones.open + u32::from(in_service) - u32::from(spot.in_service);
        if key.keeps_levels(spec) {
            self.move_level(spot.in_service.then_some(spot.copies), in_service.then_some(spot.copies));
        }
        let spot = Spot { shape, in_service, ..spot };
        self.spots[at] = Some(spot);
        spot
    }

    /// The node is not there any more, or not where it was.
    fn forget(&mut self, node: NodeId) {
        let Some(spot) = self.spots.get_mut(node.0 as usize).and_then(Option::take) else { return };
        let left = &mut self.zones[spot.zone as usize];
        left.open -= u32::from(spot.in_service);
        left.copies -= spot.copies;
        left.tree.set(spot.leaf as usize, DEAD, Default::default());
        self.move_level(spot.in_service.then_some(spot.copies), None);
    }

    fn spot(&self, node: NodeId) -> Option<Spot> {
        self.spots.get(node.0 as usize).copied().flatten()
    }

    fn move_level(&mut self, from: Option<u32>, to: Option<u32>) {
        if from == to {
            return;
        }
        if let Some(count) = from.and_then(|from| self.levels.get_mut(&from)) {
            *count -= 1;
        }
        if let Some(from) = from.filter(|from| self.levels.get(from) == Some(&0)) {
            self.levels.remove(&from);
        }
        if let Some(to) = to {
            *self.levels.entry(to).or_default() += 1;
        }
    }

    /// In the class of one app: copies on the emptiest node in service.
    pub fn lowest_level(&self) -> Option<u32> {
        self.levels.first_key_value().map(|(copies, _)| *copies)
    }

    fn zone_of_value(&mut self, value: Option<&str>) -> u32 {
        let known = match value {
            Some(value) => self.values.get(value).copied(),
            None => self.unlabelled,
        };
        let zone = known.unwrap_or_else(|| {
            let next = self.zones.len();
            self.zones.push(Zone { labelled: value.is_some(), ..Zone::default() });
            match value {
                Some(value) => drop(self.values.insert(value.to_owned(), next)),
                None => self.unlabelled = Some(next),
            }
            next
        });
        u32::try_from(zone).expect("there are as many zones as nodes at most")
    }

    /// The zone of a node.
    pub fn zone_of(&self, node: NodeId) -> Option<usize> {
        self.spot(node).map(|spot| spot.zone as usize)
    }

    /// Its leaf in the tree of its zone. Only nodes that a tree named are asked for.
    pub fn leaf_of(&self, node: NodeId) -> usize {
        self.spot(node).expect("whoever is in a tree has a spot").leaf as usize
    }

    /// In the class of one app: its copies on a node, lost ones not.
    pub fn copies_on(&self, node: NodeId) -> u32 {
        self.spot(node).map_or(0, |spot| spot.copies)
    }

    /// Nodes in service.
    pub fn open(&self) -> u32 {
        self.zones.iter().map(|zone| zone.open).sum()
    }
}

impl Rank {
    /// All fields but the skew in one number that compares as they do.
    pub fn key(&self) -> Key {
        let narrow = |value: u32, bits: u32| Key::from(value.min((1 << bits) - 1));
        // 16 + 24 + 24 + 32 + 32 = 128 bits.
        narrow(self.distrust, 16) << 112
            | narrow(self.load_step, 24) << 88
            | narrow(self.same_app, 24) << 64
            | Key::from(self.draw) << 32
            | Key::from(self.node.0)
    }
}
