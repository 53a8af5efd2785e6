//! `bellows explain`: why here, why not, why so many, why ended. From kept reasons and the planner's own filters.

use super::View;
use super::rows::state_word;
use crate::ids::{AppId, NodeId, ReplicaId};
use crate::model::spec::Scale;
use crate::observe::inventory::exit_text;
use crate::observe::node::Liveness;
use crate::observe::replica::{Gone, Replica, Sight};

impl View<'_> {
    /// Why an app has the copies that it has. Lines for people.
    pub fn explain_app(&self, id: AppId) -> Vec<String> {
        let Some(known) = self.model().apps.get(&id) else {
            return vec![format!("app {} was removed or never declared", self.app_name(id))];
        };
        let Some(row) = self.app(id) else { return Vec::new() };
        let mut lines = vec![format!(
            "app {} at generation {}, revision {}: {} wanted, {} ready, {} starting, {} stopping, {} lost",
            row.name, row.generation, row.revision, row.wanted, row.ready, row.starting, row.stopping, row.lost
        )];
        match &known.current.spec.scale {
            Scale::Declared { .. } => {
                lines.push(format!("count: {} was declared (generation {})", known.wanted, known.generation));
            }
            Scale::Policies(bounds) => self.explain_scaling(id, bounds, &mut lines),
        }
        let Some(seen) = self.app_seen(id) else { return lines };
        if let Some(unplaced) = &seen.unplaced {
            lines.push(format!("not placed since {}: {}", unplaced.since, unplaced.text));
        }
        for due in seen.backoff.due.iter().filter(|due| **due > self.now()) {
            lines.push(format!(
                "backing off: crash {} in a row, the next copy starts in {}",
                seen.backoff.level,
                *due - self.now()
            ));
        }
        let hidden = seen.assumed.saturating_sub(seen.tally.alive());
        if hidden > 0 && self.world().is_some_and(|world| !world.all_accounted_for()) {
            lines.push(format!(
                "waiting: up to {hidden} copies may run on nodes that this new leader has not heard yet"
            ));
        }
        lines.extend(seen.gone.iter().rev().take(5).map(|gone| self.gone_line(gone)));
        lines
    }

    fn explain_scaling(&self, id: AppId, bounds: &crate::model::spec::Elastic, lines: &mut Vec<String>) {
        let Some(elastic) = self.app_seen(id).and_then(|seen| seen.elastic.as_ref()) else { return };
        lines.push(format!("count: {}", elastic.reason));
        lines.extend(elastic.figures.iter().map(|figure| format!("now: {}", figure.text)));
        let (largest, grace) = (elastic.window.largest(), bounds.idle_grace);
        let full = elastic.window.is_full(self.now(), grace);
        let state = if full { "watched in full" } else { "not watched in full yet: the count cannot fall" };
        lines.push(format!(
            "window: at most {largest} needed within {grace} ({state}); it falls when that is below {}",
            elastic.wanted
        ));
    }

    /// Why a copy is where it is, or why it ended.
    pub fn explain_replica(&self, id: ReplicaId) -> Vec<String> {
        let Some(world) = self.world() else { return vec!["this controller does not lead".to_owned()] };
        if let Some(slot) = world.replicas.find(id) {
            return self.explain_living(world.replicas.at(slot));
        }
        let gone = world.apps.values().flat_map(|seen| &seen.gone).find(|gone| gone.id == id);
        match gone {
            Some(gone) => vec![self.gone_line(gone), format!("it had been there because: {}", gone.placed)],
            None => vec![format!("no copy {id} is known; `bellows replicas` lists those that live")],
        }
    }

    fn explain_living(&self, replica: &Replica) -> Vec<String> {
        let reason = self.scene().map(|scene| scene.placed_reason(replica)).unwrap_or_default();
        let mut lines = vec![
            format!(
                "{} of app {} on node {}: {}",
                replica.id,
                self.app_name(replica.app),
                self.node_name(replica.node),
                state_word(replica)
            ),
            format!("here because: {reason}"),
        ];
        if let Some(exit) = replica.seen.last_exit {
            let (attempt, how) = (replica.seen.attempt, exit_text(exit));
            lines.push(format!("attempt {attempt}, in place; the last end seen: {how}"));
        }
        if let Some(order) = replica.ordered {
            lines.push(format!("its start order {order} has not been acknowledged yet; its resources are set aside"));
        }
        if let Some(retire) = &replica.retire {
            lines.push(format!("ending because: {}; patience ends in {}", retire.reason, retire.deadline - self.now()));
        }
        match replica.sight {
            Sight::Held(until) => lines.push(format!(
                "its node is lost; the agent ends it by itself, and it is replaced in {}",
                until - self.now()
            )),
            Sight::Lost => lines.push("its node is lost; it is not counted".to_owned()),
            Sight::Blind => lines.push("its node cannot be heard at the moment; it is still counted".to_owned()),
            Sight::Clear => {}
        }
        lines
    }

    fn gone_line(&self, gone: &Gone) -> String {
        format!(
            "ended: {} on {} at {}: {}, {}",
            gone.id,
            self.node_name(gone.node),
            gone.at,
            exit_text(gone.exit),
            gone.why
        )
    }

    /// How a node stands, and why it takes copies or not.
    pub fn explain_node(&self, id: NodeId) -> Vec<String> {
        let Some(row) = self.node(id) else { return vec![format!("node {id} is not part of this cluster")] };
        let mut lines = vec![format!(
            "node {}: {}, {:?}, load {}, {} copies, {} of {} CPU and {} of {} memory declared",
            row.name,
            row.state,
            row.liveness,
            row.load,
            row.replicas,
            row.reserved.cpu,
            row.capacity.cpu,
            row.reserved.memory,
            row.capacity.memory
        )];
        let Some(seen) = self.node_seen(id) else { return lines };
        match (row.liveness, row.age) {
            (Liveness::Up, Some(age)) => {
                lines.push(format!("its load was read {age} ago: {} CPU, {} memory", row.used.cpu, row.used.memory))
            }
            (Liveness::Up, None) => lines.push("its load was not read yet".to_owned()),
            _ => lines.push(format!("last heard {} ago", self.now() - row.heard)),
        }
        let (level, until) = seen.flaps;
        if self.now() < until {
            lines.push(format!("it was lost {level} times lately and ranks behind others for {}", until - self.now()));
        }
        lines
    }
}
