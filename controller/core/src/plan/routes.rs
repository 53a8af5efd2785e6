//! What ingresses are told: the ways in to all apps, and to subscribers the copies of theirs. Kept up to date copy by copy: a change
//! touches its app's book only, and goes to that app's subscribers only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::ids::{AppId, NodeId, ReplicaId, SessionId};
use crate::model::App;
use crate::model::spec::{Port, Route, Scale, Traffic};
use crate::observe::replica::{Replica, Sight, Stage, Standing};
use crate::turn::{Scene, Turn};

/// Where requests for one app come in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrance {
    /// Whose.
    pub app: AppId,
    /// For people.
    pub name: String,
    /// For people.
    pub tenant: String,
    /// The ways in.
    pub routes: Vec<Route>,
    /// What the app's ports speak.
    pub ports: Vec<Port>,
    /// May demand start copies?
    pub elastic: bool,
}

/// A change of one app's copies, as a subscriber hears of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteUpdate {
    /// Whose.
    pub app: AppId,
    /// Rises with every change, under later leaders too.
    pub version: u64,
    /// What is not named is gone.
    pub whole: bool,
    /// Limits, target, bounds of what is held.
    pub terms: Traffic,
    /// Copies that are new or have changed.
    pub replicas: Vec<RouteReplica>,
    /// Copies that are no more.
    pub gone: Vec<ReplicaId>,
    /// The app is no more.
    pub removed: bool,
    /// Why no copy is ready yet.
    pub waiting: String,
}

/// A copy, as a subscriber hears of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReplica {
    /// Which.
    pub id: ReplicaId,
    /// Where.
    pub node: NodeId,
    /// Where the ingress of its node is reached.
    pub owner: String,
    /// Does it answer?
    pub ready: bool,
    /// Out of rotation, or about to be.
    pub parked: bool,
    /// Its own, node-local.
    pub address: String,
}

/// What of a copy matters to whoever sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    ready: bool,
    parked: bool,
}

/// The copies of one app that somebody sends requests to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteBook {
    /// Of the last change.
    version: u64,
    /// Who hears of changes.
    subscribers: BTreeSet<NodeId>,
    /// What they were told.
    #[serde(serialize_with = "crate::pairs::serialize")]
    lines: BTreeMap<ReplicaId, Line>,
    terms: Traffic,
    waiting: String,
}

impl RouteBook {
    /// What subscribers have been told of each copy: whether it is in rotation and ready.
    pub fn in_rotation(&self) -> impl Iterator<Item = (ReplicaId, bool)> + '_ {
        self.lines.iter().map(|(id, line)| (*id, line.ready && !line.parked))
    }

    /// Who hears of changes.
    pub fn subscribers(&self) -> &BTreeSet<NodeId> {
        &self.subscribers
    }
}

/// Routes that wait for the end of the step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteNews {
    /// Copies that changed, by app.
    pub changed: BTreeSet<(AppId, ReplicaId)>,
    /// Apps whose terms or ways in may have changed.
    pub revised: BTreeSet<AppId>,
    /// Apps that can be asked for.
    open: BTreeSet<AppId>,
    /// Counts the changes of all books: one that is opened again goes on above where it was.
    changes: u32,
    /// Of the nodes that left for good, as far as everybody was told.
    last_removed: Option<NodeId>,
    /// Every copy was accounted for, and the subscribers know that theirs are all there are.
    pub whole: bool,
}

impl RouteNews {
    /// Can any app be asked for?
    pub fn any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Higher than any before, also under earlier leaders: the term stands in the upper half.
    fn next_version(&mut self, term: u64) -> u64 {
        self.changes = self.changes.wrapping_add(1);
        term << 32 | u64::from(self.changes)
    }
}

impl Replica {
    /// What of it matters to whoever sends requests; nothing while it never answered, and from its end or loss on.
    pub fn line(&self) -> Option<Line> {
        let stopping = self.retire.as_ref().is_some_and(|retire| retire.stage == Stage::Stopping);
        let visible = matches!(self.sight, Sight::Clear | Sight::Blind) && self.standing != Standing::Orphan;
        if !visible || stopping || !self.seen.ever_ready || self.seen.lifecycle >= crate::input::Lifecycle::Stopping {
            return None;
        }
        Some(Line { ready: self.seen.ready, parked: self.seen.parked || self.retire.is_some() })
    }
}

impl Turn<'_> {
    /// From here on the node hears of the app's copies; of all there are at once.
    pub fn open_routes(&mut self, node: NodeId, session: SessionId, app: AppId) {
        let seen = self.world.apps.entry(app).or_default();
        if seen.routes.is_none() {
            let copies = seen.replicas.values().map(|slot| self.world.replicas.at(*slot));
            let lines = copies.filter_map(|copy| Some((copy.id, copy.line()?))).collect();
            let version = self.world.news.next_version(self.world.fence.term);
            seen.routes = Some(Box::new(RouteBook { lines, version, ..RouteBook::default() }));
            self.refresh_terms(app);
        }
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let Some(book) = seen.routes.as_mut() else { return };
        book.subscribers.insert(node);
        let ids: Vec<ReplicaId> = book.lines.keys().copied().collect();
        let whole = self.world.news.whole;
        let fence = self.world.fence;
        if let Some(update) = self.scene().route_update(app, whole, &ids) {
            self.effects.push(Effect::Routes { node, session, fence, updates: vec![update] });
        }
    }

    /// The node does not hear of the app any more.
    pub fn close_routes(&mut self, node: NodeId, app: AppId) {
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let Some(book) = seen.routes.as_mut() else { return };
        book.subscribers.remove(&node);
        if book.subscribers.is_empty() {
            seen.routes = None;
        }
    }

    /// A new session hears of every way in. (Whether its agent has an ingress is its own affair.)
    pub fn tell_entrances(&mut self, node: NodeId, session: SessionId) {
        let open = self.world.news.open.iter().filter_map(|app| self.model.apps.get(app));
        let apps = open.filter_map(entrance).collect();
        let (fence, gone) = (self.world.fence, Vec::new());
        let removed = self.model.removed.iter().map(|node| node.id).collect();
        self.effects.push(Effect::Entrances { node, session, fence, whole: true, apps, gone, removed });
    }

    /// Ways in and terms of an app may have changed.
    pub fn revise_routes(&mut self, app: AppId) {
        self.world.news.revised.insert(app);
    }

    /// What changed in this step leaves, one message per node.
    pub fn send_routes(&mut self) {
        let all_at_once = !self.world.news.whole && self.hides_nothing();
        self.world.news.whole |= all_at_once;
        let mut news = std::mem::take(&mut self.world.news.changed);
        let revised = std::mem::take(&mut self.world.news.revised);
        self.send_entrances(&revised);
        let mut apps: BTreeSet<AppId> = revised.into_iter().chain(news.iter().map(|(app, _)| *app)).collect();
        if all_at_once {
            apps = self.world.apps.iter().filter(|(_, seen)| seen.routes.is_some()).map(|(app, _)| *app).collect();
        }
        let mut batches: BTreeMap<NodeId, Vec<RouteUpdate>> = BTreeMap::new();
        for app in apps {
            let later = news.split_off(&(AppId(app.0.saturating_add(1)), ReplicaId::default()));
            let changed: Vec<ReplicaId> = news.iter().filter(|(of, _)| *of == app).map(|(_, id)| *id).collect();
            news = later;
            let Some(update) = self.next_update(app, changed, all_at_once) else { continue };
            let subscribers = self.world.apps.get(&app).and_then(|seen| seen.routes.as_ref());
            for node in subscribers.into_iter().flat_map(|book| &book.subscribers) {
                batches.entry(*node).or_default().push(update.clone());
            }
            if update.removed
                && let Some(seen) = self.world.apps.get_mut(&app)
            {
                seen.routes = None;
            }
        }
        let fence = self.world.fence;
        for (node, updates) in batches {
            let session = self.world.node(node).and_then(|seen| seen.session.as_ref()).filter(|session| session.live);
            if let Some(session) = session.map(|session| session.id) {
                self.effects.push(Effect::Routes { node, session, fence, updates });
            }
        }
    }

    /// May a copy run on a node that this leader has not heard yet?
    fn hides_nothing(&self) -> bool {
        self.world.accounted || self.now >= self.world.since + self.limits.unknown_grace
    }

    /// The book's next version, when anything in it has changed.
    fn next_update(&mut self, app: AppId, changed: Vec<ReplicaId>, whole: bool) -> Option<RouteUpdate> {
        let terms_changed = self.refresh_terms(app);
        let seen = self.world.apps.get_mut(&app)?;
        let book = seen.routes.as_mut()?;
        let mut told = Vec::new();
        for id in changed {
            let slot = seen.replicas.get(&id);
            let line = slot.and_then(|slot| self.world.replicas.at(*slot).line());
            let before = match line {
                Some(line) => book.lines.insert(id, line),
                None => book.lines.remove(&id),
            };
            if before != line {
                told.push(id);
            }
        }
        if told.is_empty() && !terms_changed && !whole {
            return None;
        }
        book.version = self.world.news.next_version(self.world.fence.term);
        let ids = if whole { book.lines.keys().copied().collect() } else { told };
        self.scene().route_update(app, whole, &ids)
    }

    /// True when subscribers have to hear of it.
    fn refresh_terms(&mut self, app: AppId) -> bool {
        let known = self.model.apps.get(&app);
        let terms = known.map(|known| known.current.spec.traffic.clone()).unwrap_or_default();
        let waiting = self.scene().why_waiting(app);
        let Some(seen) = self.world.apps.get_mut(&app) else { return false };
        let Some(book) = seen.routes.as_mut() else { return false };
        let same = book.terms == terms && book.waiting == waiting && known.is_some();
        (book.terms, book.waiting) = (terms, waiting);
        !same
    }

    fn send_entrances(&mut self, revised: &BTreeSet<AppId>) {
        let (mut apps, mut gone) = (Vec::new(), Vec::new());
        for app in revised {
            let next = self.model.apps.get(app).and_then(entrance);
            let Some(seen) = self.world.apps.get_mut(app) else { continue };
            if seen.entrance == next {
                continue;
            }
            seen.entrance.clone_from(&next);
            match next {
                Some(next) => {
                    self.world.news.open.insert(*app);
                    apps.push(next);
                }
                None => {
                    self.world.news.open.remove(app);
                    gone.push(*app);
                }
            }
        }
        let removed = self.removed_lately();
        if apps.is_empty() && gone.is_empty() && removed.is_empty() {
            return;
        }
        let fence = self.world.fence;
        let nodes = self.world.nodes();
        let live = nodes.filter_map(|(id, seen)| Some((id, seen.session.as_ref().filter(|open| open.live)?.id)));
        for (node, session) in live.collect::<Vec<_>>() {
            let (apps, gone, removed) = (apps.clone(), gone.clone(), removed.clone());
            self.effects.push(Effect::Entrances { node, session, fence, whole: false, apps, gone, removed });
        }
    }

    /// Nodes that left for good, if another one did since this was asked.
    fn removed_lately(&mut self) -> Vec<NodeId> {
        let last = self.model.removed.last().map(|node| node.id);
        match std::mem::replace(&mut self.world.news.last_removed, last) == last {
            true => Vec::new(),
            false => self.model.removed.iter().map(|node| node.id).collect(),
        }
    }
}

fn entrance(known: &App) -> Option<Entrance> {
    let spec = known.current.spec.as_ref();
    let elastic = matches!(spec.scale, Scale::Policies(_));
    (!spec.traffic.routes.is_empty()).then(|| Entrance {
        app: known.id,
        name: spec.name.clone(),
        tenant: spec.tenant.clone(),
        routes: spec.traffic.routes.clone(),
        ports: spec.ports.clone(),
        elastic,
    })
}

impl Scene<'_> {
    fn route_update(&self, app: AppId, whole: bool, ids: &[ReplicaId]) -> Option<RouteUpdate> {
        let seen = self.world.apps.get(&app)?;
        let book = seen.routes.as_ref()?;
        let mut update = RouteUpdate { app, version: book.version, whole, ..RouteUpdate::default() };
        (update.terms, update.waiting) = (book.terms.clone(), book.waiting.clone());
        update.removed = !self.model.apps.contains_key(&app);
        for id in ids {
            match (book.lines.get(id), seen.replicas.get(id)) {
                (Some(line), Some(slot)) => {
                    update.replicas.push(self.route_replica(self.world.replicas.at(*slot), *line))
                }
                _ => update.gone.push(*id),
            }
        }
        Some(update)
    }

    fn route_replica(&self, copy: &Replica, line: Line) -> RouteReplica {
        let owner = self.world.node(copy.node).map(|seen| seen.facts.ingress.clone()).unwrap_or_default();
        let (id, node, Line { ready, parked }) = (copy.id, copy.node, line);
        RouteReplica { id, node, owner, ready, parked, address: copy.seen.address.clone() }
    }

    /// For those whose requests are held: why no copy takes them.
    fn why_waiting(&self, app: AppId) -> String {
        let Some(seen) = self.world.apps.get(&app) else { return String::new() };
        let tally = &seen.tally;
        if tally.fresh_ready + tally.stale_ready > 0 {
            return String::new();
        }
        if let Some(unplaced) = &seen.unplaced {
            return unplaced.text.clone();
        }
        let crashed = seen.gone.back().filter(|_| seen.backoff.due.iter().any(|due| *due > self.now));
        match (crashed, tally.fresh + tally.stale) {
            (Some(gone), _) => format!("its copies end by themselves: {}", gone.why),
            (None, 0) if self.wanted(app) == 0 => "no copy of it is wanted".to_owned(),
            (None, 0) => "its first copy is about to be placed".to_owned(),
            (None, starting) => {
                format!(
                    "{} but none listens yet",
                    crate::reason::count(starting, "copy is starting", "copies are starting")
                )
            }
        }
    }
}
