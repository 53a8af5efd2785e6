//! The language of the stories. One line, one input; `# text` is for the reader; `restart` gives a new mind the journal of the old one.

use std::fmt::Write;

use bellows_agent_core::input::{Counters, Found, FoundState, LaunchFailure, Reading};
use bellows_agent_core::traffic::Demand;
use bellows_agent_core::{
    Action, Activity, AgentCore, Allowance, AppId, Bytes, Check, Config, CpuMilli, Effect, Exit, Fence, Health, Input,
    Instant, Millis, Order, OrderSequence, Probe, Reason, Record, ReplicaId, ReplicaReport, Resources, RevisionNumber,
    RunSpec, Serving, SessionId, SpecDigest, WhenCutOff,
};

struct Teller {
    core: AgentCore,
    config: Config,
    now: Instant,
    journal: Vec<Record>,
    out: String,
}

/// Runs a script; returns it with the effects under each line.
pub fn tell(script: &str) -> String {
    let config = Config { capacity: Some(resources(1_000, 1_000)), remembered_most: 2, ..Config::default() };
    let core = AgentCore::new(config.clone());
    let mut teller = Teller { core, config, now: Instant(0), journal: Vec::new(), out: String::new() };
    for line in script.lines() {
        writeln!(teller.out, "{line}").expect("a string takes any text");
        if !line.starts_with('#') && !line.is_empty() {
            teller.line(line);
        }
    }
    teller.out
}

fn resources(cpu: u64, memory: u64) -> Resources {
    Resources { cpu: CpuMilli(cpu), memory: Bytes(memory) }
}

impl Teller {
    fn line(&mut self, line: &str) {
        let (at, rest) = line.split_once(' ').expect("a line is `MS VERB ...`");
        self.now = Instant(at.parse().expect("a line begins with milliseconds"));
        let words: Vec<&str> = rest.split(' ').collect();
        let input = self.input(&words);
        for effect in self.core.step(self.now, input) {
            if let Effect::Persist(record) = &effect {
                self.journal.push(record.clone());
            }
            writeln!(self.out, "    {}", show(&effect)).expect("a string takes any text");
        }
    }

    fn input(&mut self, words: &[&str]) -> Input {
        let who = |at: usize| words[at].parse::<ReplicaId>().expect("a replica id");
        let number = |at: usize| words[at].parse::<u32>().expect("a number");
        match words[0] {
            "adopt" => self.adopt(&words[1..]),
            "tick" => Input::Tick,
            "greeting" => Input::Greeting { fence: fence(words[1]), session: session(words[2]) },
            "disconnected" => Input::Disconnected { session: session(words[1]) },
            "orders" => orders(words),
            "acknowledged" => Input::Acknowledged { session: session(words[1]), ended: vec![who(2)] },
            "image" => image(words),
            "launched" => Input::Launched { replica: who(1), attempt: number(2), address: "10.0.0.7".to_owned() },
            "launch-failed" => {
                let why = words[4..].join(" ");
                let failure =
                    if words[3] == "impossible" { LaunchFailure::Impossible(why) } else { LaunchFailure::Failed(why) };
                Input::LaunchFailed { replica: who(1), attempt: number(2), failure }
            }
            "exited" => Input::Exited { replica: who(1), attempt: number(2), exit: exit(words[3]) },
            "listening" => Input::Listening { replica: who(1), attempt: number(2), listening: words[3] == "yes" },
            "checked" => Input::Checked {
                replica: who(1),
                attempt: number(2),
                probe: probe(words[3]),
                outcome: if words[4] == "ok" { Ok(()) } else { Err(words[4..].join(" ")) },
            },
            "requests" => Input::Requests { replica: who(1), requests: number(2) },
            "demand" => demand(words),
            "allowances" => allowances(words),
            "sampled" => Input::Sampled { readings: vec![reading(who(1), number(2), &words[3..])] },
            "freeze" | "thaw" => Input::Freeze {
                replica: who(1),
                frozen: words[0] == "freeze",
                force: words.get(2) == Some(&"force"),
                ticket: 7,
            },
            "heartbeat" => Input::Heartbeat { load: Default::default() },
            other => panic!("no such verb: {other}"),
        }
    }

    /// `boot=NAME` for another boot of the server, `compacted` for a journal in its shortest form, and what is found.
    fn adopt(&mut self, words: &[&str]) -> Input {
        let (mut boot, mut found) = ("boot-1".to_owned(), Vec::new());
        for word in words {
            match word.strip_prefix("boot=") {
                Some(name) => boot = name.to_owned(),
                None if *word == "compacted" => self.journal = self.core.records(),
                None => found.push(one_found(word)),
            }
        }
        self.core = AgentCore::new(self.config.clone());
        Input::Adopted { records: self.journal.clone(), found, heard: self.now, boot }
    }
}

/// `1-2-3.1=alive` or `1-2-3.1=code:0`.
fn one_found(word: &str) -> Found {
    let (name, state) = word.split_once('=').expect("`ID.ATTEMPT=STATE`");
    let (id, attempt) = name.split_once('.').expect("`ID.ATTEMPT`");
    let state = match state {
        "alive" => FoundState::Alive { address: "10.0.0.7".to_owned(), since: Instant(0) },
        ended => FoundState::Ended(exit(ended)),
    };
    Found { replica: id.parse().expect("a replica id"), attempt: attempt.parse().expect("a number"), state }
}

fn fence(word: &str) -> Fence {
    let (incarnation, term) = word.split_once('.').expect("`INCARNATION.TERM`");
    Fence { incarnation: incarnation.parse().expect("a number"), term: term.parse().expect("a number") }
}

fn session(word: &str) -> SessionId {
    SessionId(word.trim_start_matches('s').parse().expect("`sNUMBER`"))
}

fn exit(word: &str) -> Exit {
    match word.split_once(':') {
        Some(("code", code)) => Exit::Code(code.parse().expect("a number")),
        Some(("signal", signal)) => Exit::Signal(signal.parse().expect("a number")),
        _ if word == "oom" => Exit::OutOfMemory,
        _ => Exit::Unknown,
    }
}

/// `image IMAGE ready|gone|late`.
fn image(words: &[&str]) -> Input {
    let image = words[1].to_owned();
    match words[2] {
        "ready" => Input::ImageReady { image },
        state => {
            Input::ImageFailed { image, retry: state == "late", why: "the controller has no such blob".to_owned() }
        }
    }
}

/// `cpu_us=N connections=N mark`, or `unreadable`.
fn reading(replica: ReplicaId, attempt: u32, words: &[&str]) -> Reading {
    let mut counters = Counters { memory: Bytes(10), processes: 2, ..Counters::default() };
    for word in words {
        match word.split_once('=') {
            Some(("cpu_us", value)) => counters.cpu_us = value.parse().expect("a number"),
            Some(("connections", value)) => counters.connections = value.parse().expect("a number"),
            _ => counters.busy_mark = *word == "mark",
        }
    }
    Reading { replica, attempt, counters: (words != ["unreadable"]).then_some(counters) }
}

/// `orders FENCE SESSION SEQUENCE:VERB:REPLICA[:SPEC] ...`; specs: `web` listens on a port, `job` does not, `brief` stops when cut off, `huge` is too large, `fit` is checked.
fn orders(words: &[&str]) -> Input {
    let orders: Vec<Order> = words[3..].iter().map(|word| order(word)).collect();
    // Only where it is run, so that the other stories stay short.
    let checked = words.iter().any(|word| word.ends_with(":fit")).then_some("fit");
    let specs =
        ["web", "job", "brief", "huge"].into_iter().chain(checked).map(|name| (digest(name), spec(name))).collect();
    Input::Orders { fence: fence(words[1]), session: session(words[2]), specs, orders }
}

/// `demand aAPP held=N came=N ID=COUNT ...`.
fn demand(words: &[&str]) -> Input {
    let mut demand = Demand::default();
    for (name, value) in words[2..].iter().filter_map(|word| word.split_once('=')) {
        let count = value.parse().expect("a number");
        match name {
            "held" => demand.held = count,
            "came" => demand.arrivals = u64::from(count),
            id => demand.in_flight.push((id.parse().expect("a replica id"), count)),
        }
    }
    let app = AppId(words[1].trim_start_matches('a').parse().expect("`aNUMBER`"));
    Input::Demand { app, demand }
}

/// `allowances FENCE SESSION ID:SPEC ...`.
fn allowances(words: &[&str]) -> Input {
    let specs = ["web", "job", "brief", "huge"].map(|name| (digest(name), spec(name))).to_vec();
    let one = |word: &&str| {
        let (id, name) = word.split_once(':').expect("`ID:SPEC`");
        let (app, revision, digest) = (AppId(1), RevisionNumber(1), digest(name));
        Allowance { id: id.parse().expect("a replica id"), app, revision, digest }
    };
    let allowances = words[3..].iter().map(one).collect();
    Input::Allowances { fence: fence(words[1]), session: session(words[2]), version: 1, specs, allowances }
}

fn shown<T: std::fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn order(word: &str) -> Order {
    let parts: Vec<&str> = word.split(':').collect();
    let action = match parts[1] {
        "start" => Action::Start { app: AppId(1), revision: RevisionNumber(1), digest: digest(parts[3]) },
        "park" => Action::Park,
        "unpark" => Action::Unpark,
        "stop" => Action::Stop { only_if_idle: false, grace: Millis(1_000) },
        "stop-if-idle" => Action::Stop { only_if_idle: true, grace: Millis(1_000) },
        other => panic!("no such order: {other}"),
    };
    Order {
        sequence: OrderSequence(parts[0].parse().expect("a number")),
        replica: parts[2].parse().expect("a replica id"),
        action,
        reason: Reason::new("story", format!("the leader said {}", parts[1])),
    }
}

fn digest(name: &str) -> SpecDigest {
    SpecDigest([name.as_bytes()[0]; 32])
}

fn spec(name: &str) -> RunSpec {
    RunSpec {
        image: "busybox".to_owned(),
        resources: if name == "huge" { resources(2_000, 10) } else { resources(100, 100) },
        ready_port: (name == "web").then_some(80),
        health: if name == "fit" { health() } else { Health::default() },
        stop_grace: Millis(500),
        when_cut_off: if name == "brief" { WhenCutOff::StopAfter(Millis(10_000)) } else { WhenCutOff::KeepRunning },
    }
}

/// Startup at once, the others 1 s after the start; every 2 s; two failures in a row count.
fn health() -> Health {
    let check = |what: &str, delay| {
        let (what, initial_delay, period) = (what.to_owned(), Millis(delay), Millis(2_000));
        Some(Check { what, initial_delay, period, successes: 1, failures: 2 })
    };
    Health {
        startup: check("TCP port 80", 0),
        liveness: check("GET /live on port 80", 1_000),
        readiness: check("/bin/ready", 1_000),
    }
}

fn probe(word: &str) -> Probe {
    [Probe::Startup, Probe::Liveness, Probe::Readiness]
        .into_iter()
        .find(|probe| probe.name() == word)
        .expect("startup, liveness or readiness")
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Persist(record) => format!("persist {}", show_record(record)),
        Effect::Subscribe { session, apps, dropped, .. } if dropped.is_empty() => {
            format!("subscribe {session} {}", shown(apps))
        }
        Effect::Subscribe { session, apps, dropped, .. } => {
            format!("subscribe {session} {} no more {}", shown(apps), shown(dropped))
        }
        Effect::Traffic { session, apps, replicas, .. } => {
            let apps = apps.iter().map(|(app, it)| format!(" {app}: {} held, {} came", it.held, it.arrivals));
            let replicas = replicas.iter().map(|(id, count)| format!(" {id}: {count}"));
            format!("traffic {session}{}", apps.chain(replicas).collect::<Vec<_>>().join(";"))
        }
        Effect::Serve(Serving { id, attempt, ready, parked, over, .. }) => {
            let words = [(*ready, " ready"), (*parked, " parked"), (*over, " over")];
            let words: String = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            format!("serve {id}.{attempt}{words}")
        }
        Effect::Hello { fence, session, inventory, remembered, allowances } => {
            let mut text = format!("hello {fence} {session}{}", show_replicas(inventory));
            if !allowances.is_empty() {
                let ids: Vec<_> = allowances.iter().map(|allowance| allowance.id).collect();
                write!(text, "\n      may start {}", shown(&ids)).expect("a string takes any text");
            }
            if !remembered.is_empty() {
                write!(text, "\n      remembers{}", show_replicas(remembered)).expect("a string takes any text");
            }
            text
        }
        Effect::Report { session, report, .. } => {
            let mut text =
                format!("report {session} acknowledged={}{}", report.acknowledged, show_replicas(&report.replicas));
            if report.load.is_some() {
                text.push_str(" with load");
            }
            for refused in &report.refused {
                write!(
                    text,
                    "\n        refused {} {}: {:?}, {}",
                    refused.sequence, refused.replica, refused.why, refused.text
                )
                .expect("a string takes any text");
            }
            text
        }
        Effect::CloseSession { session, why } => format!("close {session}: {why}"),
        Effect::Pull { image } => format!("pull {image}"),
        Effect::Launch { replica, attempt, .. } => format!("launch {replica}.{attempt}"),
        Effect::Watch { replica, attempt, port } => format!("watch {replica}.{attempt} port {port}"),
        Effect::Check { replica, attempt, probe } => format!("check {replica}.{attempt} {}", probe.name()),
        Effect::Freeze { replica, attempt, frozen, ticket } => {
            format!("{} {replica}.{attempt} for {ticket}", if *frozen { "freeze" } else { "thaw" })
        }
        Effect::RefuseFreeze { ticket, why } => format!("refuse {ticket}: {why}"),
        Effect::Thaw { replica, attempt } => format!("thaw {replica}.{attempt} first"),
        Effect::Sample { replica, attempt } => format!("sample {replica}.{attempt}"),
        Effect::Stop { replica, attempt, grace } => format!("stop {replica}.{attempt} grace {grace}"),
        Effect::Kill { replica, attempt } => format!("kill {replica}.{attempt}"),
        Effect::Forget { replica, attempt } => format!("forget {replica}.{attempt}"),
        Effect::DropSpec { digest } => format!("drop spec {digest}"),
        Effect::Stray { replica, attempt } => format!("stray {replica}.{attempt}"),
    }
}

fn show_record(record: &Record) -> String {
    let durable = if record.durable() { " (synced)" } else { "" };
    let text = match record {
        Record::Fence(fence) => format!("fence {fence}"),
        Record::Boot(boot) => format!("boot {boot}"),
        Record::Spec { digest, .. } => format!("spec {digest}"),
        Record::Ordered { replica, .. } => format!("ordered {replica}"),
        Record::Parked { replica, parked, .. } => format!("parked {replica} {parked}"),
        Record::Stop { replica, reason, .. } => format!("stop {replica}: {reason}"),
        Record::Attempt { replica, attempt, crashes, last_exit } => {
            let last = last_exit.map(|exit| format!(", the last: {exit}")).unwrap_or_default();
            format!("attempt {replica}.{attempt} after {crashes} crashes{last}")
        }
        Record::Ended { replica, ended, .. } => format!("ended {replica}: {}, {}", ended.exit, ended.why),
        Record::Forgotten { replica } => format!("forgotten {replica}"),
    };
    text + durable
}

fn show_replicas(replicas: &[ReplicaReport]) -> String {
    replicas.iter().map(|replica| format!("\n        {}", show_replica(replica))).collect()
}

fn show_replica(r: &ReplicaReport) -> String {
    let mut text = format!("{}.{} {:?}", r.id, r.attempt, r.lifecycle);
    if r.ready {
        text.push_str(" ready");
    }
    if r.parked {
        text.push_str(" parked");
    }
    if !r.address.is_empty() {
        match r.activity {
            Activity::Busy { requests } => write!(text, " busy({requests})"),
            Activity::Idle { length } => write!(text, " idle {length}"),
        }
        .expect("a string takes any text");
        write!(text, " running for {} using {} {}", r.running_for, r.used.cpu, r.used.memory)
            .expect("a string takes any text");
    }
    if !r.unhealthy.is_empty() {
        write!(text, " ({})", r.unhealthy).expect("a string takes any text");
    }
    if let Some(ended) = &r.ended {
        write!(text, " [{}: {}]", ended.exit, ended.why).expect("a string takes any text");
    }
    text
}
