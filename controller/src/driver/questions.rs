//! Answers to questions: read from the core at once, nothing is changed.

use bellows_core::check::check;
use bellows_core::ids::{AppId, Generation, NodeId, ReplicaId};
use bellows_core::model::apply::{nearest, token_holds};
use bellows_core::model::command::Refusal;
use bellows_core::model::spec::AppSpec;
use bellows_core::observe::node::Liveness;
use bellows_core::units::Millis;
use bellows_core::view::explain::Answer;
use bellows_core::view::settled::Settled;
use bellows_proto::operator as wire;
use tonic::Status;

use super::message::Question;
use super::run::Driver;
use super::view::{self, Gauges, Overview};
use crate::api::status_of_refusal;
use crate::convert::{fence_to_wire, replica_id_to_wire, spec_digest};

/// Between two checks of the invariants: at 100,000 copies one takes about 0.1 s, so 1% of the time.
const CHECK_EVERY: Millis = Millis(10_000);

type Answered<T> = Result<T, Status>;

impl Driver {
    /// Whoever asked may have hung up: then the answer is dropped.
    pub(super) fn answer(&mut self, question: Question) {
        match question {
            Question::Apps(answer) => drop(answer.send(self.led().map(|()| view::apps(&self.core)))),
            Question::Replicas { tenant, app, ended, answer } => {
                drop(answer.send(self.replicas(&tenant, &app, ended)));
            }
            Question::Nodes(answer) => drop(answer.send(self.led().map(|()| view::nodes(self.core.view())))),
            Question::Images(answer) => drop(answer.send(Ok(view::images(self.core.view())))),
            Question::Status(answer) => drop(answer.send(Ok(self.status()))),
            Question::Settled { tenant, app, generation, answer } => {
                drop(answer.send(self.settled(&tenant, &app, Generation(generation))));
            }
            Question::Explain { tenant, subject, answer } => drop(answer.send(self.explain(&tenant, &subject))),
            Question::Events { after, app, answer } => drop(answer.send(Ok(self.events.after(after, &app)))),
            Question::ResolveImage { name, answer } => drop(answer.send(self.resolve_image(&name))),
            Question::DryRun { spec, expected, answer } => drop(answer.send(self.dry_run(&spec, expected))),
            Question::Copies { tenant, subject, answer } => drop(answer.send(self.copies(&tenant, &subject))),
            Question::Owner { replica, answer } => drop(answer.send(self.owner(replica))),
            Question::TokenHolds { hash, answer } => {
                let holds = token_holds(self.core.model(), &hash, self.clock.now());
                drop(answer.send(self.led().map(|()| holds)));
            }
            Question::Membership { node, answer } => drop(answer.send(self.membership(node))),
            Question::Overview(answer) => drop(answer.send(Ok(self.overview()))),
            Question::Gauges(answer) => drop(answer.send(Ok(self.gauges()))),
        }
    }

    /// Only a leader knows of nodes and copies.
    fn led(&self) -> Answered<()> {
        match self.core.view().leads() {
            true => Ok(()),
            false => Err(Status::unavailable("this controller does not lead; ask another, or try again in a moment")),
        }
    }

    fn replicas(&self, tenant: &str, app: &str, ended: bool) -> Answered<Vec<wire::Replica>> {
        self.led()?;
        let app = if app.is_empty() { None } else { Some(self.find_app(tenant, app)?) };
        Ok(view::replicas(&self.core, app, ended))
    }

    /// Also a removed app, as long as copies of it are known.
    fn find_app(&self, tenant: &str, name: &str) -> Answered<AppId> {
        if let Some(app) = self.core.view().find_app(tenant, name) {
            return Ok(app.id);
        }
        let mut removed = self.core.world().into_iter().flat_map(|world| world.apps.iter().rev());
        let removed = removed.find(|(id, seen)| seen.name == name && !self.core.model().apps.contains_key(id));
        removed.map(|(id, _)| *id).ok_or_else(|| {
            let names = self.core.model().app_names.keys().filter(|(of, _)| of == tenant).map(|(_, name)| name);
            let (tenant, nearest) = (tenant.to_owned(), nearest(name, names));
            status_of_refusal(&Refusal::UnknownApp { tenant, name: name.to_owned(), nearest })
        })
    }

    fn settled(&self, tenant: &str, name: &str, generation: Generation) -> Answered<wire::AwaitProgress> {
        self.led()?;
        let app = self.find_app(tenant, name)?;
        let view = self.core.view();
        let settled = match view.settled(app, generation) {
            // People wait for this generation or a later one.
            Settled::Superseded(later) => view.settled(app, later),
            settled => settled,
        };
        let row = view.app(app);
        let alive = self.core.world().and_then(|world| world.apps.get(&app)).map_or(0, |seen| seen.tally.alive());
        let wanted = row.as_ref().map_or(0, |row| row.wanted);
        let reason = match &settled {
            Settled::Yes => None,
            Settled::NotYet(why) => Some(why.clone()),
            Settled::Superseded(later) => Some(format!("the app has moved on to generation {later}")),
        };
        Ok(wire::AwaitProgress {
            wanted,
            ready: row.as_ref().map_or(0, |row| row.ready),
            surplus: alive.saturating_sub(wanted),
            settled: settled == Settled::Yes,
            reason: reason.map(|text| bellows_proto::types::Reason { code: "not_settled".to_owned(), text }),
        })
    }

    /// A replica's id, else everything that bears the name: an app, a node, a node that left.
    fn explain(&self, tenant: &str, subject: &str) -> Answered<Vec<wire::Explanation>> {
        self.led()?;
        let view = self.core.view();
        let wire = |answers: Vec<Answer>| answers.into_iter().map(explanation).collect();
        if let Ok(id) = subject.parse::<ReplicaId>() {
            return Ok(wire(view.explain_replica(id)));
        }
        let app = view.find_app(tenant, subject).map(|app| view.explain_app(app.id));
        let node =
            view.find_node(subject).or_else(|| view.find_removed_node(subject)).map(|node| view.explain_node(node));
        let found: Vec<Answer> = app.into_iter().chain(node).flatten().collect();
        match found.is_empty() {
            false => Ok(wire(found)),
            true => self.find_app(tenant, subject).map(|app| wire(view.explain_app(app))),
        }
    }

    fn resolve_image(&self, name: &str) -> Answered<String> {
        let images = &self.core.model().images;
        // `web` means `web:latest`, as everywhere.
        let found = images.get(name).or_else(|| images.get(&format!("{name}:latest")));
        let by_digest = || images.values().find(|image| image.digest == name);
        found.or_else(by_digest).map(|image| image.digest.clone()).ok_or_else(|| {
            let nearest = nearest(name, images.keys());
            status_of_refusal(&Refusal::UnknownImage { name: name.to_owned(), nearest })
        })
    }

    fn dry_run(&self, spec: &AppSpec, expected: Option<u64>) -> Answered<wire::AppChanged> {
        if let Err(faults) = spec.check() {
            let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return Err(status_of_refusal(&Refusal::BadSpec(texts.join("\n"))));
        }
        if let Some(taken) = self.core.model().ways_taken(spec) {
            return Err(status_of_refusal(&Refusal::BadSpec(taken)));
        }
        let known = self.core.view().find_app(&spec.tenant, &spec.name);
        let actual = known.map_or(Generation(0), |app| app.generation);
        if let Some(expected) = expected.map(Generation).filter(|expected| *expected != actual) {
            let refusal = Refusal::WrongGeneration { name: spec.name.clone(), expected, actual };
            return Err(status_of_refusal(&refusal));
        }
        Ok(wire::AppChanged {
            id: known.map_or(0, |app| app.id.0),
            generation: actual.0,
            changed: known.is_none_or(|app| app.current.digest != spec_digest(spec)),
            image_digest: spec.image_digest.clone(),
        })
    }

    /// An id, else everything that bears the name: an app, a node.
    fn copies(&self, tenant: &str, subject: &str) -> Answered<Vec<(NodeId, wire::Replica)>> {
        self.led()?;
        let id = subject.parse::<ReplicaId>().ok();
        if let Some(id) = id {
            self.owner(id)?;
        } else if !subject.is_empty() && self.core.view().find_node(subject).is_none() {
            self.find_app(tenant, subject)?;
        }
        let wanted = |row: &wire::Replica| match (id, subject) {
            (Some(id), _) => row.id == Some(replica_id_to_wire(id)),
            (None, "") => row.tenant == tenant,
            (None, name) => row.node == name || row.app == name && row.tenant == tenant,
        };
        let rows = view::replicas(&self.core, None, false).into_iter().filter(wanted);
        let node = |row: &wire::Replica| self.core.view().find_node(&row.node);
        Ok(rows.filter_map(|row| Some((node(&row)?, row))).collect())
    }

    fn owner(&self, replica: ReplicaId) -> Answered<NodeId> {
        self.led()?;
        self.core.view().node_of(replica).ok_or_else(|| {
            let text = format!("no copy {replica} is known; `bellows replicas --ended` lists those that are");
            Status::not_found(text)
        })
    }

    fn membership(&self, node: NodeId) -> Answered<String> {
        match self.core.model().nodes.contains_key(&node) {
            true => Ok(self.core.model().cluster.clone()),
            false => {
                let name = self.core.model().node_name(node);
                let why = format!(
                    "node {name} ({node}) is not part of this cluster any more; `bellows explain {name}` says since when"
                );
                Err(Status::permission_denied(why))
            }
        }
    }

    fn status(&self) -> wire::StatusResponse {
        let (view, model) = (self.core.view(), self.core.model());
        let nodes = view.nodes();
        let apps = view.apps();
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        let fence = self.core.world().map(|world| world.fence);
        wire::StatusResponse {
            cluster: model.cluster.clone(),
            fence: fence.map(fence_to_wire),
            leading: view.leads(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes_up: count(nodes.iter().filter(|node| node.liveness == Liveness::Up).count()),
            nodes: count(nodes.len()),
            apps: count(apps.len()),
            replicas_ready: apps.iter().map(|app| app.ready).sum(),
            replicas_wanted: apps.iter().map(|app| app.wanted).sum(),
            observing: model.observing,
            dashboard: self.dashboard.clone(),
        }
    }

    fn overview(&self) -> Overview {
        Overview {
            status: self.status(),
            apps: view::apps(&self.core),
            nodes: view::nodes(self.core.view()),
            replicas: view::replicas(&self.core, None, false),
        }
    }

    fn gauges(&mut self) -> Gauges {
        let apps = view::apps(&self.core);
        Gauges {
            leading: self.leads_with_quorum(),
            nodes: view::count_nodes(&self.core),
            copies: view::count_copies(&apps),
            apps: apps.iter().filter(|app| !app.removing).count(),
            sessions: self.sessions.len(),
            term: self.member.term(),
            applied: self.member.applied_index(),
            proposals: self.proposals.len(),
            violations: self.violations(),
        }
    }

    /// Checked anew at most every `CHECK_EVERY`: it looks at every copy.
    fn violations(&mut self) -> usize {
        let now = self.clock.now();
        if let Some((_, count)) = self.checked.filter(|(at, _)| now - *at < CHECK_EVERY) {
            return count;
        }
        let violations = check(&self.core);
        for violation in &violations {
            tracing::error!(%violation, "an invariant does not hold; please report this");
        }
        self.checked = Some((now, violations.len()));
        violations.len()
    }
}

fn explanation(answer: Answer) -> wire::Explanation {
    let Answer { question, answer, facts } = answer;
    wire::Explanation { question, answer, facts }
}
