//! Where copies go.

use super::eligible::Request;
use super::score::{Choice, Rank, Why, draw};
use crate::effect::{Action, EventKind};
use crate::ids::{AppId, NodeId, ReplicaId};
use crate::observe::replica::{Placed, Replica, Seen, Sight, Standing};
use crate::reason::Reason;
use crate::turn::{About, Scene, Turn};

impl Turn<'_> {
    /// Starts up to `count` copies; answers how many found a place.
    pub fn start_copies(&mut self, app: AppId, count: u32, why: Why) -> u32 {
        let Some(known) = self.model.apps.get(&app).filter(|_| count > 0) else { return 0 };
        let spec = known.current.spec.as_ref();
        let mut request = self.scene().request(app, spec);
        let mut placed = 0;
        let mut last = None;
        while placed < count {
            let Some(choice) = self.scene().choose(&request, why) else { break };
            last = self.start(app, choice).or(last);
            self.count_zone(&mut request, choice.rank.node);
            placed += 1;
        }
        self.tell_placed(app, placed, last);
        placed
    }

    fn count_zone(&self, request: &mut Request<'_>, node: NodeId) {
        let Some(by) = request.spec.spread.as_ref().map(|spread| &spread.by) else { return };
        if let (Some(value), Some(zones)) = (self.scene().spread_value(node, by), &mut request.zones) {
            zones.add(&value);
        }
    }

    fn start(&mut self, app: AppId, choice: Choice) -> Option<(ReplicaId, NodeId)> {
        let known = self.model.apps.get(&app)?;
        let (revision, digest, resources) = (known.current.number, known.current.digest, known.current.spec.resources);
        let node = choice.rank.node;
        self.world.counter += 1;
        let id = ReplicaId { fence: self.world.fence, counter: self.world.counter };
        let action = Action::Start { app, revision, digest, resources };
        let reason = self.scene().choice_reason(&choice);
        let ordered = Some(self.order(node, id, action, reason)?);
        let (placed, seen, since) = (Placed::Chosen(choice), Seen::default(), self.now);
        let (standing, fresh, sight, retire) = (Standing::Known, true, Sight::Clear, None);
        self.world.insert(Replica {
            id,
            app,
            revision,
            digest,
            node,
            resources,
            placed,
            since,
            ordered,
            standing,
            fresh,
            sight,
            seen,
            retire,
        });
        if let Some(seen) = self.world.node_mut(node) {
            seen.draws = seen.draws.wrapping_add(1);
        }
        Some((id, node))
    }

    /// One event per app and step: a burst of 100,000 copies is one piece of news.
    fn tell_placed(&mut self, app: AppId, placed: u32, last: Option<(ReplicaId, NodeId)>) {
        let Some((id, node)) = last else { return };
        if placed == 1 {
            let scene = self.scene();
            let reason = scene.world.replicas.find(id).map(|slot| scene.placed_reason(scene.world.replicas.at(slot)));
            self.tell(EventKind::Placed, About::replica(app, id, node), reason.unwrap_or_default());
        } else {
            let text = format!("{placed} copies placed; the last is {id} on {}", self.scene().node_name(node));
            self.tell(EventKind::Placed, About::app(app), Reason::new("placed", text));
        }
    }
}

impl Scene<'_> {
    /// The best node, and the next best for the record.
    pub fn choose(&self, request: &Request<'_>, why: Why) -> Option<Choice> {
        let mut best: Option<Rank> = None;
        let mut second: Option<Rank> = None;
        for (node, _) in self.world.nodes() {
            if self.refusal(node, request).is_some() {
                continue;
            }
            let rank = self.rank(node, request);
            if best.is_none_or(|best| rank < best) {
                second = best.replace(rank);
            } else if second.is_none_or(|second| rank < second) {
                second = Some(rank);
            }
        }
        let rank = best?;
        let seen = self.world.node(rank.node)?;
        let load_of = |node: NodeId| self.world.node(node).map(|seen| (node, seen.load()));
        let age = self.now - seen.measured_at.unwrap_or(self.now);
        Some(Choice { rank, why, load: seen.load(), age, runner_up: second.and_then(|rank| load_of(rank.node)) })
    }

    /// How a node compares.
    pub fn rank(&self, node: NodeId, request: &Request<'_>) -> Rank {
        let app = self.world.apps.get(&request.app);
        let seen = self.world.node(node);
        let flapping = seen.map_or(0, |seen| seen.flapping(self.now));
        let distrusted = app.map_or(0, |app| app.backoff.distrust(node, self.now));
        let step = self.limits.load_step.0.max(1);
        Rank {
            skew: self.skew(node, request),
            distrust: distrusted + flapping,
            load_step: seen.map_or(u32::MAX, |seen| seen.load().0 / step),
            same_app: app.and_then(|app| app.on_node.get(&node)).copied().unwrap_or(0),
            draw: draw(self.seed, node, seen.map_or(0, |seen| seen.draws)),
            node,
        }
    }

    fn skew(&self, node: NodeId, request: &Request<'_>) -> u32 {
        let (Some(spread), Some(zones)) = (&request.spec.spread, &request.zones) else { return 0 };
        self.spread_value(node, &spread.by).map_or(u32::MAX, |value| zones.excess(&value))
    }
}
