//! What found no room, which filter refused which nodes, and what would help: with names and figures, so that a person can do it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::classes::Class;
use super::eligible::{Filter, Request};
use crate::ids::NodeId;
use crate::model::spec::{AppSpec, Constraint, ConstraintOperator};
use crate::reason::count;
use crate::time::Instant;
use crate::turn::Scene;
use crate::units::Resources;

/// Nodes of one filter that are named: more names help nobody.
const NAMED: usize = 3;

/// Copies that found no room: a report, not an error.
#[derive(Clone, Debug, Serialize)]
pub struct Unplaced {
    /// How many.
    pub count: u32,
    /// Since when.
    pub since: Instant,
    /// Nodes per filter that refused them.
    pub refused: Vec<(Filter, u32)>,
    /// In one sentence, with what would help most.
    pub text: String,
    /// One line per filter: how many nodes, which, and what would help.
    pub facts: Vec<String>,
}

/// The nodes that one filter refuses.
#[derive(Clone, Debug, Default)]
struct Refused {
    nodes: u32,
    /// The first few.
    named: Vec<NodeId>,
    /// The most that one of them has free, in either dimension.
    free: Resources,
    /// The most that one of them has in all.
    capacity: Resources,
}

/// All nodes that refuse a request, by the first filter that does.
#[derive(Clone, Debug, Default)]
pub struct Obstacles(BTreeMap<Filter, Refused>);

impl Scene<'_> {
    /// Asks every node. The class must be up to date.
    pub fn obstacles(&self, request: &Request<'_>, class: &Class) -> Obstacles {
        let mut found = Obstacles::default();
        for (node, seen) in self.world.nodes() {
            let Some(filter) = self.refusal(node, request, Some(class)) else { continue };
            let refused = found.0.entry(filter).or_default();
            refused.nodes += 1;
            refused.free = refused.free.max(seen.room());
            refused.capacity = refused.capacity.max(seen.facts.capacity);
            if refused.named.len() < NAMED {
                refused.named.push(node);
            }
        }
        found
    }
}

impl Obstacles {
    /// How many nodes each filter refuses.
    pub fn counts(&self) -> Vec<(Filter, u32)> {
        self.0.iter().map(|(filter, refused)| (*filter, refused.nodes)).collect()
    }

    /// One sentence for an event or a table.
    pub fn text(&self, spec: &AppSpec, missing: u32) -> String {
        let nodes: u32 = self.0.values().map(|refused| refused.nodes).sum();
        if nodes == 0 {
            return format!(
                "{} for a node: none has joined; start one with `bellows agent`",
                count(missing, "copy waits", "copies wait")
            );
        }
        let each: Vec<String> = self
            .0
            .iter()
            .map(|(filter, refused)| format!("{} {}", refused.nodes, refused.why(*filter, spec)))
            .collect();
        let largest = self.0.iter().max_by_key(|(_, refused)| refused.nodes);
        let helps = largest.map_or("", |(filter, _)| in_short(*filter));
        let (copies, nodes) = (count(missing, "copy", "copies"), count(nodes, "node", "nodes"));
        format!("{copies} found no place among {nodes}: {}; {helps}", each.join(", "))
    }

    /// One line per filter, with names and what would help.
    pub fn facts(&self, scene: &Scene<'_>, spec: &AppSpec) -> Vec<String> {
        let line = |(filter, refused): (&Filter, &Refused)| {
            format!(
                "{} ({}) {}: {}",
                count(refused.nodes, "node", "nodes"),
                refused.names(scene),
                refused.why(*filter, spec),
                refused.mend(*filter, spec, scene)
            )
        };
        self.0.iter().map(line).collect()
    }
}

impl Refused {
    fn names(&self, scene: &Scene<'_>) -> String {
        let names: Vec<_> = self.named.iter().map(|node| scene.node_name(*node)).collect();
        match self.nodes as usize - self.named.len() {
            0 => names.join(", "),
            others => format!("{} and {others} more", names.join(", ")),
        }
    }

    /// Why the filter refuses these nodes.
    fn why(&self, filter: Filter, spec: &AppSpec) -> String {
        let asked = spec.resources;
        let by = spec.spread.as_ref().map_or("", |spread| &spread.by);
        match filter {
            Filter::Cordoned => "cordoned".to_owned(),
            Filter::Draining => "draining".to_owned(),
            Filter::NotUp => "not heard".to_owned(),
            Filter::Constraint(at) => spec.constraints.get(at).map_or_else(String::new, unmet),
            Filter::Cpu => {
                format!("with too little CPU ({} asked, at most {} free)", asked.cpu, self.free.cpu)
            }
            Filter::Memory => {
                format!("with too little memory ({} asked, at most {} free)", asked.memory, self.free.memory)
            }
            Filter::PerNode => {
                let most = count(spec.max_per_node.unwrap_or(0), "copy", "copies");
                format!("with {most} already, the most allowed on one node")
            }
            Filter::NoSpreadLabel => format!("without the label \"{by}\" of the spread"),
            Filter::Spread => format!("in a full part of the spread over \"{by}\""),
            Filter::SaidFull => "that measured no room a moment ago".to_owned(),
        }
    }

    /// What a person can do about it.
    fn mend(&self, filter: Filter, spec: &AppSpec, scene: &Scene<'_>) -> String {
        let first = self.named.first().map(|node| scene.node_name(*node)).unwrap_or_default();
        let likewise = if self.nodes > 1 { ", likewise the others" } else { "" };
        match filter {
            Filter::Cordoned => format!("`bellows uncordon {first}`{likewise}"),
            Filter::Draining => format!("`bellows uncordon {first}` takes it back{likewise}"),
            Filter::NotUp => format!("`bellows explain {first}`; is the server up, does its agent run?"),
            Filter::Constraint(at) => spec.constraints.get(at).map_or_else(String::new, meeting),
            Filter::Cpu => {
                let (asked, free) = (spec.resources.cpu, self.free.cpu);
                enough("resources.cpu", "CPU", asked > self.capacity.cpu, (asked, free, self.capacity.cpu))
            }
            Filter::Memory => {
                let (asked, free) = (spec.resources.memory, self.free.memory);
                enough("resources.memory", "memory", asked > self.capacity.memory, (asked, free, self.capacity.memory))
            }
            Filter::PerNode => "raise `max_per_node`, or add nodes".to_owned(),
            Filter::NoSpreadLabel => {
                "start these agents with that label (`--label`), or spread over another".to_owned()
            }
            Filter::Spread => "make room in the emptier parts, raise `max_skew`, or say `when_full: relax`".to_owned(),
            Filter::SaidFull => "it is tried again in a moment".to_owned(),
        }
    }
}

fn enough<T>(field: &str, what: &str, never: bool, (asked, free, capacity): (T, T, T)) -> String
where
    T: std::fmt::Display + Default + PartialEq,
{
    let lower = if free == T::default() { format!("lower `{field}`") } else { format!("lower `{field}` to {free}") };
    match never {
        true => format!("{asked} never fits there, the largest has {capacity} in all: {lower}, or add larger nodes"),
        false => format!("end copies there, {lower}, or add a node with {asked} of {what} free"),
    }
}

fn unmet(constraint: &Constraint) -> String {
    let (label, values) = (&constraint.label, constraint.values.join(", "));
    match constraint.operator {
        ConstraintOperator::In => format!("without {label} in [{values}]"),
        ConstraintOperator::NotIn => format!("with {label} in [{values}]"),
        ConstraintOperator::Exists => format!("without the label {label}"),
        ConstraintOperator::NotExists => format!("with the label {label}"),
    }
}

fn meeting(constraint: &Constraint) -> String {
    let label = &constraint.label;
    match constraint.operator {
        ConstraintOperator::In => {
            let value = constraint.values.first().map_or("", String::as_str);
            format!("start an agent with `--label {label}={value}`, or change the constraint")
        }
        ConstraintOperator::Exists => format!("start an agent with `--label {label}=...`, or drop the constraint"),
        ConstraintOperator::NotIn | ConstraintOperator::NotExists => {
            format!("add a node without that label, or drop the constraint on {label}")
        }
    }
}

/// For the one sentence.
fn in_short(filter: Filter) -> &'static str {
    match filter {
        Filter::Cordoned | Filter::Draining => "`bellows uncordon NODE` would help",
        Filter::NotUp => "see `bellows nodes` for the servers that are not heard",
        Filter::Constraint(_) => "a node with the label, or another constraint would help",
        Filter::Cpu => "a node with more free CPU, fewer copies, or a smaller `resources.cpu` would help",
        Filter::Memory => "a node with more free memory, fewer copies, or a smaller `resources.memory` would help",
        Filter::PerNode => "more nodes, or a higher `max_per_node` would help",
        Filter::NoSpreadLabel | Filter::Spread => {
            "room in the emptier parts, a higher `max_skew`, or `when_full: relax` would help"
        }
        Filter::SaidFull => "it is tried again in a moment",
    }
}
