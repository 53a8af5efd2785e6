//! Candidates kept ordered per class of requests: the same constraints and the same spread label, and for an app with many copies
//! a class of its own, in which the copies per node are part of the key. A class catches up with what changed when it is asked;
//! a heartbeat only notes that its node changed.

use std::collections::BTreeMap;

use super::score::Rank;
use super::tree::{DEAD, Key, Tree};
use crate::ids::{AppId, NodeId};
use crate::model::spec::{AppSpec, Constraint};
use crate::observe::node::Liveness;
use crate::turn::Scene;

/// What the requests of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassKey {
    constraints: Vec<Constraint>,
    /// The label that copies are spread over; not "node", which the count per node answers.
    by: Option<String>,
    app: Option<AppId>,
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
    values: BTreeMap<Option<String>, usize>,
    /// In the class of one app: nodes in service by how many copies they have.
    levels: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Spot {
    zone: usize,
    leaf: usize,
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
    /// Puts a node where it belongs now.
    fn refresh(&mut self, scene: &Scene<'_>, spec: &AppSpec, key: &ClassKey, node: NodeId) {
        let value = key.by.as_ref().and_then(|by| scene.label(node, by));
        let spot = self.spot(node, value);
        let in_service = scene.out_of_service(node, spec).is_none();
        let seen = scene.world.node(node);
        let here = key.app.map_or(0, |app| scene.copies_on(app, node));
        let counted = if seen.is_some_and(|seen| seen.liveness != Liveness::Lost) { here } else { 0 };
        if key.app.is_some() {
            self.move_level(spot.in_service.then_some(spot.copies), in_service.then_some(counted));
        }
        let zone = &mut self.zones[spot.zone];
        zone.open = zone.open + u32::from(in_service) - u32::from(spot.in_service);
        zone.copies = zone.copies + counted - spot.copies;
        let crowded = key.app.is_some() && spec.max_per_node.is_some_and(|most| here >= most);
        match seen.filter(|_| in_service && !crowded) {
            Some(seen) => zone.tree.set(spot.leaf, scene.node_rank(node, seen, here).key(), seen.room()),
            None => zone.tree.set(spot.leaf, DEAD, Default::default()),
        }
        self.spots[node.0 as usize] = Some(Spot { in_service, copies: counted, ..spot });
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

    /// The node's place; a new one when its label changed.
    fn spot(&mut self, node: NodeId, value: Option<&str>) -> Spot {
        let at = node.0 as usize;
        if self.spots.len() <= at {
            self.spots.resize(at + 1, None);
        }
        let zone = self.zone_of_value(value);
        match self.spots[at] {
            Some(spot) if spot.zone == zone => spot,
            old => {
                if let Some(spot) = old {
                    self.move_level(spot.in_service.then_some(spot.copies), None);
                    let left = &mut self.zones[spot.zone];
                    left.open -= u32::from(spot.in_service);
                    left.copies -= spot.copies;
                    left.tree.set(spot.leaf, DEAD, Default::default());
                }
                let leaf = self.zones[zone].tree.push(node);
                Spot { zone, leaf, in_service: false, copies: 0 }
            }
        }
    }

    fn zone_of_value(&mut self, value: Option<&str>) -> usize {
        // Most classes have one zone, and most values are known: look before anything is copied.
        let key = value.map(str::to_owned);
        if let Some(zone) = self.values.get(&key) {
            return *zone;
        }
        self.zones.push(Zone { labelled: key.is_some(), ..Zone::default() });
        self.values.insert(key, self.zones.len() - 1);
        self.zones.len() - 1
    }

    /// The zone of a node.
    pub fn zone_of(&self, node: NodeId) -> Option<usize> {
        self.spots.get(node.0 as usize).copied().flatten().map(|spot| spot.zone)
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
