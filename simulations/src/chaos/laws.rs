//! What must hold after every event, whatever went wrong: numbered, each an independent check against the truth, which no
//! part of Bellows can see as a whole.

use super::convert;
use super::event::{Attempt, HostNumber, SiteNumber};
use super::people::Copies;
use super::world::World;
use bellows_agent_core as agent;
use bellows_core::effect::{Action, Order};
use bellows_core::ids::{AppId, Fence, Generation, NodeId, SessionId};
use bellows_core::input::{Activity, Lifecycle};
use bellows_core::model::command::Refusal;
use bellows_core::model::spec::{AppSpec, WhenCutOff};
use bellows_core::observe::replica::{Cause, Replica, Retire, Sight, Standing};
use std::collections::{BTreeMap, BTreeSet};

/// The laws.
pub const LAWS: [(u32, &str); 21] = [
    (1, "no agent obeys a lower fence after a higher"),
    (2, "orders take effect only in the session that carries them"),
    (3, "a term has one leader"),
    (4, "members agree on every index of the log"),
    (5, "what was declared and acknowledged is not lost"),
    (6, "a copy is stopped only by an order that names it, or cut off as its app says"),
    (7, "what is declared of a node's processes fits into the node"),
    (8, "a replica id is given out once, under its leader's fence"),
    (9, "a replica has one process at a time, and none after its stop or end"),
    (10, "an app has no more copies on a node than it allows"),
    (11, "orders leave only a leader that hears a quorum"),
    (12, "the orders of a session ascend without a gap"),
    (13, "attempts and lifecycles only advance"),
    (14, "no copy is retired as surplus while one that would be missed less stays in rotation"),
    (15, "the leader's own checks hold"),
    (16, "copies are sent only where their app may run"),
    (17, "when all is calm, exactly the declared copies are ready"),
    (18, "when all is calm, everybody was answered"),
    (19, "members with the same log have the same model"),
    (20, "a sound request is not refused"),
    (21, "a copy that has answered is stopped outright only when its deadline has passed"),
];

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in [`LAWS`].
    pub law: u32,
    /// What was seen.
    pub text: String,
}

/// What a start order said.
#[derive(Clone, Copy, Debug)]
struct Issued {
    app: AppId,
    resources: agent::Resources,
}

/// Rules of an app that do not change with its revisions.
#[derive(Clone, Debug)]
struct Rules {
    max_per_node: Option<u32>,
    zones: Option<Vec<String>>,
    may_end_cut_off: bool,
}

/// An order on its way into an agent's mind.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    fence: agent::Fence,
    session: agent::SessionId,
    /// The agent's own before it took the order in.
    own: (agent::Fence, Option<agent::SessionId>),
}

/// What the laws remember.
#[derive(Default)]
pub(crate) struct Laws {
    pub(crate) broken: Option<Violation>,
    leaders: BTreeMap<u64, HostNumber>,
    committed: BTreeMap<u64, usize>,
    issued: BTreeMap<agent::ReplicaId, Issued>,
    stops: BTreeSet<agent::ReplicaId>,
    rules: BTreeMap<AppId, Rules>,
    sequences: BTreeMap<(Fence, NodeId, SessionId), u64>,
    highest: BTreeMap<SiteNumber, agent::Fence>,
    delivery: Option<Delivery>,
    reported: BTreeMap<(SiteNumber, agent::ReplicaId), (u32, agent::Lifecycle)>,
    stopped: BTreeSet<agent::ReplicaId>,
    ended: BTreeSet<(SiteNumber, agent::ReplicaId)>,
    to_compare: BTreeSet<HostNumber>,
    routine_steps: u64,
    judged: bool,
    calm_since: Option<u64>,
}

impl Laws {
    fn break_law(&mut self, law: u32, text: String) {
        self.broken.get_or_insert(Violation { law, text });
    }

    fn unless(&mut self, holds: bool, law: u32, text: impl FnOnce() -> String) {
        if !holds {
            self.break_law(law, text());
        }
    }

    /// A server lost what was not durable; reports may begin anew.
    pub(crate) fn rebooted(&mut self, site: SiteNumber) {
        self.ended.retain(|(at, _)| *at != site);
        self.restarted(site);
    }

    /// What an agent only remembered may be said anew.
    pub(crate) fn restarted(&mut self, site: SiteNumber) {
        self.reported.retain(|(at, _), _| *at != site);
    }

    pub(crate) fn delivered(&mut self) {
        self.delivery = None;
    }

    /// What the start order of this replica said.
    pub(crate) fn terms_of(&self, replica: agent::ReplicaId) -> Option<(agent::AppId, agent::Resources)> {
        self.issued.get(&replica).map(|issued| (agent::AppId(issued.app.0), issued.resources))
    }

    fn issue(&mut self, fence: Fence, order: &Order, app: AppId, resources: agent::Resources) {
        let id = convert::replica_down(order.replica);
        self.unless(order.replica.fence == fence, 8, || format!("{id} was given out under fence {fence}"));
        let again = self.issued.insert(id, Issued { app, resources }).is_some();
        self.unless(!again, 8, || format!("{id} was ordered to start twice"));
    }
}

fn rules_of(spec: &AppSpec) -> Rules {
    Rules {
        max_per_node: spec.max_per_node,
        zones: spec.constraints.first().map(|constraint| constraint.values.clone()),
        may_end_cut_off: matches!(spec.when_cut_off, WhenCutOff::StopAfter(_)),
    }
}

/// How much a copy would be missed, judged from what its agent said last.
fn missed(replica: &Replica) -> u8 {
    let seen = &replica.seen;
    match seen.activity {
        _ if !seen.ever_ready && !seen.ready => 0,
        _ if seen.parked || !seen.ready => 1,
        Activity::Idle { .. } => 2,
        Activity::Busy { .. } => 3,
    }
}

fn in_rotation(replica: &Replica) -> bool {
    replica.fresh
        && replica.retire.is_none()
        && replica.sight == Sight::Clear
        && replica.standing == Standing::Known
        && replica.seen.lifecycle < Lifecycle::Stopping
}

impl World {
    pub(crate) fn check_elected(&mut self, host: HostNumber, term: u64) {
        let first = *self.laws.leaders.entry(term).or_insert(host);
        self.laws.unless(first == host, 3, || format!("members {first} and {host} both lead term {term}"));
        // One that slept through the election of its successor leads for a moment still, and knows what it knew then.
        if self.laws.leaders.last_key_value().is_some_and(|(newest, _)| *newest == term) {
            self.laws.to_compare.insert(host);
        }
    }

    pub(crate) fn check_committed(&mut self, host: HostNumber, index: u64, place: usize) {
        let first = *self.laws.committed.entry(index).or_insert(place);
        self.laws.unless(first == place, 4, || format!("member {host} committed another command at index {index}"));
    }

    /// After every step of a leader's mind. The leader's own checks cost as much as all else together, so a routine step
    /// (a tick or a report from which nothing followed) gets them every eighth time only.
    pub(crate) fn check_leader(&mut self, number: HostNumber, routine: bool) {
        if self.hosts[number].leads.is_none() || self.hosts[number].core.world().is_none() {
            return;
        }
        if self.laws.to_compare.remove(&number) {
            self.check_declared(number);
        }
        self.laws.routine_steps += u64::from(routine);
        if routine && !self.laws.routine_steps.is_multiple_of(8) {
            return;
        }
        if let Some(violation) = bellows_core::check::check(&self.hosts[number].core).first() {
            let term = self.hosts[number].leads;
            self.laws.break_law(15, format!("member {number}, leading {term:?}: {violation}"));
        }
    }

    /// Nothing that people were promised is missing from this leader's model.
    fn check_declared(&mut self, number: HostNumber) {
        for slot in 0..self.people.declared.len() {
            let Some(declared) = self.people.declared[slot].clone() else { continue };
            let open = self.people.open.contains_key(&super::people::Subject::App(slot));
            let known = self.hosts[number].core.model().apps.get(&declared.app);
            let found = known.map(|app| (app.generation, app.wanted));
            let (app, generation) = (declared.app, declared.generation);
            let holds = match (declared.copies, found) {
                (Copies::None, found) => found.is_none(),
                (_, None) => open,
                (copies, Some((actual, wanted))) => {
                    actual > generation && open || actual == generation && copies.allow(wanted)
                }
            };
            self.laws.unless(holds, 5, || {
                format!("{app} was promised as {declared:?}, generation {generation}; member {number} has {found:?}")
            });
        }
    }

    pub(crate) fn check_answer(&mut self, slot: usize, app: AppId, generation: Generation) {
        let before = self.people.declared[slot].as_ref();
        let older = before.is_some_and(|before| before.app == app && before.generation > generation);
        self.laws.unless(!older, 5, || format!("{app} was answered with generation {generation}, lower than before"));
    }

    /// A node that is removed already cannot be found by its name when the request is repeated; all else was sound.
    pub(crate) fn check_refusal(&mut self, wish: usize, refusal: &Refusal) {
        let repeated = matches!(refusal, Refusal::UnknownNode { .. });
        self.laws.unless(repeated, 20, || format!("request {wish} was refused: {refusal}"));
    }

    pub(crate) fn check_orders(
        &mut self,
        number: HostNumber,
        node: NodeId,
        session: SessionId,
        fence: Fence,
        orders: &[Order],
    ) {
        let host = &self.hosts[number];
        let (leads, quorum) = (host.leads, host.quorum);
        self.laws.unless(leads == Some(fence.term) && quorum, 11, || {
            format!("member {number} sends orders under {fence} while it leads {leads:?}, quorum heard: {quorum}")
        });
        for order in orders {
            let last = self.laws.sequences.entry((fence, node, session)).or_default();
            let expected = *last + 1;
            *last = order.sequence.0;
            self.laws.unless(order.sequence.0 == expected, 12, || {
                format!("{node} was sent order {} in {session}, {expected} was due", order.sequence)
            });
            self.check_order(number, node, fence, order);
        }
    }

    fn check_order(&mut self, number: HostNumber, node: NodeId, fence: Fence, order: &Order) {
        match &order.action {
            Action::Start { app, resources, .. } => {
                self.laws.issue(fence, order, *app, convert::resources_down(*resources));
                self.check_place(number, node, *app);
            }
            Action::Park => self.check_victim(number, order),
            Action::Unpark => {}
            Action::Stop { only_if_idle, .. } => {
                self.laws.stops.insert(convert::replica_down(order.replica));
                if !only_if_idle {
                    self.check_stop_outright(number, order);
                }
            }
        }
    }

    fn check_place(&mut self, number: HostNumber, node: NodeId, app: AppId) {
        if let Some(known) = self.hosts[number].core.model().apps.get(&app) {
            self.laws.rules.insert(app, rules_of(&known.current.spec));
        }
        let zone = self.sites.iter().find(|site| site.node == Some(node)).map(|site| site.zone);
        let zones = self.laws.rules.get(&app).and_then(|rules| rules.zones.clone());
        let allowed = zones.is_none_or(|zones| zone.is_some_and(|zone| zones.iter().any(|one| one == zone)));
        self.laws.unless(allowed, 16, || format!("a copy of {app} was sent to {node} in zone {zone:?}"));
    }

    fn check_stop_outright(&mut self, number: HostNumber, order: &Order) {
        let Some(world) = self.hosts[number].core.world() else { return };
        let Some(slot) = world.replicas.find(order.replica) else { return };
        let victim = world.replicas.at(slot);
        let late = victim.retire.as_ref().is_some_and(|retire| retire.deadline.0 <= self.now);
        let answered = victim.seen.ready || victim.seen.ever_ready;
        let id = victim.id;
        self.laws.unless(late || !answered, 21, || format!("{id} is stopped before its deadline"));
    }

    fn check_victim(&mut self, number: HostNumber, order: &Order) {
        let Some(world) = self.hosts[number].core.world() else { return };
        let Some(slot) = world.replicas.find(order.replica) else { return };
        let victim = world.replicas.at(slot);
        // Chosen just now: one that was chosen before, because it had never answered, is parked late and may be swapped.
        let chosen = |retire: &Retire| retire.cause == Cause::Surplus && retire.since.0 == self.now;
        let surplus = victim.retire.as_deref().is_some_and(chosen);
        let Some(seen) = world.apps.get(&victim.app).filter(|_| surplus && victim.fresh) else { return };
        let others = seen.replicas.values().map(|slot| world.replicas.at(*slot));
        let better = others.filter(|other| in_rotation(other)).find(|other| missed(other) < missed(victim));
        let better = better.map(|other| format!("{} ({:?})", other.id, other.seen));
        let (id, seen, reason) = (victim.id, victim.seen.clone(), order.reason.text.clone());
        self.laws.unless(better.is_none(), 14, || format!("{id} ({seen:?}) is retired ({reason}), {better:?} is not"));
    }

    pub(crate) fn check_delivery(&mut self, site: SiteNumber, fence: agent::Fence, session: agent::SessionId) {
        let Some(mind) = &self.sites[site].agent else { return };
        self.laws.delivery = Some(Delivery { fence, session, own: (mind.fence(), mind.session()) });
    }

    /// Everything that an agent's mind wants done passes here first.
    pub(crate) fn check_agent_effect(&mut self, site: SiteNumber, effect: &agent::Effect) {
        match effect {
            agent::Effect::Persist(record) => self.check_record(site, record),
            agent::Effect::Hello { fence, inventory, .. } => {
                self.check_fence(site, *fence);
                self.check_reports(site, inventory);
            }
            agent::Effect::Report { report, .. } => self.check_reports(site, &report.replicas),
            agent::Effect::Launch { replica, attempt, .. } => self.check_launch(site, (*replica, *attempt)),
            agent::Effect::Stop { replica, .. } | agent::Effect::Kill { replica, .. } => {
                self.check_stop(site, *replica)
            }
            _ => {}
        }
    }

    fn check_fence(&mut self, site: SiteNumber, fence: agent::Fence) {
        let highest = self.laws.highest.entry(site).or_default();
        let before = *highest;
        *highest = before.max(fence);
        self.laws.unless(fence >= before, 1, || {
            format!("the agent on server {site} obeyed {before}, now it greets {fence}")
        });
    }

    fn check_record(&mut self, site: SiteNumber, record: &agent::Record) {
        match record {
            agent::Record::Stop { replica, .. } => {
                self.laws.stopped.insert(*replica);
            }
            agent::Record::Ended { replica, .. } => {
                self.laws.ended.insert((site, *replica));
            }
            agent::Record::Ordered { .. } | agent::Record::Parked { .. } => {}
            _ => return,
        }
        let Some(delivery) = self.laws.delivery else { return };
        let highest = self.laws.highest.get(&site).copied().unwrap_or_default();
        self.laws.unless(delivery.fence >= highest, 1, || {
            format!("the agent on server {site} obeyed an order under {} after {highest}", delivery.fence)
        });
        self.laws.unless(delivery.own == (delivery.fence, Some(delivery.session)), 2, || {
            format!("server {site} obeyed an order of {:?} in {:?}", (delivery.fence, delivery.session), delivery.own)
        });
    }

    fn check_reports(&mut self, site: SiteNumber, reports: &[agent::ReplicaReport]) {
        for report in reports {
            let now = (report.attempt, report.lifecycle);
            let before = self.laws.reported.insert((site, report.id), now);
            let id = report.id;
            self.laws.unless(before.is_none_or(|before| before <= now), 13, || {
                format!("{id} on server {site} went from {before:?} to {now:?}")
            });
        }
    }

    fn check_launch(&mut self, site: SiteNumber, attempt: Attempt) {
        let (replica, number) = attempt;
        let stopped = self.laws.stopped.contains(&replica);
        self.laws.unless(!stopped, 9, || format!("{replica} is launched after its stop was taken in"));
        let ended = self.laws.ended.contains(&(site, replica));
        self.laws.unless(!ended, 9, || format!("{replica} is launched after its end"));
        let mut processes = self.sites[site].machine.processes.keys();
        let other = processes.find(|(other, _)| *other == replica).copied();
        self.laws.unless(other.is_none(), 9, || format!("attempt {number} of {replica} joins {other:?}"));
    }

    fn check_stop(&mut self, site: SiteNumber, replica: agent::ReplicaId) {
        if self.laws.stops.contains(&replica) {
            return;
        }
        let app = self.laws.issued.get(&replica).map(|issued| issued.app);
        let may = app.and_then(|app| self.laws.rules.get(&app)).is_some_and(|rules| rules.may_end_cut_off);
        self.laws.unless(may, 6, || format!("server {site} stops {replica}, which no order named"));
    }

    /// After a process appeared on a server.
    pub(crate) fn check_machine(&mut self, site: SiteNumber, attempt: Attempt) {
        let known = &self.sites[site];
        let (declared, capacity) = (known.machine.declared(), convert::resources_down(known.capacity));
        self.laws
            .unless(declared.fits(&capacity), 7, || format!("server {site} has {capacity:?}, and runs {declared:?}"));
        let Some(app) = known.machine.processes.get(&attempt).map(|process| process.app) else { return };
        let copies = known.machine.processes.values().filter(|process| process.app == app).count() as u32;
        let most = self.laws.rules.get(&AppId(app.0)).and_then(|rules| rules.max_per_node);
        self.laws.unless(most.is_none_or(|most| copies <= most), 10, || {
            format!("server {site} runs {copies} copies of {app}, {most:?} are allowed")
        });
    }

    /// Trouble is over: is everything as declared, and does it stay so?
    pub(crate) fn judge(&mut self) {
        if !std::mem::replace(&mut self.laws.judged, true) {
            self.clear_up();
            self.rest();
        }
        self.later(500, super::event::Event::Judge);
        match self.not_yet() {
            None => {
                let since = *self.laws.calm_since.get_or_insert(self.now);
                if self.now >= since + 3_000 {
                    self.finish();
                }
            }
            Some((law, why)) => {
                self.laws.calm_since = None;
                if self.now > (self.options.trouble_seconds + self.options.calm_seconds) * 1_000 {
                    self.laws.break_law(law, why);
                }
            }
        }
    }

    fn finish(&mut self) {
        self.check_models_agree();
        self.done = true;
        let begun = self.options.trouble_seconds * 1_000;
        let took = self.now - begun;
        self.tally.count(match took {
            0..10_000 => "settled within 10 s",
            10_000..30_000 => "settled within 30 s",
            30_000..60_000 => "settled within 60 s",
            _ => "settled later",
        });
    }

    fn check_models_agree(&mut self) {
        for left in 0..self.hosts.len() {
            for right in 0..left {
                let (one, other) = (&self.hosts[left].core, &self.hosts[right].core);
                let same = one.applied() != other.applied() || one.model() == other.model();
                self.laws.unless(same, 19, || format!("members {left} and {right} differ"));
            }
        }
    }

    /// What keeps the world from being as declared.
    fn not_yet(&self) -> Option<(u32, String)> {
        if let Some((subject, wish)) = self.people.open.first_key_value() {
            return Some((18, format!("request {wish} about {subject:?} has no answer")));
        }
        let Some(leader) = (0..self.hosts.len()).find(|host| self.hosts[*host].leads.is_some()) else {
            return Some((17, "nobody leads".to_owned()));
        };
        self.sites_not_yet().or_else(|| self.apps_not_yet(leader)).map(|why| (17, why))
    }

    fn sites_not_yet(&self) -> Option<String> {
        let present = |site: &&super::site::Site| !site.removed;
        let silent = self
            .sites
            .iter()
            .filter(present)
            .find(|site| site.agent.as_ref().is_none_or(|mind| mind.session().is_none()));
        silent.map(|site| format!("{} has no session", site.name))
    }

    fn apps_not_yet(&self, leader: HostNumber) -> Option<String> {
        let core = &self.hosts[leader].core;
        let mut truth: BTreeMap<agent::AppId, u32> = BTreeMap::new();
        for process in self.sites.iter().flat_map(|site| site.machine.processes.values()) {
            *truth.entry(process.app).or_default() += 1;
        }
        for declared in self.people.declared.iter().flatten() {
            let settled = core.view().settled(declared.app, declared.generation);
            if settled != bellows_core::view::settled::Settled::Yes {
                return Some(format!("{}: {settled:?}", declared.app));
            }
            let running = truth.remove(&agent::AppId(declared.app.0)).unwrap_or(0);
            if !declared.copies.allow(running) {
                return Some(format!("{} is declared as {:?}, and {running} run", declared.app, declared.copies));
            }
        }
        (!truth.is_empty()).then(|| format!("of apps that are gone there run {truth:?}"))
    }
}
