//! Who may take a copy. Hard filters, each of which counts whom it refused, so that a lack of room is a report and no riddle.

use serde::Serialize;

use super::classes::Class;
use crate::ids::{AppId, NodeId};
use crate::model::command::NodeState;
use crate::model::spec::{AppSpec, Constraint, ConstraintOperator, WhenFull};
use crate::observe::node::Liveness;
use crate::observe::replica::Replica;
use crate::turn::Scene;

/// Why a node may not take a copy. The first that applies is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Filter {
    /// People said so: cordoned.
    Cordoned,
    /// People said so: draining.
    Draining,
    /// It cannot be heard.
    NotUp,
    /// A label is not as the app demands; which constraint, by place.
    Constraint(usize),
    /// Not enough CPU left.
    Cpu,
    /// Not enough memory left.
    Memory,
    /// It has as many copies of this app as it may.
    PerNode,
    /// It lacks the label that the copies shall be spread over.
    NoSpreadLabel,
    /// Its part of the cluster is full enough.
    Spread,
    /// It refused a moment ago for want of room.
    SaidFull,
}

/// One app's demand on a node.
pub struct Request<'a> {
    /// Whose.
    pub app: AppId,
    /// What it declares.
    pub spec: &'a AppSpec,
    /// The spread to keep, when there is one.
    pub zones: Option<Zones>,
}

/// How the app's copies are spread now.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// Over nodes themselves, not over a label's values.
    pub by_node: bool,
    /// Place anyway when the skew cannot be kept.
    pub relax: bool,
    /// Copies per zone of the class; absent where the nodes lack the label.
    counts: Vec<Option<u32>>,
    /// Copies in the emptiest zone that has a node in service which meets the constraints, with room or not.
    floor: u32,
    max_skew: u32,
}

impl Zones {
    /// One more copy of the app was placed on this node.
    fn placed(&mut self, class: &Class, node: NodeId) {
        let count = class.zone_of(node).and_then(|zone| self.counts.get_mut(zone)).and_then(Option::as_mut);
        let Some(count) = count else { return };
        *count += 1;
        if *count == self.floor + 1 {
            self.find_floor(class);
        }
    }

    fn find_floor(&mut self, class: &Class) {
        let open = class.zones.iter().zip(&self.counts).filter(|(zone, _)| zone.open > 0);
        self.floor = open.filter_map(|(_, count)| *count).min().unwrap_or(0);
    }

    /// By how much one more copy beside `there` others exceeds the skew.
    pub fn excess(&self, there: u32) -> u32 {
        (there + 1).saturating_sub(self.floor + self.max_skew)
    }

    /// By how much a copy would exceed the skew that comes in place of one of `there`.
    fn excess_instead(&self, there: u32) -> u32 {
        there.saturating_sub(self.floor.min(there.saturating_sub(1)) + self.max_skew)
    }

    /// The same for a zone of the class; `None` when it is refused.
    pub fn skew_of(&self, zone: usize) -> Option<u32> {
        if self.by_node {
            return Some(0);
        }
        match self.counts.get(zone).copied().flatten() {
            Some(there) => Some(self.excess(there)).filter(|excess| self.relax || *excess == 0),
            None => self.relax.then_some(u32::MAX),
        }
    }
}

impl Scene<'_> {
    /// Prepares one app's demand. The class must be up to date.
    pub fn request<'a>(&self, app: AppId, spec: &'a AppSpec, class: &Class, own_class: bool) -> Request<'a> {
        let zones = spec.spread.as_ref().map(|spread| {
            let (relax, max_skew) = (spread.when_full == WhenFull::Relax, spread.max_skew);
            let mut zones = Zones { relax, max_skew, by_node: spread.by == "node", ..Zones::default() };
            if zones.by_node {
                zones.floor = self.emptiest_node(app, spec, class);
            } else {
                self.count_zones(&mut zones, app, class, own_class);
            }
            zones
        });
        Request { app, spec, zones }
    }

    fn count_zones(&self, zones: &mut Zones, app: AppId, class: &Class, own_class: bool) {
        zones.counts = class.zones.iter().map(|zone| zone.labelled.then_some(zone.copies)).collect();
        if !own_class {
            let seen = self.world.apps.get(&app);
            for (node, copies) in seen.iter().flat_map(|seen| &seen.on_node) {
                let lost = self.world.node(*node).is_none_or(|seen| seen.liveness == Liveness::Lost);
                let zone = class.zone_of(*node).filter(|_| !lost);
                if let Some(Some(count)) = zone.and_then(|zone| zones.counts.get_mut(zone)) {
                    *count += copies;
                }
            }
        }
        zones.find_floor(class);
    }

    /// Takes note of a copy that was just placed for this request.
    pub fn note_placed(&self, request: &mut Request<'_>, class: &Class, node: NodeId) {
        let Request { app, spec, .. } = *request;
        match &mut request.zones {
            Some(zones) if zones.by_node => zones.floor = self.emptiest_node(app, spec, class),
            Some(zones) => zones.placed(class, node),
            None => {}
        }
    }

    /// Copies on the emptiest node in service: 0 unless every one has some.
    fn emptiest_node(&self, app: AppId, spec: &AppSpec, class: &Class) -> u32 {
        if let Some(lowest) = class.lowest_level() {
            return lowest;
        }
        let Some(seen) = self.world.apps.get(&app) else { return 0 };
        if seen.on_node.len() < class.open() as usize {
            return 0;
        }
        let taken = seen.on_node.iter().filter(|(node, _)| self.out_of_service(**node, spec).is_none());
        let (count, least) = taken.fold((0, u32::MAX), |(count, least), (_, copies)| (count + 1, least.min(*copies)));
        if count < class.open() { 0 } else { least }
    }

    /// A label as the agent told it last, else as told at the join.
    pub fn label(&self, node: NodeId, key: &str) -> Option<&str> {
        let seen = self.world.node(node)?;
        let labels = if seen.ever_heard { &seen.facts.labels } else { &self.model.nodes.get(&node)?.labels };
        labels.get(key).map(String::as_str)
    }

    /// The filters that do not depend on what is on the node.
    pub fn out_of_service(&self, node: NodeId, spec: &AppSpec) -> Option<Filter> {
        let (Some(seen), Some(known)) = (self.world.node(node), self.model.nodes.get(&node)) else {
            return Some(Filter::NotUp);
        };
        match known.state {
            NodeState::Cordoned => return Some(Filter::Cordoned),
            NodeState::Draining { .. } => return Some(Filter::Draining),
            NodeState::Active => {}
        }
        if seen.liveness != Liveness::Up || !seen.reachable() {
            return Some(Filter::NotUp);
        }
        let broken = |constraint: &Constraint| !holds(constraint, self.label(node, &constraint.label));
        spec.constraints.iter().position(broken).map(Filter::Constraint)
    }

    /// The first filter that refuses a node.
    pub fn refusal(&self, node: NodeId, request: &Request<'_>, class: Option<&Class>) -> Option<Filter> {
        let spec = request.spec;
        if let Some(filter) = self.out_of_service(node, spec) {
            return Some(filter);
        }
        let room = self.world.node(node)?.room();
        if spec.resources.cpu > room.cpu {
            return Some(Filter::Cpu);
        }
        if spec.resources.memory > room.memory {
            return Some(Filter::Memory);
        }
        self.refusal_by_app(node, request, class)
    }

    /// Would a new copy fit where this one is, when it is gone?
    pub fn fits_instead(&self, old: &Replica, request: &Request<'_>, class: &Class) -> bool {
        let (node, spec) = (old.node, request.spec);
        let room = self.world.node(node).map(|seen| seen.room() + old.resources).unwrap_or_default();
        let here = self.copies_on(request.app, node);
        let said_full = self.world.apps.get(&request.app).is_some_and(|app| app.backoff.said_full(node, self.now));
        if self.out_of_service(node, spec).is_some() || !spec.resources.fits(&room) || said_full {
            return false;
        }
        let crowded = spec.max_per_node.is_some_and(|most| here > most);
        let refused = request.zones.as_ref().filter(|zones| !zones.relax).is_some_and(|zones| {
            let zone = || zones.counts.get(class.zone_of(node)?).copied().flatten();
            let there = if zones.by_node { Some(here) } else { zone() };
            there.is_none_or(|there| zones.excess_instead(there) > 0)
        });
        !crowded && !refused
    }

    /// The filters that depend on the app's own copies.
    fn refusal_by_app(&self, node: NodeId, request: &Request<'_>, class: Option<&Class>) -> Option<Filter> {
        let app = self.world.apps.get(&request.app);
        let here = app.and_then(|app| app.on_node.get(&node)).copied().unwrap_or(0);
        if request.spec.max_per_node.is_some_and(|most| here >= most) {
            return Some(Filter::PerNode);
        }
        if app.is_some_and(|app| app.backoff.said_full(node, self.now)) {
            return Some(Filter::SaidFull);
        }
        let (Some(spread), Some(zones)) = (&request.spec.spread, &request.zones) else { return None };
        if zones.by_node {
            return (!zones.relax && zones.excess(here) > 0).then_some(Filter::Spread);
        }
        let zone = class?.zone_of(node)?;
        let refused = zones.skew_of(zone).is_none();
        let labelled = self.label(node, &spread.by).is_some();
        refused.then_some(if labelled { Filter::Spread } else { Filter::NoSpreadLabel })
    }
}

/// Does a label's value meet the condition?
pub fn holds(constraint: &Constraint, value: Option<&str>) -> bool {
    let listed = || value.is_some_and(|value| constraint.values.iter().any(|one| one == value));
    match constraint.operator {
        ConstraintOperator::In => listed(),
        ConstraintOperator::NotIn => !listed(),
        ConstraintOperator::Exists => value.is_some(),
        ConstraintOperator::NotExists => value.is_none(),
    }
}
