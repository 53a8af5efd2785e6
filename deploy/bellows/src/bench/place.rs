//! `bench place`: the deciding code alone, one thread, time standing still: how many copies it places in a second of its own CPU time.
//! Agents do not answer, so every copy stays a reservation. The core's own checker runs over each result, outside the clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant as Clock;

use bellows_core::check::check;
use bellows_core::effect::{Action, Effect};
use bellows_core::ids::{Fence, LogIndex, NodeId, OrderSequence, SessionId, SpecDigest, Token};
use bellows_core::input::{Input, NodeFacts, NodeUse, Report, Request};
use bellows_core::model::command::Outcome;
use bellows_core::model::spec::{AppSpec, Scale, Spread, WhenCutOff, WhenFull};
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Resources};
use bellows_core::{Config, Core};
use clap::Args;

use super::rows::Row;
use crate::failure::Failure;

const TENANT: &str = "default";

/// Labels of nodes: this many zones.
const ZONES: u32 = 10;

/// How quickly copies are placed on nodes, in the deciding code alone
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// How many copies altogether
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    copies: u32,
}

/// How the same copies are asked for.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    apps: u32,
    /// Copies of one request.
    step: u32,
    shape: Shape,
}

/// What restrains each app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Spread,
    PerNode,
}

const LOADS: [Load; 5] = [
    Load { name: "one request of all", apps: 1, step: u32::MAX, shape: Shape::Plain },
    Load { name: "requests of 10", apps: 1_000, step: 10, shape: Shape::Plain },
    Load { name: "requests of 1", apps: 1_000, step: 1, shape: Shape::Plain },
    Load { name: "one request of all, spread over zones", apps: 1, step: u32::MAX, shape: Shape::Spread },
    Load { name: "one request of all, at most 20 per node", apps: 1, step: u32::MAX, shape: Shape::PerNode },
];

/// One row for each load, and one for heartbeats.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let Arguments { nodes, copies } = *arguments;
    let mut rows = Vec::new();
    for load in LOADS {
        let mut cluster = Cluster::with_nodes(nodes)?;
        let seconds = cluster.place(load, copies)?;
        cluster.checked()?;
        rows.push(Row::new(
            format!("{copies} copies on {nodes} nodes: {}", load.name),
            f64::from(copies) / seconds,
            "1/s",
        ));
        if load.shape == Shape::Plain && load.apps == 1 {
            let us = cluster.heartbeats() * 1e6 / f64::from(nodes);
            rows.push(Row::new(format!("a heartbeat among {nodes} nodes with {copies} copies"), us, "us"));
        }
    }
    Ok(rows)
}

/// A leader and nodes that only listen.
struct Cluster {
    core: Core,
    now: Instant,
    nodes: Vec<(NodeId, SessionId)>,
    committed: u64,
    token: u64,
    started: u64,
    /// The answer to the last request.
    outcome: Option<Outcome>,
}

impl Cluster {
    fn with_nodes(count: u32) -> Result<Self, Failure> {
        let mut cluster = Self {
            core: Core::new(Config::default()),
            now: Instant(1_000_000),
            nodes: Vec::new(),
            committed: 0,
            token: 0,
            started: 0,
            outcome: None,
        };
        cluster.take(Input::BecameLeader { term: 1 });
        cluster.take(Input::Quorum { heard: true });
        (0..count).try_for_each(|number| cluster.join(number)).map(|()| cluster)
    }

    /// One thing happens, and everything that follows from it: what is proposed is committed at once.
    fn take(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.core.step(self.now, input) {
                match effect {
                    Effect::Propose { token, command } => {
                        self.committed += 1;
                        inputs.push_back(Input::Committed { index: LogIndex(self.committed), token, command });
                    }
                    Effect::Orders { orders, .. } => {
                        let starts = orders.iter().filter(|order| matches!(order.action, Action::Start { .. }));
                        self.started += starts.count() as u64;
                    }
                    Effect::Reply { outcome, .. } => self.outcome = Some(outcome),
                    _ => {}
                }
            }
        }
    }

    fn ask(&mut self, request: Request) -> Result<Outcome, Failure> {
        self.token += 1;
        self.take(Input::Request { token: Token(self.token), by: "bench".to_owned(), key: String::new(), request });
        match self.outcome.take() {
            Some(Outcome::Refused(refusal)) => Err(Failure::failed(format!("the core refuses: {refusal}"))),
            Some(outcome) => Ok(outcome),
            None => Err(Failure::failed("the core does not answer")),
        }
    }

    fn join(&mut self, number: u32) -> Result<(), Failure> {
        let labels = BTreeMap::from([("zone".to_owned(), format!("z{}", number % ZONES))]);
        let (name, machine) = (format!("node-{number}"), format!("machine-{number}"));
        let Outcome::Node { node } =
            self.ask(Request::Join { name, machine: machine.clone(), labels: labels.clone() })?
        else {
            return Err(Failure::failed("the core does not name the node that joined"));
        };
        let session = SessionId(u64::from(number) + 1);
        self.take(Input::Connecting { node, session, machine, fence: Fence::default() });
        let capacity = Resources { cpu: CpuMilli(64_000), memory: Bytes(256 << 30) };
        let facts = NodeFacts { boot: "1".to_owned(), capacity, labels, version: "bench".to_owned() };
        self.take(Input::Hello { node, session, facts, inventory: Vec::new() });
        self.nodes.push((node, session));
        Ok(())
    }

    /// Seconds that it took to place all copies.
    fn place(&mut self, load: Load, copies: u32) -> Result<f64, Failure> {
        let names: Vec<_> = (0..load.apps).map(|number| format!("app-{number}")).collect();
        for name in &names {
            let digest = SpecDigest::default();
            self.ask(Request::Apply { spec: Box::new(spec(name, load.shape)), digest, expected: None })?;
        }
        let step = load.step.min(copies);
        let began = Clock::now();
        for request in 0..copies.div_ceil(step) {
            let name = names[(request % load.apps) as usize].clone();
            let replicas = (request / load.apps + 1) * step;
            self.ask(Request::Scale { tenant: TENANT.to_owned(), name, replicas, expected: None })?;
        }
        let seconds = began.elapsed().as_secs_f64();
        match self.started {
            started if started >= u64::from(copies) => Ok(seconds),
            started => Err(Failure::failed(format!("{}: only {started} of {copies} copies were placed", load.name))),
        }
    }

    /// Seconds that one heartbeat of each node took altogether.
    fn heartbeats(&mut self) -> f64 {
        let used = Resources { cpu: CpuMilli(1_000), memory: Bytes(1 << 30) };
        let load = Some(NodeUse { used, age: Millis(50), pressure: None });
        let began = Clock::now();
        for (node, session) in self.nodes.clone() {
            let report = Report { acknowledged: OrderSequence(0), load, ..Report::default() };
            self.take(Input::Report { node, session, report });
        }
        began.elapsed().as_secs_f64()
    }

    fn checked(&self) -> Result<(), Failure> {
        let broken: Vec<_> = check(&self.core).iter().take(3).map(ToString::to_string).collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(Failure::failed(format!("the checker objects: {}", broken.join("; "))))
        }
    }
}

fn spec(name: &str, shape: Shape) -> AppSpec {
    let spread = Spread { by: "zone".to_owned(), max_skew: 1, when_full: WhenFull::Refuse };
    AppSpec {
        name: name.to_owned(),
        tenant: TENANT.to_owned(),
        image: "bench".to_owned(),
        image_digest: format!("sha256:{}", "0".repeat(64)),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: Resources { cpu: CpuMilli(100), memory: Bytes(128 << 20) },
        processes: 64,
        scratch: Bytes(1 << 20),
        log: Bytes(1 << 20),
        scale: Scale::Declared { replicas: 0 },
        ports: Vec::new(),
        stop_grace: Millis(10_000),
        drain_deadline: Millis(60_000),
        constraints: Vec::new(),
        spread: (shape == Shape::Spread).then_some(spread),
        max_per_node: (shape == Shape::PerNode).then_some(20),
        when_cut_off: WhenCutOff::KeepRunning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_placed_whole() {
        for load in LOADS {
            let mut cluster = Cluster::with_nodes(20).expect("nodes join");
            cluster.place(load, 300).unwrap_or_else(|failure| panic!("{failure}"));
            cluster.checked().unwrap_or_else(|failure| panic!("{}: {failure}", load.name));
            assert_eq!(cluster.started, 300, "{}", load.name);
            assert!(cluster.heartbeats() > 0.0);
        }
    }
}
