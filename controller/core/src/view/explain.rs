//! `bellows explain`: why here, why not, why so many, why ended. From kept reasons and the planner's own filters.
//!
//! Where the reasons live, so that they outlive a leader: why a copy is where it is rides in its order and stays with its agent; why
//! one ended stays with the agent too, and in raft where no agent can tell; why the count is what it is stays in raft. What is being
//! waited for is worked out anew by every leader.

use serde::Serialize;

use super::View;
use super::rows::{AppRow, state_word};
use crate::ids::{AppId, NodeId, ReplicaId};
use crate::model::spec::Scale;
use crate::model::{App, Gone};
use crate::observe::inventory::exit_text;
use crate::observe::node::{Liveness, NodeSeen};
use crate::observe::replica::{Replica, Sight};
use crate::observe::world::AppSeen;
use crate::reason::count;

/// Ended copies that are told of an app; the others are found by their ids.
const TOLD_ENDS: usize = 5;

/// One answered question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// E.g. "Why 3 copies of web?".
    pub question: String,
    /// One sentence.
    pub answer: String,
    /// What it rests on.
    pub facts: Vec<String>,
}

impl Answer {
    fn new(question: impl Into<String>, answer: impl Into<String>, facts: Vec<String>) -> Self {
        Self { question: question.into(), answer: answer.into(), facts }
    }
}

impl View<'_> {
    /// Why an app has the copies that it has, why not more, what became of others.
    pub fn explain_app(&self, id: AppId) -> Vec<Answer> {
        let ends = self.app_seen(id).and_then(|seen| self.explain_ends(seen));
        let (Some(known), Some(row)) = (self.model().apps.get(&id), self.app(id)) else {
            let name = self.app_name(id);
            let alive = self.app_seen(id).map_or(0, |seen| seen.tally.alive());
            let facts = vec![format!("{} of it still on the way out", count(alive, "copy is", "copies are"))];
            let removed = Answer::new(format!("Why no copies of {name}?"), format!("app {name} was removed"), facts);
            return [Some(removed), ends].into_iter().flatten().collect();
        };
        let mut answers = vec![self.explain_count(known, &row)];
        if let Some(seen) = self.app_seen(id) {
            answers.extend(self.explain_unplaced(seen));
            answers.extend(self.explain_waiting(seen));
            answers.extend(self.explain_refusals(seen));
            answers.extend(self.explain_replacement(id, seen));
        }
        answers.extend(ends);
        answers
    }

    fn explain_count(&self, known: &App, row: &AppRow) -> Answer {
        let decided = self.app_seen(known.id).and_then(|seen| seen.elastic.as_ref());
        let (why, at) = decided.map_or((&known.counted.why, known.counted.at), |it| (&it.reason, it.at));
        let by = if decided.is_some_and(|it| it.at > known.counted.at) {
            crate::model::apply::POLICIES
        } else {
            &known.counted.by
        };
        let answer = format!("{} wanted: {why}, by {by} at {}", row.wanted, at.utc());
        let mut facts = vec![format!(
            "now: {} ready, {} starting, {} stopping, {} lost; generation {}, revision {}",
            row.ready, row.starting, row.stopping, row.lost, row.generation, row.revision
        )];
        if let Scale::Policies(bounds) = &known.current.spec.scale {
            self.explain_scaling(known.id, bounds, &mut facts);
        }
        Answer::new(format!("Why {} of {}?", count(row.wanted, "copy", "copies"), row.name), answer, facts)
    }

    fn explain_unplaced(&self, seen: &AppSeen) -> Option<Answer> {
        let unplaced = seen.unplaced.as_ref()?;
        let question = format!("Why no place for {}?", count(unplaced.count, "copy", "copies"));
        let nodes: u32 = unplaced.refused.iter().map(|(_, nodes)| nodes).sum();
        let answer = match nodes {
            0 => unplaced.text.clone(),
            nodes => {
                let since = unplaced.since.utc();
                format!(
                    "{} refused since {since}, each for the first reason that applies",
                    count(nodes, "node has", "nodes have")
                )
            }
        };
        Some(Answer::new(question, answer, unplaced.facts.clone()))
    }

    fn explain_waiting(&self, seen: &AppSeen) -> Option<Answer> {
        let now = self.now();
        let mut facts: Vec<String> = Vec::new();
        for due in seen.backoff.due.iter().filter(|due| **due > now) {
            let level = seen.backoff.level;
            facts.push(format!("backing off: crash {level} in a row, the next copy starts in {}", *due - now));
        }
        let hidden = seen.assumed.saturating_sub(seen.tally.alive());
        let world = self.world()?;
        if hidden > 0 && !world.all_accounted_for() {
            facts.push(format!("up to {hidden} copies may run on nodes that this new leader has not heard yet"));
        }
        if now < world.brake.until && seen.tally.lost > 0 {
            facts.push(format!(
                "copies on lost nodes are replaced slowly for another {}: the network may be the culprit",
                world.brake.until - now
            ));
        }
        if !world.quorum {
            facts.push("no quorum of controllers answers: nothing is ordered".to_owned());
        }
        if self.model().observing {
            facts.push("the cluster was restored and observes: `bellows resume` lets it act".to_owned());
        }
        let first = (!facts.is_empty()).then(|| facts.remove(0))?;
        Some(Answer::new("What is being waited for?", first, facts))
    }

    fn explain_refusals(&self, seen: &AppSeen) -> Option<Answer> {
        let (now, ingresses) = (self.now(), &seen.requests.ingresses);
        let told = ingresses.iter().filter_map(|(node, ingress)| Some((node, ingress, ingress.last_refusal.as_ref()?)));
        let facts: Vec<String> = told
            .map(|(node, ingress, (why, at))| {
                format!("{} at {}, the last one {} ago: {why}", ingress.refused, self.node_name(*node), now - *at)
            })
            .collect();
        let refused: u64 = ingresses.values().map(|ingress| ingress.refused).sum();
        let answer = format!(
            "{} since their ingresses' sessions began",
            count(refused, "request was refused", "requests were refused")
        );
        (!facts.is_empty()).then(|| Answer::new("Which requests were refused, and why?", answer, facts))
    }

    fn explain_replacement(&self, id: AppId, seen: &AppSeen) -> Option<Answer> {
        let stale = Some(seen.tally.stale).filter(|stale| *stale > 0)?;
        let scene = self.scene()?;
        let answer = format!(
            "{}: {}",
            count(stale, "copy waits to be replaced", "copies wait to be replaced"),
            scene.in_the_way(id)
        );
        Some(Answer::new("Why do copies run that shall be replaced?", answer, Vec::new()))
    }

    fn explain_ends(&self, seen: &AppSeen) -> Option<Answer> {
        let kept = Some(seen.gone.len()).filter(|kept| *kept > 0)?;
        let told = kept.min(TOLD_ENDS);
        let answer = match kept > told {
            true => format!("the last {told} of {kept} that are remembered; `bellows explain ID` tells of each"),
            false => format!("{} remembered", count(kept as u64, "copy is", "copies are")),
        };
        let lines = seen.gone.iter().rev().take(told).map(|gone| self.gone_line(gone)).collect();
        Some(Answer::new("Which copies ended, and why?", answer, lines))
    }

    /// Why a copy is where it is, or why it ended.
    pub fn explain_replica(&self, id: ReplicaId) -> Vec<Answer> {
        let Some(world) = self.world() else { return vec![not_leading()] };
        if let Some(slot) = world.replicas.find(id) {
            return vec![self.explain_living(world.replicas.at(slot))];
        }
        let gone = world.apps.values().flat_map(|seen| &seen.gone).find(|gone| gone.id == id);
        vec![gone.map_or_else(|| self.explain_unknown(id), |gone| self.explain_gone(gone))]
    }

    fn explain_living(&self, replica: &Replica) -> Answer {
        let reason = self.scene().map(|scene| scene.placed_reason(replica)).unwrap_or_default();
        let mut facts = vec![format!("it is {}", state_word(replica))];
        if let Some(exit) = replica.seen.last_exit {
            let (attempt, how) = (replica.seen.attempt, exit_text(exit));
            facts.push(format!("attempt {attempt}, in place; the last end seen: {how}"));
        }
        if !replica.seen.unhealthy.is_empty() {
            let when = if replica.seen.ready { "before" } else { "now" };
            facts.push(format!("unhealthy {when}: {}", replica.seen.unhealthy));
        }
        if let Some(order) = replica.ordered {
            facts.push(format!("its start order {order} has not been acknowledged yet; its resources are set aside"));
        }
        if let Some(retire) = &replica.retire {
            facts.push(format!("ending because: {}; patience ends in {}", retire.reason, retire.deadline - self.now()));
        }
        match replica.sight {
            Sight::Held(until) => facts.push(format!(
                "its node is lost; the agent ends it by itself, and it is replaced in {}",
                until - self.now()
            )),
            Sight::Lost => facts.push("its node is lost; it is not counted".to_owned()),
            Sight::Blind => facts.push("its node cannot be heard at the moment; it is still counted".to_owned()),
            Sight::Clear => {}
        }
        let (app, node) = (self.app_name(replica.app), self.node_name(replica.node));
        Answer::new(format!("Why is {} of {app} on {node}?", replica.id), reason.text, facts)
    }

    fn explain_gone(&self, gone: &Gone) -> Answer {
        let placed = if gone.placed.text.is_empty() { "nobody kept why" } else { &gone.placed.text };
        let facts = vec![
            format!("on node {} at {}, revision {}", self.place_name(gone.node), gone.at.utc(), gone.revision),
            format!("it had been there because: {placed}"),
        ];
        let question = format!("Why did {} of {} end?", gone.id, self.app_name(gone.app));
        Answer::new(question, format!("{}: {}", exit_text(gone.exit), gone.why), facts)
    }

    /// Honest about where the answer may be.
    fn explain_unknown(&self, id: ReplicaId) -> Answer {
        let mut facts = vec![format!(
            "remembered are the last {} ended copies of each app, as far as their nodes remember them",
            self.core.config().limits.kept_ended
        )];
        let unheard = self.world().into_iter().flat_map(|world| world.nodes());
        let unheard = unheard.filter(|(_, seen)| seen.liveness != Liveness::Up).map(|(node, _)| self.node_name(node));
        let unheard: Vec<String> = unheard.collect();
        if !unheard.is_empty() {
            facts.push(format!("not heard at the moment, it may be there: {}", unheard.join(", ")));
        }
        Answer::new(
            format!("What became of {id}?"),
            format!("no copy {id} is known; `bellows replicas` lists those that live"),
            facts,
        )
    }

    fn gone_line(&self, gone: &Gone) -> String {
        let (node, at) = (self.place_name(gone.node), gone.at.utc());
        format!("{} on {node} at {at}: {}, {}", gone.id, exit_text(gone.exit), gone.why)
    }

    /// A node's name, and whether it is still one.
    fn place_name(&self, node: NodeId) -> String {
        let name = self.node_name(node);
        if self.model().nodes.contains_key(&node) { name } else { format!("{name} (removed)") }
    }

    /// How a node stands, and why it takes copies or not.
    pub fn explain_node(&self, id: NodeId) -> Vec<Answer> {
        let Some(row) = self.node(id) else { return self.explain_removed_node(id).into_iter().collect() };
        let answer = format!(
            "{}, {}, load {}, {}, {} of {} CPU and {} of {} memory declared",
            row.state,
            liveness_word(row.liveness),
            row.load,
            count(row.replicas, "copy", "copies"),
            row.reserved.cpu,
            row.capacity.cpu,
            row.reserved.memory,
            row.capacity.memory
        );
        let facts = self.node_seen(id).map(|seen| self.node_facts(id, seen)).unwrap_or_default();
        vec![Answer::new(format!("How does node {} stand?", row.name), answer, facts)]
    }

    fn node_facts(&self, id: NodeId, seen: &NodeSeen) -> Vec<String> {
        let now = self.now();
        let used = seen.measured.used;
        let mut facts = vec![match (seen.liveness, seen.measured_at) {
            (Liveness::Up, Some(at)) => {
                format!("its load was read {} ago: {} CPU, {} memory", now - at, used.cpu, used.memory)
            }
            (Liveness::Up, None) => "its load was not read yet".to_owned(),
            _ => format!("last heard {} ago", now - seen.heard),
        }];
        facts.extend(self.scene().and_then(|scene| scene.drain_fact(id, seen)));
        let (level, until) = seen.flaps;
        if now < until {
            facts.push(format!("it was lost {level} times lately and ranks behind others for {}", until - now));
        }
        if seen.newcomer.is_some() {
            facts.push(
                "another agent with its identity has connected; which one is the clone is being found out".to_owned(),
            );
        }
        facts
    }

    /// A node that left for good.
    pub fn explain_removed_node(&self, id: NodeId) -> Option<Answer> {
        let removed = self.model().removed_node(id)?;
        let facts =
            vec![format!("its number {id} is never given out again; a server that comes back joins with a token")];
        let answer = format!("removed for good by {} at {}", removed.by, removed.at.utc());
        Some(Answer::new(format!("How does node {} stand?", removed.name), answer, facts))
    }
}

fn not_leading() -> Answer {
    Answer::new("Who knows?", "this controller does not lead; ask another", Vec::new())
}

fn liveness_word(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Up => "up",
        Liveness::Unknown => "not heard at the moment",
        Liveness::Lost => "lost",
    }
}
