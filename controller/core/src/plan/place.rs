//! Where copies go.

use super::classes::{Class, FEW};
use super::eligible::Request;
use super::score::{Choice, Rank, Why, draw};
use super::tree::{Judge, Key, Tree};
use crate::effect::EventKind;
use crate::ids::{AppId, NodeId, ReplicaId};
use crate::limits::Planted;
use crate::model::App;
use crate::observe::node::NodeSeen;
use crate::observe::outbox::Pending;
use crate::observe::replica::{Placed, Replica, Seen, Sight, Standing};
use crate::observe::world::AppSeen;
use crate::reason::Reason;
use crate::turn::{About, Scene, Turn};
use crate::units::Resources;

impl Turn<'_> {
    /// Starts up to `count` copies; answers how many found a place.
    pub fn start_copies(&mut self, app: AppId, count: u32, why: Why) -> u32 {
        let Some(known) = self.model.apps.get(&app).filter(|_| count > 0) else { return 0 };
        let spec = known.current.spec.as_ref();
        let of = self.deserves_own_class(app, count).then_some(app);
        let mut classes = std::mem::take(&mut self.world.classes);
        let (key, mut class) = classes.take(&self.scene(), spec, of);
        self.world.classes = classes;
        let mut request = self.scene().request(app, spec, &class, of.is_some());
        let (mut placed, mut last, mut nodes) = (0, None, Vec::new());
        while placed < count {
            let Some(choice) = self.scene().choose(&request, &class, of.is_some(), why) else { break };
            let node = choice.rank.node;
            last = self.start(known, choice).map(|id| (id, node)).or(last);
            placed += 1;
            // Nothing else changes meanwhile, so the class stays up to date.
            class.placed(&self.scene(), spec, &key, app, node);
            self.scene().note_placed(&mut request, &class, node);
            if of.is_none() {
                nodes.push(node);
            }
        }
        // The next request of the class may be another app's.
        nodes.into_iter().for_each(|node| class.restore(&self.scene(), spec, &key, node));
        self.world.classes.keep_current(key, class);
        self.tell_placed(app, placed, last);
        placed
    }

    /// In the shared class a search walks past the app's own copies; a class of its own keeps them in order, but has to hear of
    /// every change of every node. It pays off when the walks would be longer than building it, or most nodes have copies.
    fn deserves_own_class(&self, app: AppId, count: u32) -> bool {
        let nodes = self.world.watched() as u64;
        let there = self.world.apps.get(&app).map_or(0, |seen| seen.on_node.len() as u64);
        let count = u64::from(count);
        let walks = count * (there + count / 2);
        walks > 4 * nodes.max(FEW) || there > (nodes / 8).max(FEW)
    }

    fn start(&mut self, known: &App, choice: Choice) -> Option<ReplicaId> {
        let (app, revision, digest) = (known.id, known.current.number, known.current.digest);
        let resources = known.current.spec.resources;
        let node = choice.rank.node;
        self.world.counter += 1;
        let id = ReplicaId { fence: self.world.fence, counter: self.world.counter };
        let sequence = self.world.next_sequence(node)?;
        let ordered = Some(sequence);
        let (placed, seen, since) = (Placed::Chosen(choice), Seen::default(), self.now);
        let (standing, fresh, sight, retire) = (Standing::Known, true, Sight::Clear, None);
        let slot = self.world.insert(Replica {
            id,
            app,
            revision,
            digest,
            node,
            resources: self.set_aside(resources),
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
        self.world.post(node, Pending::Start { slot, sequence, resources });
        Some(id)
    }

    fn set_aside(&self, resources: Resources) -> Resources {
        if self.limits.planted == Planted::DropReservation { Resources::default() } else { resources }
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

/// The two best so far.
struct Podium<'a> {
    scene: &'a Scene<'a>,
    request: &'a Request<'a>,
    app: Option<&'a AppSeen>,
    skew: u32,
    own_class: bool,
    /// The tree knows it all: its keys hold this app's copies, and nothing speaks against any node.
    all_in_tree: bool,
    best: Option<(u32, Key, NodeId)>,
    second: Option<(u32, Key, NodeId)>,
}

impl Judge for Podium<'_> {
    fn interested(&self, at_least: Key) -> bool {
        self.second.is_none_or(|(skew, key, _)| (self.skew, at_least) < (skew, key))
    }

    fn judge(&mut self, node: NodeId, key: Key) -> Option<Key> {
        let (skew, key) = self.full_key(node, key)?;
        self.admit(skew, key, node);
        Some(key)
    }
}

impl Podium<'_> {
    fn admit(&mut self, skew: u32, key: Key, node: NodeId) {
        let entry = Some((skew, key, node));
        if self.best.is_none_or(|(best_skew, best, _)| (skew, key) < (best_skew, best)) {
            self.second = std::mem::replace(&mut self.best, entry);
        } else if self.second.is_none_or(|(second_skew, second, _)| (skew, key) < (second_skew, second)) {
            self.second = entry;
        }
    }

    /// Looks at all zones, the most promising first.
    fn look_around(&mut self, class: &Class) {
        let zones = self.request.zones.as_ref();
        let skew_of = |at: usize| zones.map_or(Some(0), |zones| zones.skew_of(at));
        let first = match &class.zones[..] {
            [_] => Some(0),
            many => (0..many.len())
                .filter_map(|at| Some((skew_of(at)?, many[at].tree.best_key(), at)))
                .min()
                .map(|(.., at)| at),
        };
        let Some(first) = first else { return };
        let others = (0..class.zones.len()).filter(|at| *at != first);
        for at in std::iter::once(first).chain(others) {
            if let Some(skew) = skew_of(at) {
                self.skew = skew;
                self.look_into(class, &class.zones[at].tree);
            }
        }
    }

    /// Mostly the two best by their keys are the two best indeed; else a search tells.
    fn look_into(&mut self, class: &Class, tree: &Tree) {
        if !self.interested(tree.best_key()) {
            return;
        }
        let need = &self.request.spec.resources;
        let plain = |(node, key): (NodeId, Key)| self.all_in_tree || self.full_key(node, key) == Some((self.skew, key));
        match tree.first_two(need, |node| class.leaf_of(node)) {
            Some((first, second)) if plain(first) && second.is_none_or(plain) => {
                let skew = self.skew;
                for (node, key) in std::iter::once(first).chain(second) {
                    self.admit(skew, key, node);
                }
            }
            _ => tree.search(need, self),
        }
    }

    /// What the tree does not know: this app's copies and bad experience there. It can only make a node worse.
    fn full_key(&self, node: NodeId, key: Key) -> Option<(u32, Key)> {
        if self.all_in_tree {
            return Some((self.skew, key));
        }
        let (scene, request) = (self.scene, self.request);
        let Some(app) = self.app else { return Some((self.skew, key)) };
        let here = app.on_node.get(&node).copied().unwrap_or(0);
        if request.spec.max_per_node.is_some_and(|most| here >= most) || app.backoff.said_full(node, scene.now) {
            return None;
        }
        let skew = match &request.zones {
            Some(zones) if zones.by_node => {
                let excess = zones.excess(here);
                (zones.relax || excess == 0).then_some(excess)?
            }
            _ => self.skew,
        };
        let distrust = app.backoff.distrust(node, scene.now);
        if distrust == 0 && (self.own_class || here == 0) {
            return Some((skew, key));
        }
        Some((skew, scene.rank(node, here, distrust).key()))
    }
}

impl Scene<'_> {
    /// The best node, and the next best for the record.
    pub fn choose(&self, request: &Request<'_>, class: &Class, own_class: bool, why: Why) -> Option<Choice> {
        let app = self.world.apps.get(&request.app);
        let clean = app.is_none_or(|app| app.backoff.is_clean());
        let by_node = request.zones.as_ref().is_some_and(|zones| zones.by_node);
        let all_in_tree = own_class && clean && !by_node;
        let (best, second) = (None, None);
        let mut podium = Podium { scene: self, request, app, skew: 0, own_class, all_in_tree, best, second };
        podium.look_around(class);
        let (skew, _, node) = podium.best?;
        let runner_up = podium.second.map(|(_, _, node)| node);
        let seen = self.world.node(node)?;
        let here = if all_in_tree { class.copies_on(node) } else { self.copies_on(request.app, node) };
        let distrust = app.map_or(0, |app| app.backoff.distrust(node, self.now));
        let load_of = |node: NodeId| self.world.node(node).map(|seen| (node, seen.load()));
        let age = self.now - seen.measured_at.unwrap_or(self.now);
        let rank = Rank { skew, ..self.rank(node, here, distrust) };
        Some(Choice { rank, why, load: seen.load(), age, runner_up: runner_up.and_then(load_of) })
    }
}

impl Scene<'_> {
    /// Copies of an app on a node, lost ones too.
    pub fn copies_on(&self, app: AppId, node: NodeId) -> u32 {
        self.world.apps.get(&app).and_then(|app| app.on_node.get(&node)).copied().unwrap_or(0)
    }

    /// How a node compares, but for the spread: with so many copies of the app, and crashes of it, there.
    pub fn rank(&self, node: NodeId, here: u32, distrust: u32) -> Rank {
        let Some(seen) = self.world.node(node) else { return Rank::worst(node) };
        let rank = self.node_rank(node, seen, here);
        Rank { distrust: rank.distrust + distrust, ..rank }
    }

    /// What is the same for all requests of a class.
    pub fn node_rank(&self, node: NodeId, seen: &NodeSeen, same_app: u32) -> Rank {
        let load_step = seen.load().0 / self.limits.load_step.0.max(1);
        let draw = draw(self.seed, node, seen.draws);
        Rank { skew: 0, distrust: seen.flapping(), load_step, same_app, draw, node }
    }
}
