//! A drain or a takeover that does not advance is told, with what is in its way: replacements must be ready before copies go, and
//! that may never come true by itself.

use serde::Serialize;

use crate::effect::EventKind;
use crate::ids::{AppId, NodeId};
use crate::input::Lifecycle;
use crate::model::command::NodeState;
use crate::observe::node::NodeSeen;
use crate::observe::replica::{Replica, Standing};
use crate::reason::{Reason, count};
use crate::time::Instant;
use crate::turn::{About, Scene, Turn};

/// How the replacement of an app's copies goes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Advance {
    /// The fewest copies that were still to be replaced.
    stale: u32,
    /// The most new ones that were ready.
    ready: u32,
    /// Since when neither has changed for the better.
    since: Instant,
    told: bool,
}

impl Turn<'_> {
    /// Notes how the replacement goes; people hear of it when it is stuck.
    pub fn watch_replacement(&mut self, app: AppId) {
        let (now, patience) = (self.now, self.limits.stuck_after);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let (stale, ready) = (seen.tally.stale, seen.tally.fresh_ready);
        if stale == 0 {
            seen.advance = None;
            return;
        }
        let leaving = seen.tally.retiring + seen.tally.ending;
        let moved = |before: &Advance| stale != before.stale || ready > before.ready || leaving > 0;
        let stands = seen.advance.filter(|before| !moved(before));
        let advance = stands.unwrap_or(Advance { stale, ready, since: now, told: false });
        let due = advance.since + patience;
        let tell = now >= due && !advance.told;
        seen.advance = Some(Advance { told: advance.told || tell, ..advance });
        if tell {
            let text = self.scene().stuck_text(app, now - advance.since);
            self.tell(EventKind::Rollout, About::app(app), Reason::new("replacement_stuck", text));
        } else if !advance.told {
            self.wake(app, due);
        }
    }
}

impl Scene<'_> {
    fn stuck_text(&self, app: AppId, length: crate::units::Millis) -> String {
        let stale = self.world.apps.get(&app).map_or(0, |seen| seen.tally.stale);
        let waiting = count(stale, "copy waits", "copies wait");
        format!("{waiting} to be replaced and nothing has moved for {length}: {}", self.in_the_way(app))
    }

    /// Why copies that shall be replaced are still there.
    pub fn in_the_way(&self, app: AppId) -> String {
        let Some(seen) = self.world.apps.get(&app) else { return String::new() };
        let (tally, waiting) = (seen.tally, seen.backoff.due.iter().filter(|due| **due > self.now).min());
        let mut reasons = Vec::new();
        if let Some(unplaced) = &seen.unplaced {
            reasons.push(unplaced.text.clone());
        }
        if let Some(due) = waiting {
            let level = seen.backoff.level;
            reasons.push(format!("new copies crash ({level} in a row), the next one starts in {}", *due - self.now));
        }
        if tally.fresh > tally.fresh_ready {
            let unready = count(tally.fresh - tally.fresh_ready, "new copy is", "new copies are");
            reasons.push(format!("{unready} not ready yet, and only a ready one may take over"));
        }
        if tally.retiring + tally.ending > 0 {
            let leaving = count(tally.retiring + tally.ending, "copy is", "copies are");
            reasons.push(format!("{leaving} on the way out"));
        }
        if reasons.is_empty() {
            reasons.push("new copies are about to be started".to_owned());
        }
        reasons.extend(self.draining_nodes(app).map(|(name, deadline)| match deadline > self.now {
            true => format!("the drain of {name} stops its copies in {} all the same", deadline - self.now),
            false => format!("the drain of {name} has run out of time"),
        }));
        reasons.join("; ")
    }

    /// Draining nodes on which an app has copies, with their deadlines.
    fn draining_nodes(&self, app: AppId) -> impl Iterator<Item = (String, Instant)> {
        let on = self.world.apps.get(&app).into_iter().flat_map(|seen| seen.on_node.keys());
        let deadline = |node: &NodeId| match self.model.nodes.get(node)?.state {
            NodeState::Draining { deadline } => Some((self.node_name(*node).into_owned(), deadline)),
            _ => None,
        };
        on.filter_map(deadline)
    }

    /// How a node's drain stands; nothing for a node that is not drained.
    pub fn drain_fact(&self, node: NodeId, seen: &NodeSeen) -> Option<String> {
        let NodeState::Draining { deadline } = self.model.nodes.get(&node)?.state else { return None };
        let copies = || seen.replicas.values().map(|slot| self.world.replicas.at(*slot));
        let number = |wanted: fn(&Replica) -> bool| copies().filter(|replica| wanted(replica)).count();
        let orphans = number(|replica| replica.standing == Standing::Orphan);
        let leaving = number(|replica| replica.retire.is_some() || replica.seen.lifecycle >= Lifecycle::Stopping);
        let waiting = copies().count() - orphans - leaving;
        let left = match (copies().count(), deadline > self.now) {
            (0, _) => return Some("it is drained: no copies are left".to_owned()),
            (_, true) => format!("in {} what is left is stopped all the same", deadline - self.now),
            (_, false) => "its deadline is over".to_owned(),
        };
        Some(format!(
            "draining: {waiting} wait until their replacement is ready, {leaving} are parked or stopping, {orphans} are unknown to the \
             cluster and left alone; {left}"
        ))
    }
}
