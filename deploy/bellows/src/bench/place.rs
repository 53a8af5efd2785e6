//! `bench place`: the deciding code alone, on one thread, in that thread's own CPU time.
//!
//! The watch runs from the step that takes a request in until its orders are written, with their reasons. Outside the watch: joins, apps,
//! the heartbeats' making, and the core's checker, which runs over each result. A load is measured several times and the quickest counts:
//! neighbours on the machine only ever add.

use std::hint::black_box;
use std::time::Duration;

use bellows_core::check::check;
use bellows_core::effect::{Action, Effect};
use bellows_core::plan::workload::{BEGIN, Copies, Rule, Workload};
use bellows_core::time::Instant;
use bellows_core::units::Millis;
use bellows_core::{Config, Core};
use clap::Args;
use nix::time::{ClockId, clock_gettime};

use super::rows::Row;
use crate::failure::Failure;

/// How quickly the deciding code places copies on nodes, beside what it shall reach
///
/// Nothing is started: this times the leader's mind alone, on one thread, in CPU time, from taking a request in to its written orders.
/// Nodes have 32 CPUs and 128 GiB in ten zones; a copy declares 0.1 CPU and 64 MiB.
///
/// Loads: one request for all copies; requests of 10 copies for 1,000 apps in turn; requests of one copy for 1,000 apps in turn. Each
/// plain; spread evenly over the zones; limited per node; and plain with heartbeats between the requests, one per node within the second
/// of virtual time that the requests take, each naming the copies on its node. Then the same loads, plain, at 1,000 and 100,000 nodes.
/// A checker goes over each result, outside the watch; a load that is placed wrongly or not whole fails the command.
///
/// The bars hold for 10,000 nodes: 500,000, 200,000 and 100,000 copies a second for the three loads, a third of that with a spread or
/// limit, 5 us for a heartbeat, 1 KiB for a copy. The yardstick rows, reads of memory that wait for each other, say how fast the machine was
/// meanwhile: two runs compare only as their yardsticks do.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    nodes: u32,
    /// How many copies altogether
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    copies: u32,
    /// How often each load is measured; the quickest counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leave out 1,000 and 100,000 nodes
    #[arg(long)]
    no_growth: bool,
}

/// A way to ask for many copies.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    apps: u32,
    /// 0 for all of them.
    copies_each: u32,
    bar: f64,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "one request", apps: 1, copies_each: 0, bar: 500_000.0 },
    Shape { name: "requests of 10", apps: 1_000, copies_each: 10, bar: 200_000.0 },
    Shape { name: "requests of 1", apps: 1_000, copies_each: 1, bar: 100_000.0 },
];

/// The size for which the bars were set.
const BAR_NODES: u32 = 10_000;
const BAR_HEARTBEAT_US: f64 = 5.0;
const BAR_COPY_BYTES: f64 = 1_024.0;

/// One load.
#[derive(Debug, Clone, Copy)]
struct Load {
    shape: Shape,
    work: Workload,
    heartbeats: bool,
}

/// Rows for each load, for heartbeats, for memory, and of the yardstick.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let mut yardstick = Yardstick::begin()?;
    // First, while the process is small: what the allocator keeps from earlier loads would hide what this one takes.
    let mut rows = vec![memory(arguments)?];
    for load in loads(arguments) {
        let mut best = Measured::default();
        for round in 0..arguments.rounds {
            yardstick.take()?;
            let measured = measure(&load)?;
            best = if round == 0 { measured } else { best.quicker_of(&measured) };
        }
        rows.extend(rows_of(&load, &best));
    }
    rows.extend(yardstick.rows());
    Ok(rows)
}

fn loads(arguments: &Arguments) -> Vec<Load> {
    let (nodes, copies) = (arguments.nodes, arguments.copies);
    let load = |shape: Shape, nodes: u32, rule: Rule, heartbeats: bool| {
        let each = if shape.copies_each == 0 { copies } else { shape.copies_each };
        let work = Workload { nodes, apps: shape.apps, requests: copies / each, copies: each, rule };
        Load { shape, work, heartbeats }
    };
    let per_node = Rule::PerNode(copies.div_ceil(nodes) * 10);
    let demands = [(Rule::Plain, false), (Rule::Zones, false), (per_node, false), (Rule::Plain, true)];
    let mut all: Vec<Load> =
        demands.iter().flat_map(|(rule, beats)| SHAPES.map(|shape| load(shape, nodes, *rule, *beats))).collect();
    if !arguments.no_growth {
        let sizes = [1_000, 100_000].into_iter().filter(|size| *size != nodes);
        let plain = |size| SHAPES.map(|shape| load(shape, size, Rule::Plain, false));
        all.extend(sizes.flat_map(|size| plain(size).into_iter().chain([load(SHAPES[2], size, Rule::Plain, true)])));
    }
    all
}

fn rows_of(load: &Load, best: &Measured) -> Vec<Row> {
    let Load { shape, work, heartbeats } = load;
    let rule = match work.rule {
        Rule::Plain if *heartbeats => "heartbeats between".to_owned(),
        Rule::Plain => "plain".to_owned(),
        Rule::Zones => "spread over zones".to_owned(),
        Rule::PerNode(most) => format!("at most {most} per node"),
    };
    let name = format!("{} nodes, {} copies, {}, {rule}", work.nodes, work.copies(), shape.name);
    let row = Row::new(name, work.copies() as f64 / best.placing.as_secs_f64(), "copies/s");
    let bar = if matches!(work.rule, Rule::Plain) { shape.bar } else { (shape.bar / 3.0).ceil() };
    let mut rows = vec![if work.nodes == BAR_NODES { row.at_least(bar) } else { row }];
    let mut beat = |what: &str, took: Duration, count: u32| {
        let row = Row::new(format!("{} nodes, {what}", work.nodes), took.as_secs_f64() * 1e6 / f64::from(count), "us");
        rows.push(if work.nodes == BAR_NODES { row.at_most(BAR_HEARTBEAT_US) } else { row });
    };
    if *heartbeats {
        let each = work.copies() / u64::from(work.nodes);
        beat(&format!("a heartbeat between {}, copies starting", shape.name), best.beating, work.nodes);
        beat(&format!("a heartbeat afterwards, {each} copies running each"), best.steady, work.nodes);
    }
    rows
}

#[derive(Debug, Clone, Default)]
struct Measured {
    placing: Duration,
    /// Heartbeats of all nodes, between the requests.
    beating: Duration,
    /// Heartbeats of all nodes, when all copies run and nothing is new.
    steady: Duration,
}

impl Measured {
    fn quicker_of(&self, other: &Self) -> Self {
        Self {
            placing: self.placing.min(other.placing),
            beating: self.beating.min(other.beating),
            steady: self.steady.min(other.steady),
        }
    }
}

/// All requests within one second of virtual time; with heartbeats, each node speaks once in it.
fn measure(load: &Load) -> Result<Measured, Failure> {
    let work = load.work;
    let mut core = begin(&work);
    let (mut placed, mut beats, mut measured) = (0, 0, Measured::default());
    for (number, input) in (0_u32..).zip(work.requests().collect::<Vec<_>>()) {
        let now = BEGIN + Millis(u64::from(number) * 1_000 / u64::from(work.requests));
        let began = cpu_time()?;
        placed += starts(&core.step(now, input));
        measured.placing += cpu_time()? - began;
        // A hundred at a time: what the clock costs is then nothing beside them. The last ones follow the last request.
        let due = u64::from(number + 1) * u64::from(work.nodes) / u64::from(work.requests);
        let due = if number + 1 == work.requests { work.nodes } else { due as u32 / 100 * 100 };
        if load.heartbeats && beats < due {
            measured.beating += beat(&mut core, beats + 1..=due, Copies::Starting, now)?;
            beats = due;
        }
    }
    if load.heartbeats {
        // The first round is news; the second is the usual.
        for round in 1..=2 {
            measured.steady = beat(&mut core, 1..=work.nodes, Copies::Running, BEGIN + Millis(1_000 * round))?;
        }
    }
    confirmed(&core, load, placed).map(|()| measured)
}

fn begin(work: &Workload) -> Core {
    let mut core = Core::new(Config::default());
    for input in work.setup() {
        core.step(BEGIN, input);
    }
    core
}

/// The time that these nodes' heartbeats take; they are made before the watch runs.
fn beat(core: &mut Core, nodes: impl Iterator<Item = u32>, copies: Copies, now: Instant) -> Result<Duration, Failure> {
    let inputs: Vec<_> = nodes.filter_map(|node| Workload::heartbeat(core, node, copies)).collect();
    let began = cpu_time()?;
    for input in inputs {
        black_box(core.step(now, input));
    }
    Ok(cpu_time()? - began)
}

/// Nothing counts that was not placed, or placed wrongly.
fn confirmed(core: &Core, load: &Load, placed: usize) -> Result<(), Failure> {
    let broken: Vec<_> = check(core).iter().take(3).map(ToString::to_string).collect();
    let name = format!("{} nodes, {}, {:?}", load.work.nodes, load.shape.name, load.work.rule);
    if !broken.is_empty() {
        return Err(Failure::failed(format!("{name}: the core's checker objects: {}", broken.join("; "))));
    }
    match load.work.copies() {
        wanted if wanted == placed as u64 => Ok(()),
        wanted => Err(Failure::failed(format!("{name}: {placed} of {wanted} copies were placed"))),
    }
}

fn starts(effects: &[Effect]) -> usize {
    let orders = effects.iter().filter_map(|effect| match effect {
        Effect::Orders { orders, .. } => Some(orders),
        _ => None,
    });
    orders.flatten().filter(|order| matches!(order.action, Action::Start { .. })).count()
}

/// What the process grew by, per copy, when all copies run and have told their addresses. More than the copies take, never less: what
/// the allocator holds back for later counts too.
fn memory(arguments: &Arguments) -> Result<Row, Failure> {
    let (nodes, copies) = (arguments.nodes, arguments.copies / 10 * 10);
    let work = Workload { nodes, apps: 1_000, requests: copies / 10, copies: 10, rule: Rule::Plain };
    let mut core = begin(&work);
    let before = resident_bytes()?;
    for input in work.requests() {
        black_box(core.step(BEGIN, input));
    }
    for node in 1..=nodes {
        if let Some(input) = Workload::heartbeat(&core, node, Copies::Running) {
            black_box(core.step(BEGIN, input));
        }
    }
    let grown = resident_bytes()?.saturating_sub(before);
    let name = format!("{nodes} nodes, {copies} copies running, memory for each");
    Ok(Row::new(name, grown as f64 / f64::from(copies), "bytes").at_most(BAR_COPY_BYTES))
}

fn resident_bytes() -> Result<u64, Failure> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(|error| Failure::failed(format!("reading {path}: {error}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Failure::failed(format!("{path}: no line \"VmRSS: ... kB\"")))
}

/// What this thread had of a CPU: neighbours on the machine do not count.
fn cpu_time() -> Result<Duration, Failure> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).map_err(|error| Failure::failed(format!("reading this thread's CPU clock: {error}")))
}

/// Reads of memory, each of which says where the next one is: nothing of Bellows, and slowed by the same neighbours.
struct Yardstick {
    next: Vec<u32>,
    seen: Vec<f64>,
}

/// 32 MiB: as much as 100,000 copies and 10,000 nodes take in the core, and more than a core's own caches.
const YARDSTICK_WORDS: u32 = 8 << 20;
const YARDSTICK_READS: u32 = 500_000;

impl Yardstick {
    fn begin() -> Result<Self, Failure> {
        // One cycle through all words: a full-period generator modulo a power of two.
        let step = |at: u32| at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % YARDSTICK_WORDS;
        Ok(Self { next: (0..YARDSTICK_WORDS).map(step).collect(), seen: Vec::new() })
    }

    fn take(&mut self) -> Result<(), Failure> {
        let began = cpu_time()?;
        let mut at = self.seen.len() as u32;
        for _ in 0..YARDSTICK_READS {
            at = self.next[at as usize];
        }
        black_box(at);
        self.seen.push((cpu_time()? - began).as_secs_f64() * 1e9 / f64::from(YARDSTICK_READS));
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let least = self.seen.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.seen.iter().copied().fold(0.0, f64::max);
        vec![
            Row::new("yardstick: a dependent read in 32 MiB, quickest between the loads", least, "ns"),
            Row::new("yardstick: a dependent read in 32 MiB, slowest between the loads", most, "ns")
                .beside("quickest", least),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_placed_whole_and_rightly() {
        let arguments = Arguments { nodes: 50, copies: 2_000, rounds: 1, no_growth: true };
        let rows = run(&arguments).unwrap_or_else(|failure| panic!("{failure}"));
        // Memory; three shapes under four demands; two rows of heartbeats for each shape; the yardstick.
        assert_eq!(rows.len(), 1 + 3 * 4 + 3 * 2 + 2);
        let timed = rows.iter().filter(|row| row.unit != "bytes");
        assert!(timed.clone().count() + 1 == rows.len() && timed.clone().all(|row| row.value > 0.0), "{rows:?}");
    }

    #[test]
    fn the_yardstick_reads_all_of_its_memory() {
        let yardstick = Yardstick::begin().unwrap_or_else(|failure| panic!("{failure}"));
        let (mut at, mut length) = (yardstick.next[0], 1u32);
        while at != 0 {
            (at, length) = (yardstick.next[at as usize], length + 1);
        }
        assert_eq!(length, YARDSTICK_WORDS);
    }
}
