//! Stories: text scripts with the outcome inline. `> ` begins a command; the lines below it are what came of it.
//!
//! `BELLOWS_UPDATE=1 cargo test -p bellows-core --test stories` writes the outcomes anew; read the difference before you commit it.

mod lab;

use std::collections::BTreeMap;
use std::path::Path;

use bellows_core::effect::Event;
use bellows_core::ids::{Fence, NodeId, ReplicaId, RevisionNumber, SessionId, SpecDigest};
use bellows_core::input::{Activity, AgentIdentity, Exit, Input, Lifecycle, OrderRefusal, Request};
use bellows_core::limits::Limits;
use bellows_core::model::command::NodeState;
use bellows_core::model::spec::{
    AppSpec, Constraint, ConstraintOperator, Elastic, Policy, Port, Protocol, Rate, Route, Scale, Spread, WhenCutOff,
    WhenFull,
};
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Permille, Resources};
use bellows_core::view::settled::Settled;
use bellows_core::{Config, Core};
use lab::{Lab, resources};

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is in the tree")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 12, "the stories are gone");
    let update = std::env::var_os("BELLOWS_UPDATE").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).expect("a story is text");
        let told = tell(&script);
        if update {
            std::fs::write(&path, &told).expect("the tree is writable");
        } else if told != script {
            wrong.push(format!("{}:\n{}", path.display(), difference(&script, &told)));
        }
    }
    assert!(wrong.is_empty(), "stories went otherwise:\n{}", wrong.join("\n"));
}

fn difference(expected: &str, actual: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    let same = left.iter().zip(&right).take_while(|(one, other)| one == other).count();
    let shown =
        |lines: &[&str]| lines.iter().skip(same).take(8).map(|line| format!("    {line}\n")).collect::<String>();
    format!("  line {}\n  expected:\n{}  actual:\n{}", same + 1, shown(&left), shown(&right))
}

struct Teller {
    lab: Lab,
    began: Instant,
    out: String,
}

fn tell(script: &str) -> String {
    let lab = Lab::new(Config { cluster: "story".to_owned(), limits: Limits::default(), seed: 7 });
    let began = lab.now;
    let mut teller = Teller { lab, began, out: String::new() };
    teller.lab.events.clear();
    for line in script.lines().filter(|line| line.starts_with(['#', '>']) || line.is_empty()) {
        teller.out.push_str(line);
        teller.out.push('\n');
        if let Some(command) = line.strip_prefix("> ") {
            teller.command(command);
            teller.drain();
        }
    }
    replays(&teller.lab);
    teller.out
}

/// The same inputs again give the same state, to the byte.
fn replays(lab: &Lab) {
    let mut again = Core::new(lab.core.config().clone());
    for (now, input) in &lab.inputs {
        again.step(*now, input.clone());
    }
    let text = |core: &Core| serde_json::to_string(core).expect("a core is plain data");
    assert!(text(&lab.core) == text(&again), "a replay of the same inputs led elsewhere");
}

impl Teller {
    fn say(&mut self, line: impl AsRef<str>) {
        self.out.push_str("  ");
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    fn drain(&mut self) {
        for note in std::mem::take(&mut self.lab.notes) {
            self.say(note);
        }
        for event in std::mem::take(&mut self.lab.events) {
            let line = self.event(&event);
            self.say(line);
        }
    }

    fn event(&self, event: &Event) -> String {
        let view = self.lab.core.view();
        let subject = match (event.replica, event.app, event.node) {
            (Some(replica), Some(app), Some(node)) => {
                format!(" {} {replica} on {}", view.app_name(app), view.node_name(node))
            }
            (None, Some(app), _) => format!(" {}", view.app_name(app)),
            (None, None, Some(node)) => format!(" {}", view.node_name(node)),
            _ => String::new(),
        };
        let since = event.at - self.began;
        format!("{:>3}.{:03} {:?}{subject}: {}", since.0 / 1_000, since.0 % 1_000, event.kind, event.reason)
    }

    fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["nodes", count, ref rest @ ..] => {
                for _ in 0..number(count) {
                    let name = format!("n{}", self.lab.agents.len() + 1);
                    self.join(&name, rest);
                }
            }
            ["node", name, ref rest @ ..] => self.join(name, rest),
            ["app", name, ref rest @ ..] => self.app(name, rest),
            ["scale", name, count] => {
                let (tenant, name, replicas) = ("default".to_owned(), name.to_owned(), number(count) as u32);
                self.lab.ask(Request::Scale { tenant, name, replicas, expected: None });
            }
            ["remove", name] => {
                let (tenant, name) = ("default".to_owned(), name.to_owned());
                self.lab.ask(Request::Remove { tenant, name, expected: None });
            }
            ["run", length] => self.lab.run(duration(length)),
            ["quiet-run", length] => {
                self.lab.run(duration(length));
                self.lab.events.clear();
            }
            ["leader"] => {
                self.lab.lead();
                self.lab.run(Millis(50));
            }
            ["quorum", answer] => self.lab.step(Input::Quorum { heard: answer == "heard" }),
            ["show", what] => self.show(what),
            ["explain", what] => self.explain(what),
            ["return", name] => self.come_back(name),
            ["settled", name] => self.settled(name),
            ["routes", node, app] => self.routes(node, app),
            ["in-flight", name, count] => self.in_flight(name, number(count) as u32),
            [verb, name, ref rest @ ..] if self.node(name).is_some() => self.node_command(verb, name, rest),
            [verb, name, ref rest @ ..] => self.copy_command(verb, name, rest),
            _ => panic!("not understood: {command}"),
        }
    }

    fn node(&self, name: &str) -> Option<NodeId> {
        self.lab.core.view().find_node(name)
    }

    fn join(&mut self, name: &str, words: &[&str]) {
        let (mut capacity, mut labels) = (resources(4_000, 8_192), BTreeMap::new());
        for word in words {
            match word.split_once('=').expect("key=value") {
                ("cpu", value) => capacity.cpu = CpuMilli(number(value)),
                ("memory", value) => capacity.memory = Bytes(number(value) << 20),
                (key, value) => drop(labels.insert(key.to_owned(), value.to_owned())),
            }
        }
        self.lab.join(name, capacity, labels);
        self.lab.run(Millis(1_000));
        self.lab.events.clear();
    }

    /// A removed server's agent connects with its old identity.
    fn come_back(&mut self, name: &str) {
        let node = self.lab.core.view().find_removed_node(name).expect("it was removed");
        let agent = self.agent(node).identity();
        self.lab.step(Input::Connecting { node, session: SessionId(9_997), agent, fence: Fence::default() });
    }

    fn node_command(&mut self, verb: &str, name: &str, rest: &[&str]) {
        let node = self.node(name).expect("checked by the caller");
        let now = self.lab.now;
        let state = |state| Request::SetNodeState { node: name.to_owned(), state };
        match (verb, rest) {
            ("cordon", []) => drop(self.lab.ask(state(NodeState::Cordoned))),
            ("activate", []) => drop(self.lab.ask(state(NodeState::Active))),
            ("drain", [length]) => {
                let deadline = now + duration(length);
                drop(self.lab.ask(state(NodeState::Draining { deadline })));
            }
            ("remove-node", []) => drop(self.lab.ask(Request::RemoveNode { node: name.to_owned() })),
            ("disconnect", []) => self.lab.disconnect(node),
            // The same disk in another server.
            ("clone", []) => self.strange_agent(node, format!("machine-{name}"), Fence::default()),
            // The same certificate, and nothing else.
            ("thief", []) => self.strange_agent(node, "machine-of-a-thief".to_owned(), Fence::default()),
            ("future", []) => {
                self.strange_agent(node, format!("machine-{name}"), Fence { incarnation: 3, term: 1 });
            }
            ("restart", []) => {
                self.agent(node).instance += 1;
                self.lab.disconnect(node);
                self.lab.connect(node);
            }
            // Its connection still seems to be open, as after a power cut of something between.
            ("restart-unseen", []) => {
                self.agent(node).instance += 1;
                self.lab.connect(node);
            }
            ("reboot", []) => {
                self.agent(node).reboot(now);
                self.lab.disconnect(node);
            }
            ("orphan", []) => self.plant_orphan(node),
            _ => self.agent_command(verb, node, rest),
        }
    }

    fn agent(&mut self, node: NodeId) -> &mut lab::agent::Agent {
        self.lab.agents.get_mut(&node).expect("every node of a story has its agent")
    }

    fn strange_agent(&mut self, node: NodeId, machine: String, fence: Fence) {
        let agent = AgentIdentity { machine, boot: "boot-of-another".to_owned(), instance: "another".to_owned() };
        self.lab.step(Input::Connecting { node, session: SessionId(9_999), agent, fence });
    }

    fn agent_command(&mut self, verb: &str, node: NodeId, rest: &[&str]) {
        if let ("hold" | "arrive", [app, count]) = (verb, rest) {
            let (app, count) = (self.lab.app(app), number(count));
            return self.lab.hold(node, app, if verb == "hold" { count as u32 } else { 0 }, count);
        }
        if let ("refuse", [app, count]) = (verb, rest) {
            let (app, count) = (self.lab.app(app), number(count));
            return self.lab.refuse(node, app, count as u32);
        }
        let agent = self.agent(node);
        match (verb, rest) {
            ("silence", []) => agent.silent = true,
            ("wake", []) => {
                agent.silent = false;
                agent.session = None;
            }
            ("mute", []) => drop(self.lab.mute.insert(node)),
            ("unmute", []) => drop(self.lab.mute.remove(&node)),
            ("load", [cpu]) => agent.other = Resources { cpu: CpuMilli(number(cpu)), ..Resources::default() },
            ("full", []) => agent.refuses = Some(OrderRefusal::NoRoom),
            ("broken", []) => agent.refuses = Some(OrderRefusal::Failed),
            ("willing", []) => agent.refuses = None,
            ("unready", []) => agent.never_ready = true,
            ("busy-refusals", [count]) => agent.busy_refusals = number(count) as u32,
            _ => panic!("not understood: {verb} {rest:?}"),
        }
    }

    /// A copy of an app that this cluster has never heard of.
    fn plant_orphan(&mut self, node: NodeId) {
        let id = ReplicaId { fence: Fence { incarnation: 1, term: 0 }, counter: 77 };
        let now = self.lab.now;
        let agent = self.lab.agents.get_mut(&node).expect("every node of a story has its agent");
        let report = bellows_core::input::ReplicaReport {
            id,
            app: bellows_core::ids::AppId(900),
            revision: RevisionNumber(1),
            lifecycle: Lifecycle::Running,
            ready: true,
            resources: resources(500, 128),
            ..Default::default()
        };
        let copy = lab::agent::Copy { report, ready_at: None, ends_at: None, since: now, told: false, idle_since: now };
        agent.copies.insert(id, copy);
    }

    /// `busy REPLICA 3`, `idle REPLICA`, `crash REPLICA`, `use APP 400` and the like; an app's name means all its copies.
    fn copy_command(&mut self, verb: &str, name: &str, rest: &[&str]) {
        let ids: Vec<ReplicaId> = match name.parse() {
            Ok(id) => vec![id],
            Err(_) => self.lab.running(self.lab.app(name)),
        };
        assert!(!ids.is_empty(), "no copies of {name} for {verb}");
        let now = self.lab.now;
        for agent in self.lab.agents.values_mut() {
            for id in ids.iter().copied() {
                let Some(copy) = agent.copies.get_mut(&id) else { continue };
                match (verb, rest) {
                    ("busy", [requests]) => {
                        copy.report.activity = Activity::Busy { requests: number(requests) as u32 };
                        copy.told = false;
                    }
                    ("idle", []) => {
                        copy.idle_since = now;
                        copy.report.activity = Activity::Idle { length: Millis(0) };
                        copy.told = false;
                    }
                    ("use", [cpu]) => copy.report.used.cpu = CpuMilli(number(cpu)),
                    ("crash", []) => agent.end(now, id, Exit::Code(1), "crash_loop", "5 attempts crashed"),
                    _ => panic!("not understood: {verb} {name} {rest:?}"),
                }
            }
        }
    }

    fn app(&mut self, name: &str, words: &[&str]) {
        let mut spec = plain(name);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut next = || *words.next().expect("a value follows");
            match *word {
                "replicas" => spec.scale = Scale::Declared { replicas: number(next()) as u32 },
                "cpu" => spec.resources.cpu = CpuMilli(number(next())),
                "memory" => spec.resources.memory = Bytes(number(next()) << 20),
                "image" => spec.image = next().to_owned(),
                "max-per-node" => spec.max_per_node = Some(number(next()) as u32),
                "drain" => spec.drain_deadline = duration(next()),
                "stop-after" => spec.when_cut_off = WhenCutOff::StopAfter(duration(next())),
                "host" => {
                    let route = Route {
                        listen: None,
                        host: next().to_owned(),
                        path: String::new(),
                        port: 80,
                        tls: false,
                        max_body: None,
                    };
                    spec.traffic.routes.push(route);
                }
                "limit" => spec.traffic.limit = Some(number(next()) as u32),
                "demand" => {
                    let (min, max) = (number(next()) as u32, number(next()) as u32);
                    let (target, idle_grace) = (number(next()) as u32, duration(next()));
                    let policies = vec![Policy::Concurrency { target }];
                    let (up, down) = (None, None);
                    spec.scale = Scale::Policies(Elastic { min, max, idle_grace, spare: 0, policies, up, down });
                }
                "per-second" => {
                    elastic(&mut spec).policies.push(Policy::RequestsPerSecond { target: number(next()) as u32 })
                }
                "spare" => elastic(&mut spec).spare = number(next()) as u32,
                "up" => elastic(&mut spec).up = Some(Rate { copies: number(next()) as u32, per: duration(next()) }),
                "down" => elastic(&mut spec).down = Some(Rate { copies: number(next()) as u32, per: duration(next()) }),
                "needs" => {
                    let (label, value) = next().split_once('=').expect("label=value");
                    let (label, values) = (label.to_owned(), vec![value.to_owned()]);
                    spec.constraints.push(Constraint { label, operator: ConstraintOperator::In, values });
                }
                "spread" => {
                    let (by, max_skew) = (next().to_owned(), number(next()) as u32);
                    let when_full = if next() == "refuse" { WhenFull::Refuse } else { WhenFull::Relax };
                    spec.spread = Some(Spread { by, max_skew, when_full });
                }
                "policy" => {
                    let (min, max) = (number(next()) as u32, number(next()) as u32);
                    let (target, idle_grace) = (Permille(number(next()) as u32), duration(next()));
                    let policies = vec![Policy::Cpu { target }];
                    spec.scale =
                        Scale::Policies(Elastic { min, max, idle_grace, spare: 0, policies, up: None, down: None });
                }
                other => panic!("not understood: {other}"),
            }
        }
        let digest = SpecDigest([spec.image.len() as u8; 32]);
        self.lab.ask(Request::Apply { spec: Box::new(spec), digest, expected: None });
    }

    fn show(&mut self, what: &str) {
        let view = self.lab.core.view();
        let lines: Vec<String> = match what {
            "apps" => view
                .apps()
                .iter()
                .map(|row| {
                    format!(
                        "{}: wanted {}, ready {}, starting {}, stopping {}, lost {}",
                        row.name, row.wanted, row.ready, row.starting, row.stopping, row.lost
                    )
                })
                .collect(),
            "nodes" => view
                .nodes()
                .iter()
                .map(|row| {
                    format!(
                        "{}: {}, {:?}, load {}, {} copies",
                        row.name, row.state, row.liveness, row.load, row.replicas
                    )
                })
                .collect(),
            "replicas" => view
                .replicas(None, None)
                .iter()
                .map(|row| format!("{} {} r{} on {}: {}", row.app_name, row.id, row.revision, row.node_name, row.state))
                .collect(),
            "running" => self
                .lab
                .agents
                .values()
                .map(|agent| {
                    let live = agent.copies.values().filter(|copy| copy.report.ended.is_none());
                    let ids: Vec<String> = live.map(|copy| copy.report.id.to_string()).collect();
                    format!("{} runs [{}]", agent.name, ids.join(", "))
                })
                .collect(),
            "model" => self
                .lab
                .core
                .model()
                .apps
                .values()
                .map(|app| {
                    let good = app.last_good.as_ref().map_or(0, |good| good.number.0);
                    format!(
                        "{}: recorded {}, revision {}, last good {good}",
                        app.current.spec.name, app.wanted, app.current.number
                    )
                })
                .collect(),
            other => panic!("cannot show {other}"),
        };
        lines.iter().for_each(|line| self.say(line));
    }

    fn explain(&mut self, what: &str) {
        let view = self.lab.core.view();
        let removed = || view.find_removed_node(what);
        let answers = match (what.parse::<ReplicaId>(), view.find_node(what).or_else(removed)) {
            (Ok(id), _) => view.explain_replica(id),
            (_, Some(node)) => view.explain_node(node),
            _ => view.explain_app(self.lab.app(what)),
        };
        for answer in answers {
            self.say(&answer.question);
            self.say(format!("  {}", answer.answer));
            answer.facts.iter().for_each(|fact| self.say(format!("    - {fact}")));
        }
    }

    /// What an ingress has been told of an app's copies.
    fn routes(&mut self, node: &str, app: &str) {
        let (node, app) = (self.node(node).expect("a node's name"), self.lab.app(app));
        let Some((last, copies)) = self.agent(node).routes.get(&app).cloned() else { return self.say("no routes") };
        for copy in copies.values() {
            let words = [(copy.ready, "ready"), (copy.parked, "parked")];
            let words: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            self.say(format!("{} by {}: {}", copy.id, copy.owner, words.join(", ")));
        }
        if !last.waiting.is_empty() {
            self.say(format!("waiting: {}", last.waiting));
        }
    }

    /// The owners count so many requests in one copy, or in each copy of an app.
    fn in_flight(&mut self, name: &str, requests: u32) {
        let ids = name.parse().map_or_else(|_| self.lab.running(self.lab.app(name)), |id| vec![id]);
        let now = self.lab.now;
        let mut counted = Vec::new();
        for (node, agent) in &mut self.lab.agents {
            for id in &ids {
                let Some(copy) = agent.copies.get_mut(id) else { continue };
                copy.idle_since = now;
                copy.report.activity = match requests {
                    0 => Activity::Idle { length: Millis(0) },
                    requests => Activity::Busy { requests },
                };
                counted.push((*node, *id));
            }
        }
        counted.into_iter().for_each(|(node, id)| self.lab.in_flight(node, id, requests));
    }

    fn settled(&mut self, name: &str) {
        let (app, generation) = (self.lab.app(name), self.lab.generation(name));
        let line = match self.lab.core.view().settled(app, generation) {
            Settled::Yes => "settled".to_owned(),
            Settled::NotYet(why) => format!("not yet: {why}"),
            Settled::Superseded(by) => format!("superseded by generation {by}"),
        };
        self.say(line);
    }
}

/// The policies of a spec that has some already.
fn elastic(spec: &mut AppSpec) -> &mut Elastic {
    match &mut spec.scale {
        Scale::Policies(elastic) => elastic,
        Scale::Declared { .. } => panic!("say `demand` or `policy` before"),
    }
}

fn plain(name: &str) -> AppSpec {
    AppSpec {
        name: name.to_owned(),
        tenant: "default".to_owned(),
        image: "busybox".to_owned(),
        image_digest: "sha256:00".to_owned(),
        command: vec!["sleep".to_owned()],
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: resources(500, 128),
        processes: 100,
        scratch: Bytes(1 << 20),
        log: Bytes(1 << 20),
        scale: Scale::Declared { replicas: 1 },
        ports: vec![Port { name: "http".to_owned(), port: 80, protocol: Protocol::Http }],
        stop_grace: Millis(5_000),
        drain_deadline: Millis(10_000),
        constraints: Vec::new(),
        spread: None,
        max_per_node: None,
        when_cut_off: WhenCutOff::KeepRunning,
        traffic: Default::default(),
        health: Default::default(),
        isolation: Default::default(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("\"{text}\" is no number"))
}

fn duration(text: &str) -> Millis {
    match text.strip_suffix("ms") {
        Some(count) => Millis(number(count)),
        None => Millis(number(text.strip_suffix('s').expect("a length ends in s or ms")) * 1_000),
    }
}
