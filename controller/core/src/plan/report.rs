//! What people are told: why a copy is where it is, what found no room and what would help, how a rollout goes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::classes::Class;
use super::eligible::{Filter, Request};
use super::score::{Choice, Why};
use crate::effect::{Effect, EventKind};
use crate::ids::AppId;
use crate::model::command::{Change, Command};
use crate::model::spec::{AppSpec, Constraint, ConstraintOperator};
use crate::observe::replica::{Placed, Replica};
use crate::reason::{Reason, count};
use crate::time::Instant;
use crate::turn::{About, Scene, Turn};
use crate::units::{Millis, Permille};

/// Copies that found no room: a report, not an error.
#[derive(Clone, Debug, Serialize)]
pub struct Unplaced {
    /// How many.
    pub count: u32,
    /// Since when.
    pub since: Instant,
    /// Nodes per filter that refused them.
    pub refused: Vec<(Filter, u32)>,
    /// In words, with what would help.
    pub text: String,
}

impl Scene<'_> {
    /// Why a copy is where it is.
    pub fn placed_reason(&self, replica: &Replica) -> Reason {
        match &replica.placed {
            Placed::Chosen(choice) => self.choice_reason(choice),
            Placed::Told(reason) => reason.as_ref().clone(),
        }
    }

    /// A choice in words, with every figure that it rested on.
    pub fn choice_reason(&self, choice: &Choice) -> Reason {
        let (code, cause) = match choice.why {
            Why::Wanted => ("least_loaded", "more copies were wanted"),
            Why::Replacement => ("replacement", "in place of a copy on a lost node"),
            Why::TakeOver => ("take_over", "to take over from an older copy"),
        };
        let Choice { rank, load, age, runner_up, .. } = choice;
        // Put together by hand: a burst makes 100,000 of these, and formatting took longer than choosing.
        let name = self.node_name(rank.node);
        let mut text = String::with_capacity(128 + name.len());
        text.push_str(cause);
        text.push_str("; ");
        text.push_str(&name);
        text.push_str(" had load ");
        push_permille(&mut text, *load);
        text.push_str(" (read ");
        push_millis(&mut text, *age);
        text.push_str(" ago)");
        if rank.same_app > 0 {
            text.push_str(" and ");
            push_number(&mut text, u64::from(rank.same_app));
            text.push_str(if rank.same_app == 1 { " copy of this app" } else { " copies of this app" });
        }
        match runner_up {
            Some((node, load)) => {
                text.push_str(", next best ");
                text.push_str(&self.node_name(*node));
                text.push_str(" at ");
                push_permille(&mut text, *load);
            }
            None => text.push_str(", no other node could take it"),
        }
        if rank.skew > 0 {
            text.push_str("; the spread is exceeded by ");
            push_number(&mut text, u64::from(rank.skew));
            text.push_str(", as its rule allows");
        }
        Reason::new(code, text)
    }

    /// Nodes per filter that refuse a request.
    pub fn refusals(&self, request: &Request<'_>, class: &Class) -> Vec<(Filter, u32)> {
        let mut counts: BTreeMap<Filter, u32> = BTreeMap::new();
        for (node, _) in self.world.nodes() {
            if let Some(filter) = self.refusal(node, request, Some(class)) {
                *counts.entry(filter).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    fn unplaced_text(&self, spec: &AppSpec, missing: u32, refused: &[(Filter, u32)]) -> String {
        let nodes: u32 = refused.iter().map(|(_, count)| count).sum();
        if nodes == 0 {
            return format!(
                "{} for a node: none has joined; start one with `bellows agent`",
                count(missing, "copy waits", "copies wait")
            );
        }
        let each: Vec<String> =
            refused.iter().map(|(filter, count)| format!("{count} {}", self.filter_text(spec, *filter))).collect();
        let helps = refused.iter().max_by_key(|(_, count)| *count).map_or("", |(filter, _)| mend(*filter));
        {
            let (copies, nodes) = (count(missing, "copy", "copies"), count(nodes, "node", "nodes"));
            format!("{copies} found no place among {nodes}: {}; {helps}", each.join(", "))
        }
    }

    fn filter_text(&self, spec: &AppSpec, filter: Filter) -> String {
        let request = Request { app: AppId(0), spec, zones: None };
        let rooms = |filter| {
            let refused =
                self.world.nodes().filter(move |(node, _)| self.refusal(*node, &request, None) == Some(filter));
            refused.map(|(_, seen)| seen.room()).collect::<Vec<_>>().into_iter()
        };
        match filter {
            Filter::Cordoned => "cordoned".to_owned(),
            Filter::Draining => "draining".to_owned(),
            Filter::NotUp => "not heard".to_owned(),
            Filter::Constraint(at) => {
                spec.constraints.get(at).map_or_else(String::new, |one| format!("without {}", constraint_text(one)))
            }
            Filter::Cpu => {
                let most = rooms(filter).map(|room| room.cpu).max().unwrap_or_default();
                format!("with too little CPU ({} asked, at most {most} free)", spec.resources.cpu)
            }
            Filter::Memory => {
                let most = rooms(filter).map(|room| room.memory).max().unwrap_or_default();
                format!("with too little memory ({} asked, at most {most} free)", spec.resources.memory)
            }
            Filter::PerNode => {
                format!(
                    "with {} already, the most allowed on one node",
                    count(spec.max_per_node.unwrap_or(0), "copy", "copies")
                )
            }
            Filter::NoSpreadLabel => {
                format!("without the label \"{}\" of the spread", spec.spread.as_ref().map_or("", |spread| &spread.by))
            }
            Filter::Spread => format!(
                "in a full part of the spread over \"{}\"",
                spec.spread.as_ref().map_or("", |spread| &spread.by)
            ),
            Filter::SaidFull => "that measured no room a moment ago".to_owned(),
        }
    }
}

impl Turn<'_> {
    /// Records what found no room; people hear of it when it is news.
    pub fn report_unplaced(&mut self, app: AppId, missing: u32) {
        if missing == 0 {
            self.world.unplaced.remove(&app);
            if let Some(seen) = self.world.apps.get_mut(&app) {
                seen.unplaced = None;
            }
            return;
        }
        let Some(known) = self.model.apps.get(&app) else { return };
        let spec = known.current.spec.as_ref();
        let mut classes = std::mem::take(&mut self.world.classes);
        let scene = self.scene();
        let (key, class) = classes.take(&scene, spec, None);
        let refused = scene.refusals(&scene.request(app, spec, &class, false), &class);
        let text = scene.unplaced_text(spec, missing, &refused);
        classes.keep(key, class);
        self.world.classes = classes;
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let before = seen.unplaced.take();
        let news = before.as_ref().is_none_or(|before| before.text != text);
        let since = before.map_or(self.now, |before| before.since);
        seen.unplaced = Some(Unplaced { count: missing, since, refused, text: text.clone() });
        self.world.unplaced.insert(app);
        if news {
            self.tell(EventKind::Unplaced, About::app(app), Reason::new("no_room", text));
        }
    }

    /// How the takeover by a new revision goes, and the verdict when it is done.
    pub fn report_rollout(&mut self, app: AppId) {
        let Some(known) = self.model.apps.get(&app) else { return };
        let wanted = self.scene().wanted(app);
        let number = known.current.number;
        let good = known.last_good.as_ref().is_some_and(|good| good.number == number);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let tally = seen.tally;
        let since = known.current.runs_since;
        let replicas = &self.world.replicas;
        let outdated = || seen.replicas.values().any(|slot| replicas.at(*slot).revision < since);
        if tally.stale > 0 && !seen.rolling && outdated() {
            seen.rolling = true;
            let text =
                format!("{} to be replaced by ones of revision {number}", count(tally.stale, "copy is", "copies are"));
            self.tell(EventKind::Rollout, About::app(app), Reason::new("rollout_begins", text));
        } else if tally.stale == 0 && seen.rolling && tally.fresh_ready >= wanted {
            seen.rolling = false;
            let text = format!("revision {number} has taken over with {} ready", count(wanted, "copy", "copies"));
            self.tell(EventKind::Rollout, About::app(app), Reason::new("rollout_done", text));
        }
        let proved = wanted > 0 && tally.stale == 0 && tally.fresh_ready >= wanted && !good;
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        if proved && seen.verdict < number.0 {
            seen.verdict = number.0;
            let change = Change::RecordGood { app, revision: number };
            let command = Command { at: self.now, by: "leader".to_owned(), key: String::new(), change };
            self.effects.push(Effect::Propose { token: None, command });
        }
    }
}

/// As its `Display` says it, but at once.
fn push_number(text: &mut String, number: u64) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

fn push_permille(text: &mut String, share: Permille) {
    push_number(text, u64::from(share.0));
    text.push('‰');
}

fn push_millis(text: &mut String, length: Millis) {
    match length.0 {
        // Most readings are younger than a second; the rest is rare enough to be formatted.
        millis @ 0..1_000 => {
            push_number(text, millis);
            text.push_str(" ms");
        }
        _ => text.push_str(&length.to_string()),
    }
}

fn mend(filter: Filter) -> &'static str {
    match filter {
        Filter::Cordoned | Filter::Draining => "`bellows node activate` would help",
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

fn constraint_text(constraint: &Constraint) -> String {
    let values = constraint.values.join(", ");
    match constraint.operator {
        ConstraintOperator::In => format!("{} in [{values}]", constraint.label),
        ConstraintOperator::NotIn => format!("{} not in [{values}]", constraint.label),
        ConstraintOperator::Exists => format!("the label {}", constraint.label),
        ConstraintOperator::NotExists => format!("the absence of the label {}", constraint.label),
    }
}
