//! Who may take a copy. Hard filters, each of which counts whom it refused, so that a lack of room is a report and no riddle.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ids::{AppId, NodeId};
use crate::model::command::NodeState;
use crate::model::spec::{AppSpec, Constraint, ConstraintOperator, WhenFull};
use crate::observe::node::Liveness;
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

/// One app's demand on a node, prepared once for several copies.
pub struct Request<'a> {
    /// Whose.
    pub app: AppId,
    /// What it declares.
    pub spec: &'a AppSpec,
    /// The spread to keep.
    pub zones: Option<Zones>,
}

/// Copies per value of the spread's label, over the nodes that pass all other filters.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    counts: BTreeMap<String, u32>,
    /// The floor is taken over these: values with a node in service that meets the constraints, with room or not.
    open: BTreeSet<String>,
    max_skew: u32,
    relax: bool,
}

impl Zones {
    /// The count of the emptiest value that could take a copy.
    fn floor(&self) -> u32 {
        self.open.iter().map(|value| self.count(value)).min().unwrap_or(0)
    }

    fn count(&self, value: &str) -> u32 {
        self.counts.get(value).copied().unwrap_or(0)
    }

    /// By how much one more copy in this part exceeds the skew.
    pub fn excess(&self, value: &str) -> u32 {
        (self.count(value) + 1).saturating_sub(self.floor() + self.max_skew)
    }

    /// One more there.
    pub fn add(&mut self, value: &str) {
        *self.counts.entry(value.to_owned()).or_default() += 1;
    }
}

impl Scene<'_> {
    /// Prepares one app's demand.
    pub fn request<'a>(&self, app: AppId, spec: &'a AppSpec) -> Request<'a> {
        let mut request = Request { app, spec, zones: None };
        let Some(spread) = &spec.spread else { return request };
        let relax = spread.when_full == WhenFull::Relax;
        let mut zones = Zones { max_skew: spread.max_skew, relax, ..Zones::default() };
        let on_node = self.world.apps.get(&app).map(|seen| &seen.on_node);
        for (node, count) in on_node.into_iter().flatten() {
            let lost = self.world.node(*node).is_none_or(|seen| seen.liveness == Liveness::Lost);
            if let Some(value) = self.spread_value(*node, &spread.by).filter(|_| !lost) {
                *zones.counts.entry(value).or_default() += count;
            }
        }
        for (node, _) in self.world.nodes() {
            if self.out_of_service(node, spec).is_none()
                && let Some(value) = self.spread_value(node, &spread.by)
            {
                zones.open.insert(value);
            }
        }
        request.zones = Some(zones);
        request
    }

    /// The value of the label, or the node itself.
    pub fn spread_value(&self, node: NodeId, by: &str) -> Option<String> {
        if by == "node" {
            return Some(node.to_string());
        }
        self.label(node, by).map(str::to_owned)
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
    pub fn refusal(&self, node: NodeId, request: &Request<'_>) -> Option<Filter> {
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
        self.refusal_by_app(node, request)
    }

    /// The filters that depend on the app's own copies.
    fn refusal_by_app(&self, node: NodeId, request: &Request<'_>) -> Option<Filter> {
        let app = self.world.apps.get(&request.app);
        let here = app.and_then(|app| app.on_node.get(&node)).copied().unwrap_or(0);
        if request.spec.max_per_node.is_some_and(|most| here >= most) {
            return Some(Filter::PerNode);
        }
        if app.is_some_and(|app| app.backoff.said_full(node, self.now)) {
            return Some(Filter::SaidFull);
        }
        let (Some(spread), Some(zones)) = (&request.spec.spread, &request.zones) else { return None };
        match self.spread_value(node, &spread.by) {
            None if !zones.relax => Some(Filter::NoSpreadLabel),
            Some(value) if !zones.relax && zones.excess(&value) > 0 => Some(Filter::Spread),
            _ => None,
        }
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
