//! `apply`: what a committed command does to the declared world. A function of the model and the command alone, the same on every member.
//!
//! Audit is computed here: whoever replays the log learns who changed what, and when.

use super::command::{Change, Command, Decision, NodeState, Outcome, Refusal};
use super::spec::{AppSpec, Elastic, Scale};
use super::{App, Counted, Image, KeptAnswer, Model, Node, RemovedNode, Revision};
use crate::effect::{Event, EventKind};
use crate::ids::{AppId, Generation, LogIndex, NodeId, RevisionNumber, SpecDigest};
use crate::limits::{KEPT_ENDS, KEPT_KEYS, KEPT_REMOVED, MOST_REPLICAS};
use crate::reason::Reason;
use crate::time::Instant;

/// Who decides the count of an elastic app.
pub const POLICIES: &str = "its policies";

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For whoever asked.
    pub outcome: Outcome,
    /// The audit.
    pub events: Vec<Event>,
}

struct Scribe<'a> {
    model: &'a mut Model,
    command: &'a Command,
    events: Vec<Event>,
}

/// Applies one command. `index` only tells old from new; nothing is decided by it.
pub fn apply(model: &mut Model, index: LogIndex, command: &Command) -> Applied {
    let _ = index;
    if let Some(outcome) = answered_before(model, command) {
        return Applied { outcome, events: Vec::new() };
    }
    let mut scribe = Scribe { model, command, events: Vec::new() };
    let outcome = scribe.change().unwrap_or_else(Outcome::Refused);
    let events = scribe.events;
    keep_answer(model, command, &outcome);
    Applied { outcome, events }
}

fn answered_before(model: &Model, command: &Command) -> Option<Outcome> {
    if command.key.is_empty() {
        return None;
    }
    let kept = model.keys.iter().find(|kept| kept.key == command.key)?;
    if asks_the_same(&kept.change, &command.change) {
        Some(kept.outcome.clone())
    } else {
        Some(Outcome::Refused(Refusal::KeyReused { key: command.key.clone() }))
    }
}

/// A deadline is said as a length and stamped when it arrives: a repetition comes later, and means the first one.
fn asks_the_same(kept: &Change, again: &Change) -> bool {
    use NodeState::Draining;
    match (kept, again) {
        (
            Change::SetNodeState { node: kept, state: Draining { .. } },
            Change::SetNodeState { node: again, state: Draining { .. } },
        ) => kept == again,
        _ => kept == again,
    }
}

fn keep_answer(model: &mut Model, command: &Command, outcome: &Outcome) {
    if command.key.is_empty() {
        return;
    }
    if model.keys.len() >= KEPT_KEYS {
        model.keys.remove(0);
    }
    let (key, change) = (command.key.clone(), command.change.clone());
    model.keys.push(KeptAnswer { key, change, outcome: outcome.clone() });
}

impl Scribe<'_> {
    fn change(&mut self) -> Result<Outcome, Refusal> {
        match &self.command.change {
            Change::FoundCluster { cluster, incarnation } => Ok(self.found(cluster, *incarnation)),
            Change::ApplyApp { spec, digest, expected } => self.apply_app(spec, *digest, *expected),
            Change::ScaleApp { tenant, name, replicas, expected } => self.scale_app(tenant, name, *replicas, *expected),
            Change::RemoveApp { tenant, name, expected } => self.remove_app(tenant, name, *expected),
            Change::RecordWanted { wanted } => {
                wanted.iter().for_each(|(app, decision)| self.record_wanted(*app, decision));
                Ok(Outcome::Done)
            }
            Change::RecordEnded { ended } => {
                self.model.ended.extend(ended.iter().cloned());
                forget_oldest(&mut self.model.ended, KEPT_ENDS);
                Ok(Outcome::Done)
            }
            Change::RecordGood { app, revision } => Ok(self.record_good(*app, *revision)),
            Change::JoinNode { name, machine, labels } => self.join(name, machine, labels.clone()),
            Change::SetNodeState { node, state } => self.set_node_state(*node, *state),
            Change::RemoveNode { node } => self.remove_node(*node),
            Change::RegisterImage { name, digest, size } => {
                let image = Image { digest: digest.clone(), size: *size, at: self.command.at };
                self.model.images.insert(name.clone(), image);
                self.audit(
                    EventKind::ImageChanged,
                    None,
                    None,
                    "image_stored",
                    format!("image {name} stored as {digest}"),
                );
                Ok(Outcome::Done)
            }
            Change::RemoveImage { name } => self.remove_image(name),
            Change::CreateToken { hash, expires } => {
                let now = self.command.at;
                self.model.tokens.retain(|_, until| *until > now);
                self.model.tokens.insert(hash.clone(), *expires);
                Ok(Outcome::Done)
            }
            Change::Resume => {
                self.model.observing = false;
                Ok(Outcome::Done)
            }
        }
    }

    fn audit(&mut self, kind: EventKind, app: Option<AppId>, node: Option<NodeId>, code: &str, text: String) {
        let reason = Reason::new(code, format!("{text}, by {}", self.command.by));
        self.events.push(Event { at: self.command.at, kind, app, replica: None, node, reason });
    }

    /// A second founding of the same life changes nothing; a higher incarnation is a restored backup, which observes first.
    fn found(&mut self, cluster: &str, incarnation: u64) -> Outcome {
        if incarnation > self.model.incarnation {
            self.model.observing = self.model.incarnation > 0;
            self.model.incarnation = incarnation;
            self.model.cluster = cluster.to_owned();
        }
        Outcome::Done
    }

    fn find_app(&self, tenant: &str, name: &str) -> Result<AppId, Refusal> {
        let key = (tenant.to_owned(), name.to_owned());
        self.model.app_names.get(&key).copied().ok_or_else(|| Refusal::UnknownApp {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            nearest: nearest(name, self.model.app_names.keys().filter(|(of, _)| of == tenant).map(|(_, name)| name)),
        })
    }

    fn check_generation(&self, name: &str, actual: Generation, expected: Option<Generation>) -> Result<(), Refusal> {
        match expected {
            Some(expected) if expected != actual => {
                Err(Refusal::WrongGeneration { name: name.to_owned(), expected, actual })
            }
            _ => Ok(()),
        }
    }

    fn apply_app(
        &mut self,
        spec: &AppSpec,
        digest: SpecDigest,
        expected: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        if let Err(faults) = spec.check() {
            let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return Err(Refusal::BadSpec(texts.join("\n")));
        }
        if let Some(taken) = self.model.ways_taken(spec) {
            return Err(Refusal::BadSpec(taken));
        }
        let key = (spec.tenant.clone(), spec.name.clone());
        match self.model.app_names.get(&key).copied() {
            None => self.create_app(spec, digest, expected),
            Some(id) => self.change_app(id, spec, digest, expected),
        }
    }

    fn create_app(
        &mut self,
        spec: &AppSpec,
        digest: SpecDigest,
        expected: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        self.check_generation(&spec.name, Generation(0), expected)?;
        self.model.last_app.0 += 1;
        let id = self.model.last_app;
        let wanted = first_wanted(&spec.scale, 0);
        let first = RevisionNumber(1);
        let current = self.revision(spec, digest, first, first);
        let generation = Generation(1);
        let counted = self.counted(count_text(&spec.scale, None, wanted));
        let app = App { id, generation, current, previous: None, last_good: None, wanted, counted };
        self.model.apps.insert(id, app);
        self.model.app_names.insert((spec.tenant.clone(), spec.name.clone()), id);
        let text = format!("app {} declared with {wanted} wanted", spec.name);
        self.audit(EventKind::AppChanged, Some(id), None, "declared", text);
        Ok(Outcome::App { app: id, generation, changed: true })
    }

    fn revision(
        &self,
        spec: &AppSpec,
        digest: SpecDigest,
        number: RevisionNumber,
        runs_since: RevisionNumber,
    ) -> Revision {
        let spec = Box::new(spec.clone());
        Revision { number, runs_since, digest, spec, at: self.command.at, by: self.command.by.clone() }
    }

    fn change_app(
        &mut self,
        id: AppId,
        spec: &AppSpec,
        digest: SpecDigest,
        expected: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        let app = self.known(id);
        self.check_generation(&spec.name, app.generation, expected)?;
        let wanted = first_wanted(&spec.scale, app.wanted);
        let same_spec = *app.current.spec == *spec;
        if same_spec && wanted == app.wanted {
            return Ok(Outcome::App { app: id, generation: app.generation, changed: false });
        }
        let number = RevisionNumber(app.current.number.0 + 1);
        let same_run = app.current.spec.runs_same(spec);
        let runs_since = if same_run { app.current.runs_since } else { number };
        let next = (!same_spec).then(|| self.revision(spec, digest, number, runs_since));
        let recounted = wanted != app.wanted || app.current.spec.scale != spec.scale;
        let counted = recounted.then(|| self.counted(count_text(&spec.scale, Some(app.wanted), wanted)));
        let app = self.known_mut(id);
        app.generation.0 += 1;
        app.wanted = wanted;
        app.counted = counted.unwrap_or_else(|| app.counted.clone());
        if let Some(next) = next {
            app.previous = Some(std::mem::replace(&mut app.current, next));
        }
        let generation = app.generation;
        let text = format!("app {} is at revision {}, {wanted} wanted", spec.name, app.current.number);
        self.audit(EventKind::AppChanged, Some(id), None, if same_run { "changed" } else { "new_revision" }, text);
        Ok(Outcome::App { app: id, generation, changed: true })
    }

    fn scale_app(
        &mut self,
        tenant: &str,
        name: &str,
        replicas: u32,
        expected: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        let id = self.find_app(tenant, name)?;
        let app = self.known(id);
        self.check_generation(name, app.generation, expected)?;
        if let Scale::Policies(elastic) = &app.current.spec.scale {
            return Err(Refusal::ScaledByPolicy { name: name.to_owned(), min: elastic.min, max: elastic.max });
        }
        if replicas > MOST_REPLICAS {
            return Err(Refusal::BadSpec(format!(
                "{replicas} copies are more than any cluster holds; say at most {MOST_REPLICAS}"
            )));
        }
        let before = app.wanted;
        let counted = self.counted(Reason::new("scaled", format!("scaled from {before} to {replicas}")));
        let app = self.known_mut(id);
        if before != replicas {
            app.wanted = replicas;
            app.counted = counted;
            app.generation.0 += 1;
        }
        let generation = app.generation;
        if before != replicas {
            let text = format!("app {name} scaled from {before} to {replicas}");
            self.audit(EventKind::Scaled, Some(id), None, "declared", text);
        }
        Ok(Outcome::App { app: id, generation, changed: before != replicas })
    }

    fn remove_app(&mut self, tenant: &str, name: &str, expected: Option<Generation>) -> Result<Outcome, Refusal> {
        let id = self.find_app(tenant, name)?;
        let generation = self.known(id).generation;
        self.check_generation(name, generation, expected)?;
        self.model.apps.remove(&id);
        self.model.app_names.remove(&(tenant.to_owned(), name.to_owned()));
        self.audit(EventKind::AppChanged, Some(id), None, "removed", format!("app {name} removed"));
        Ok(Outcome::App { app: id, generation: Generation(generation.0 + 1), changed: true })
    }

    fn record_wanted(&mut self, app: AppId, decision: &Decision) {
        let Some(app) = self.model.apps.get_mut(&app) else { return };
        // A person may have taken the count over while this was on its way.
        if matches!(app.current.spec.scale, Scale::Policies(_)) {
            app.wanted = decision.replicas;
            app.counted = Counted { at: decision.at, by: POLICIES.to_owned(), why: decision.why.clone() };
        }
    }

    fn counted(&self, why: Reason) -> Counted {
        Counted { at: self.command.at, by: self.command.by.clone(), why }
    }

    fn record_good(&mut self, id: AppId, revision: RevisionNumber) -> Outcome {
        if let Some(app) = self.model.apps.get_mut(&id)
            && app.current.number == revision
        {
            app.last_good = Some(app.current.clone());
        }
        Outcome::Done
    }

    fn join(
        &mut self,
        name: &str,
        machine: &str,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<Outcome, Refusal> {
        let known = self.model.node_names.get(name);
        if let Some(node) = known.and_then(|id| self.model.nodes.get_mut(id)) {
            if node.machine != machine {
                return Err(Refusal::NodeNameTaken { name: name.to_owned() });
            }
            node.labels = labels;
            return Ok(Outcome::Node { node: node.id });
        }
        self.model.last_node.0 += 1;
        let id = self.model.last_node;
        let (name, machine) = (name.to_owned(), machine.to_owned());
        let text = format!("node {name} joined");
        let node = Node { id, name, machine, labels, state: NodeState::Active, joined: self.command.at };
        self.model.node_names.insert(node.name.clone(), id);
        self.model.nodes.insert(id, node);
        self.audit(EventKind::NodeChanged, None, Some(id), "joined", text);
        Ok(Outcome::Node { node: id })
    }

    fn set_node_state(&mut self, id: NodeId, state: NodeState) -> Result<Outcome, Refusal> {
        let Some(node) = self.model.nodes.get_mut(&id) else { return Err(unknown_node(id)) };
        let changed = node.state != state;
        node.state = state;
        let text = format!("node {} is now {}", node.name, state_name(state));
        if changed {
            self.audit(EventKind::NodeChanged, None, Some(id), state_name(state), text);
        }
        Ok(Outcome::Node { node: id })
    }

    fn remove_node(&mut self, id: NodeId) -> Result<Outcome, Refusal> {
        let Some(node) = self.model.nodes.remove(&id) else { return Err(unknown_node(id)) };
        self.model.node_names.remove(&node.name);
        self.audit(EventKind::NodeChanged, None, Some(id), "removed", format!("node {} removed", node.name));
        let (at, by) = (self.command.at, self.command.by.clone());
        self.model.removed.push(RemovedNode { id, name: node.name, at, by });
        forget_oldest(&mut self.model.removed, KEPT_REMOVED);
        Ok(Outcome::Node { node: id })
    }

    fn remove_image(&mut self, name: &str) -> Result<Outcome, Refusal> {
        let Some(image) = self.model.images.get(name) else {
            let nearest = nearest(name, self.model.images.keys());
            return Err(Refusal::UnknownImage { name: name.to_owned(), nearest });
        };
        let pinned = |app: &&App| app.current.spec.image_digest == image.digest;
        if let Some(app) = self.model.apps.values().find(pinned) {
            return Err(Refusal::ImageInUse { name: name.to_owned(), app: app.current.spec.name.clone() });
        }
        self.model.images.remove(name);
        self.audit(EventKind::ImageChanged, None, None, "image_removed", format!("image {name} removed"));
        Ok(Outcome::Done)
    }

    fn known(&self, id: AppId) -> &App {
        self.model.apps.get(&id).expect("every id in app_names has its app")
    }

    fn known_mut(&mut self, id: AppId) -> &mut App {
        self.model.apps.get_mut(&id).expect("every id in app_names has its app")
    }
}

fn unknown_node(id: NodeId) -> Refusal {
    Refusal::UnknownNode { name: id.to_string(), nearest: None }
}

/// For people and reason codes.
pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Cordoned => "cordoned",
        NodeState::Draining { .. } => "draining",
    }
}

/// Why an app's file leads to this count.
fn count_text(scale: &Scale, before: Option<u32>, wanted: u32) -> Reason {
    match (scale, before) {
        (Scale::Declared { .. }, None) => Reason::new("declared", format!("declared with {wanted}")),
        (Scale::Declared { .. }, Some(before)) => {
            Reason::new("declared", format!("declared anew with {wanted}, before it was {before}"))
        }
        (Scale::Policies(Elastic { min, max, .. }), None) => Reason::new(
            "lower_bound",
            format!("its policies decide between {min} and {max}, and it begins with {wanted}"),
        ),
        (Scale::Policies(Elastic { min, max, .. }), Some(before)) => Reason::new(
            "bounds_changed",
            format!("its policies decide between {min} and {max} from here on, and it had {before}"),
        ),
    }
}

fn forget_oldest<T>(kept: &mut Vec<T>, most: usize) {
    kept.drain(..kept.len().saturating_sub(most));
}

/// An elastic app keeps its count within the new bounds; a declared count is what the person said last.
fn first_wanted(scale: &Scale, before: u32) -> u32 {
    match scale {
        Scale::Declared { replicas } => *replicas,
        Scale::Policies(elastic) => before.clamp(elastic.min, elastic.max),
    }
}

/// Is a token known and not expired?
pub fn token_holds(model: &Model, hash: &str, now: Instant) -> bool {
    model.tokens.get(hash).is_some_and(|expires| *expires > now)
}

/// The known name that was most likely meant: at most a third of the letters differ.
pub fn nearest<'a>(asked: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let most = (asked.len() / 3).max(1);
    known.map(|name| (distance(asked, name), name)).filter(|(far, _)| *far <= most).min().map(|(_, name)| name.clone())
}

/// Letters to change, add, drop, or swap with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, from) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in right.iter().enumerate() {
            let changed = rows[i][j] + usize::from(from != to);
            let mut best = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == right[j - 1] && left[i - 1] == *to {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}
