//! People: they declare, scale, remove, drain and join, one request at a time per subject, and repeat what was not answered
//! with the same key until it is.

use super::event::{Answer, Event, HostNumber, SiteNumber};
use super::world::World;
use crate::dice::Dice;
use bellows_core::effect::EventKind;
use bellows_core::ids::{AppId, Generation, SpecDigest};
use bellows_core::input::Request;
use bellows_core::model::command::{NodeState, Outcome};
use bellows_core::model::spec::{
    AppSpec, Constraint, ConstraintOperator, Elastic, Policy, Port, Protocol, Scale, Spread, WhenCutOff, WhenFull,
};
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Permille, Resources};
use std::collections::BTreeMap;

/// Names that people give to apps.
const SLOTS: usize = 8;

/// The app whose count its policy decides.
const ELASTIC_SLOT: usize = 7;

/// The most copies that people ask for: 20 x 1.5 + 10 x 0.4 CPUs = 34 CPUs, of 80 or so on 50 servers.
const MOST_COPIES: u64 = 20;

/// Nobody waits longer for an answer.
const PATIENCE_MS: u64 = 3_000;

/// What a request is about; one request at a time for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    App(usize),
    Site(SiteNumber),
}

/// One thing that somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) subject: Subject,
    request: Request,
    key: String,
    attempt: u32,
    host: HostNumber,
    pub(crate) done: bool,
}

/// What was acknowledged about an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) app: AppId,
    pub(crate) generation: Generation,
    pub(crate) copies: Copies,
}

/// How many copies an app was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// It was removed.
    None,
    /// Somebody said how many.
    Declared(u32),
    /// Policies decide.
    Between(u32, u32),
}

impl Copies {
    /// Is this count as promised?
    pub(crate) fn allow(self, count: u32) -> bool {
        match self {
            Self::None => count == 0,
            Self::Declared(copies) => count == copies,
            Self::Between(least, most) => (least..=most).contains(&count),
        }
    }

    fn of(request: &Request) -> Self {
        match request {
            Request::Scale { replicas, .. } => Self::Declared(*replicas),
            Request::Apply { spec, .. } => match &spec.scale {
                Scale::Declared { replicas } => Self::Declared(*replicas),
                Scale::Policies(elastic) => Self::Between(elastic.min, elastic.max),
            },
            _ => Self::None,
        }
    }
}

/// Everybody who asks.
pub(crate) struct People {
    dice: Dice,
    pub(crate) wishes: Vec<Wish>,
    /// Subject -> the wish that is not answered yet.
    pub(crate) open: BTreeMap<Subject, usize>,
    /// By slot: what the last answer said.
    pub(crate) declared: Vec<Option<Declared>>,
    revision: Vec<u32>,
    leader: HostNumber,
    to_join: Vec<SiteNumber>,
    draining: Vec<SiteNumber>,
    pub(crate) leaving: Vec<SiteNumber>,
}

impl People {
    pub(crate) fn new(seed: u64, nodes: u32) -> Self {
        Self {
            dice: Dice::new(seed, "people"),
            wishes: Vec::new(),
            open: BTreeMap::new(),
            declared: vec![None; SLOTS],
            revision: vec![0; SLOTS],
            leader: 0,
            to_join: (0..nodes as usize).rev().collect(),
            draining: Vec::new(),
            leaving: Vec::new(),
        }
    }
}

/// A slot's app: its needs and rules belong to its name, what it runs to its revision.
fn spec_of(slot: usize, revision: u32, replicas: u32) -> AppSpec {
    let cpu = [100, 200, 400, 150, 250, 100, 300, 400][slot];
    let zone = |zone: &str| Constraint {
        label: "zone".to_owned(),
        operator: ConstraintOperator::In,
        values: vec![zone.to_owned(), "b".to_owned()],
    };
    let spread = Spread { by: "zone".to_owned(), max_skew: 1, when_full: WhenFull::Relax };
    AppSpec {
        name: format!("app-{slot}"),
        tenant: "default".to_owned(),
        image: format!("image-{slot}:{revision}"),
        image_digest: format!("sha256:{:064x}", slot as u64 * 1_000 + u64::from(revision)),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: Resources { cpu: CpuMilli(cpu), memory: Bytes(cpu << 20) },
        processes: 100,
        scratch: Bytes(64 << 20),
        log: Bytes(16 << 20),
        scale: if slot == ELASTIC_SLOT { elastic() } else { Scale::Declared { replicas } },
        ports: if slot.is_multiple_of(2) {
            vec![Port { name: "http".to_owned(), port: 80, protocol: Protocol::Http }]
        } else {
            Vec::new()
        },
        stop_grace: Millis(2_000),
        drain_deadline: Millis(6_000),
        constraints: if slot == 3 { vec![zone("a")] } else { Vec::new() },
        spread: (slot == 4 || slot == 5).then_some(spread),
        max_per_node: match slot {
            1 => Some(1),
            5 => Some(2),
            _ => None,
        },
        when_cut_off: if slot == 6 { WhenCutOff::StopAfter(Millis(8_000)) } else { WhenCutOff::KeepRunning },
        traffic: Default::default(),
        health: Default::default(),
        isolation: Default::default(),
    }
}

/// Copies that work want company; when all rest, one is left.
fn elastic() -> Scale {
    let policies = vec![Policy::Cpu { target: Permille(500) }];
    Scale::Policies(Elastic { min: 1, max: 10, idle_grace: Millis(5_000), spare: 0, policies, up: None, down: None })
}

fn digest_of(spec: &AppSpec, revision: u32) -> SpecDigest {
    let mut digest = [0; 32];
    digest[..spec.name.len()].copy_from_slice(spec.name.as_bytes());
    digest[24..28].copy_from_slice(&revision.to_le_bytes());
    if let Scale::Declared { replicas } = spec.scale {
        digest[28..].copy_from_slice(&replicas.to_le_bytes());
    }
    SpecDigest(digest)
}

impl World {
    /// Somebody thinks of something.
    pub(crate) fn idea(&mut self) {
        if let Some(site) = self.people.to_join.pop() {
            self.join(site);
            return self.later(20, Event::Idea);
        }
        if !self.troubled() {
            return;
        }
        match self.people.dice.below(100) {
            0..80 => self.app_idea(),
            80..90 => self.drain_idea(),
            90..92 => self.leave_idea(),
            _ => self.busy_idea(),
        }
        let pause = self.people.dice.between(100, 1_500);
        self.later(pause, Event::Idea);
    }

    fn join(&mut self, site: SiteNumber) {
        let known = &self.sites[site];
        let (name, machine, labels) = (known.name.clone(), known.identity.clone(), known.labels());
        self.wish(Subject::Site(site), Request::Join { name, machine, labels });
    }

    fn app_idea(&mut self) {
        let dice = &mut self.people.dice;
        let (slot, replicas) = (dice.below(SLOTS as u64) as usize, dice.between(0, MOST_COPIES) as u32);
        let draw = dice.below(100);
        if self.people.open.contains_key(&Subject::App(slot)) {
            return;
        }
        let declared = self.people.declared[slot].as_ref();
        let Some(declared) = declared.filter(|declared| declared.copies != Copies::None) else {
            return self.apply(slot, replicas, "apps applied");
        };
        let expected = draw.is_multiple_of(3).then_some(declared.generation);
        let (tenant, name) = ("default".to_owned(), format!("app-{slot}"));
        match draw {
            0..75 if slot != ELASTIC_SLOT => {
                self.tally.count("apps scaled");
                self.wish(Subject::App(slot), Request::Scale { tenant, name, replicas, expected });
            }
            0..92 => self.apply(slot, replicas, "revisions applied"),
            _ => {
                self.tally.count("apps removed");
                self.wish(Subject::App(slot), Request::Remove { tenant, name, expected });
            }
        }
    }

    fn apply(&mut self, slot: usize, replicas: u32, what: &'static str) {
        self.tally.count(what);
        self.people.revision[slot] += 1;
        let revision = self.people.revision[slot];
        let spec = spec_of(slot, revision, replicas);
        let digest = digest_of(&spec, revision);
        self.wish(Subject::App(slot), Request::Apply { spec: Box::new(spec), digest, expected: None });
    }

    /// At most one server in ten is drained or leaves, so that what is declared always fits.
    fn drain_idea(&mut self) {
        let people = &mut self.people;
        let again = people.draining.len() >= self.sites.len() / 10 || people.dice.permille(400);
        if again && !people.draining.is_empty() {
            let place = people.dice.below(people.draining.len() as u64) as usize;
            let site = people.draining[place];
            if !people.open.contains_key(&Subject::Site(site)) {
                people.draining.remove(place);
                return self.set_node_state(site, NodeState::Active);
            }
            return;
        }
        let Some(site) = self.some_member_site() else { return };
        self.people.draining.push(site);
        self.tally.count("nodes drained");
        let deadline = Instant(self.now + self.people.dice.between(2_000, 20_000));
        self.set_node_state(site, NodeState::Draining { deadline });
    }

    fn some_member_site(&mut self) -> Option<SiteNumber> {
        let site = self.people.dice.below(self.sites.len() as u64) as usize;
        let free = !self.people.open.contains_key(&Subject::Site(site)) && !self.people.draining.contains(&site);
        let known = &self.sites[site];
        (free && known.node.is_some() && !known.removed).then_some(site)
    }

    fn set_node_state(&mut self, site: SiteNumber, state: NodeState) {
        let node = self.sites[site].name.clone();
        self.wish(Subject::Site(site), Request::SetNodeState { node, state });
    }

    /// A server is switched off for good, and then taken off the list.
    fn leave_idea(&mut self) {
        if self.people.leaving.len() >= self.sites.len() / 10 {
            return;
        }
        let Some(site) = self.some_member_site() else { return };
        self.tally.count("nodes removed for good");
        self.people.leaving.push(site);
        self.crash_site(site);
        self.sites[site].removed = true;
        let node = self.sites[site].name.clone();
        self.wish(Subject::Site(site), Request::RemoveNode { node });
    }

    fn busy_idea(&mut self) {
        for _ in 0..5 {
            let site = self.people.dice.below(self.sites.len() as u64) as usize;
            let running = self.sites[site].machine.running();
            let until = super::machine::busy_until(self.now, &mut self.people.dice);
            if let Some(attempt) = self.people.dice.pick(&running) {
                self.tally.count("copies got work");
                self.sites[site].machine.set_busy(attempt, until);
            }
        }
    }

    fn wish(&mut self, subject: Subject, request: Request) {
        let number = self.people.wishes.len();
        let host = self.people.leader;
        let key = format!("key-{number}");
        self.people.wishes.push(Wish { subject, request, key, attempt: 0, host, done: false });
        self.people.open.insert(subject, number);
        self.ask(number);
    }

    fn ask(&mut self, number: usize) {
        let wish = &mut self.people.wishes[number];
        wish.attempt += 1;
        let (attempt, host) = (wish.attempt, wish.host);
        if attempt > 1 {
            self.tally.count("requests repeated");
        }
        self.later(PATIENCE_MS, Event::Impatience { request: number, attempt });
        if self.net.blocked(self.people_end(), self.host_end(host)) {
            return;
        }
        let delay = self.delay();
        self.later(delay, Event::Request { request: number, attempt, host });
    }

    pub(crate) fn request_arrives(&mut self, number: usize, attempt: u32, host: HostNumber) {
        if !self.hosts[host].up() {
            return;
        }
        let wish = &self.people.wishes[number];
        let (key, request) = (wish.key.clone(), wish.request.clone());
        self.ask_host(host, (number, attempt), key, request);
    }

    pub(crate) fn impatient(&mut self, number: usize, attempt: u32) {
        let wish = &self.people.wishes[number];
        if !wish.done && wish.attempt == attempt {
            self.ask_another(number);
        }
    }

    fn ask_another(&mut self, number: usize) {
        let hosts = self.hosts.len();
        let wish = &mut self.people.wishes[number];
        wish.host = (wish.host + 1) % hosts;
        self.ask(number);
    }

    pub(crate) fn answered(&mut self, number: usize, attempt: u32, answer: Answer) {
        let wish = &self.people.wishes[number];
        if wish.done {
            return;
        }
        match answer {
            Answer::Decided(outcome) => {
                self.people.leader = wish.host;
                self.people.wishes[number].done = true;
                let subject = self.people.wishes[number].subject;
                self.people.open.remove(&subject);
                self.diary.note(self.now, "answered", number as u64, u64::from(attempt));
                self.learn(number, subject, outcome);
            }
            // Asks elsewhere after a moment; what comes of an older attempt is not waited for.
            Answer::Undecided if wish.attempt == attempt => {
                let pause = self.people.dice.between(50, 300);
                self.later(pause, Event::Impatience { request: number, attempt });
            }
            Answer::Undecided => {}
        }
    }

    fn learn(&mut self, number: usize, subject: Subject, outcome: Outcome) {
        match (subject, outcome) {
            (Subject::App(slot), Outcome::App { app, generation, .. }) => {
                let copies = Copies::of(&self.people.wishes[number].request);
                self.check_answer(slot, app, generation);
                self.people.declared[slot] = Some(Declared { app, generation, copies });
            }
            (Subject::Site(site), Outcome::Node { node }) if !self.sites[site].removed => {
                self.sites[site].node = Some(node);
                self.start_agent(site);
            }
            (_, Outcome::Refused(refusal)) => self.check_refusal(number, &refusal),
            _ => {}
        }
    }

    /// Once trouble is over nobody has new ideas; every node may take copies again.
    pub(crate) fn rest(&mut self) {
        for site in 0..self.sites.len() {
            for attempt in self.sites[site].machine.running() {
                let now = self.now;
                self.sites[site].machine.set_busy(attempt, now);
            }
        }
    }
}

/// For the table.
pub(crate) fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::AppChanged => "told: app changed",
        EventKind::Scaled => "told: scaled",
        EventKind::Placed => "told: placed",
        EventKind::Unplaced => "told: unplaced",
        EventKind::Started => "told: started",
        EventKind::Ready => "told: ready",
        EventKind::Unready => "told: unready",
        EventKind::Unhealthy => "told: unhealthy",
        EventKind::Restarted => "told: restarted",
        EventKind::Parked => "told: parked",
        EventKind::Unparked => "told: unparked",
        EventKind::Stopping => "told: stopping",
        EventKind::Ended => "told: ended",
        EventKind::Refused => "told: refused",
        EventKind::NodeChanged => "told: node changed",
        EventKind::NodeLost => "told: node lost",
        EventKind::NodeReturned => "told: node returned",
        EventKind::Orphan => "told: orphan",
        EventKind::Leader => "told: leader",
        EventKind::ImageChanged => "told: image changed",
        EventKind::Rollout => "told: rollout",
        EventKind::Brake => "told: brake",
    }
}
