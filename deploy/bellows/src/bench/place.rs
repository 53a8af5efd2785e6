//! `bench place`: the deciding code alone, on one thread, in that thread's own CPU time: how many copies it places in a second.
//! The core's checker runs over each result, outside the watch.

use std::time::Duration;

use bellows_core::check::check;
use bellows_core::effect::{Action, Effect};
use bellows_core::plan::workload::{BEGIN, Rule, Workload};
use bellows_core::units::{CpuMilli, Millis};
use bellows_core::{Config, Core};
use clap::Args;
use nix::time::{ClockId, clock_gettime};

use super::rows::Row;
use crate::failure::Failure;

/// How quickly copies are placed on nodes, in the deciding code alone
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    nodes: u32,
    /// How many copies altogether
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    copies: u32,
}

/// One load.
#[derive(Debug, Clone, Copy)]
struct Load {
    requests: &'static str,
    demand: &'static str,
    work: Workload,
    heartbeats: bool,
}

/// A row for each load, and one for a heartbeat among them.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for load in loads(arguments) {
        let measured = measure(&load)?;
        let Load { requests, demand, work, .. } = load;
        let name = format!("{} copies on {} nodes, {requests}, {demand}", arguments.copies, work.nodes);
        rows.push(Row::new(name, f64::from(arguments.copies) / measured.placing.as_secs_f64(), "1/s"));
        if measured.beats > 0 {
            let us = measured.beating.as_secs_f64() * 1e6 / f64::from(measured.beats);
            rows.push(Row::new(format!("a heartbeat among {} nodes, in between", work.nodes), us, "us"));
        }
    }
    Ok(rows)
}

fn loads(&Arguments { nodes, copies }: &Arguments) -> Vec<Load> {
    let shapes = [
        ("one request", Workload { nodes, apps: 1, requests: 1, copies, rule: Rule::Plain }),
        (
            "10 each for 1,000 apps",
            Workload { nodes, apps: 1_000, requests: copies / 10, copies: 10, rule: Rule::Plain },
        ),
        ("one each for 1,000 apps", Workload { nodes, apps: 1_000, requests: copies, copies: 1, rule: Rule::Plain }),
    ];
    let per_node = Rule::PerNode(copies.div_ceil(nodes) * 10);
    let rules = [("plain", Rule::Plain), ("spread over zones", Rule::Zones), ("limited per node", per_node)];
    let every = rules.into_iter().flat_map(|(demand, rule)| {
        shapes.map(|(requests, work)| Load { requests, demand, work: Workload { rule, ..work }, heartbeats: false })
    });
    let (requests, work) = shapes[2];
    every.chain([Load { requests, demand: "plain, with heartbeats", work, heartbeats: true }]).collect()
}

#[derive(Debug, Default)]
struct Measured {
    placing: Duration,
    beating: Duration,
    beats: u32,
}

/// All requests within one second of virtual time; with heartbeats, each node speaks once in it.
fn measure(load: &Load) -> Result<Measured, Failure> {
    let work = load.work;
    let mut core = Core::new(Config::default());
    for input in work.setup() {
        core.step(BEGIN, input);
    }
    let requests: Vec<_> = work.requests().collect();
    let (mut placed, mut measured) = (0, Measured::default());
    let began = cpu_time()?;
    for (number, input) in (0_u32..).zip(requests) {
        let now = BEGIN + Millis(u64::from(number) * 1_000 / u64::from(work.requests));
        placed += starts(&core.step(now, input));
        let due = u64::from(number + 1) * u64::from(work.nodes) / u64::from(work.requests);
        if load.heartbeats && u64::from(measured.beats) + u64::from(work.nodes.min(100)) <= due {
            let from = cpu_time()?;
            while u64::from(measured.beats) < due {
                measured.beats += 1;
                let cpu = CpuMilli(u64::from(measured.beats) * 37 % 3_000);
                placed += starts(&core.step(now, Workload::heartbeat(measured.beats % work.nodes + 1, cpu)));
            }
            measured.beating += cpu_time()? - from;
        }
    }
    measured.placing = cpu_time()? - began - measured.beating;
    confirmed(&core, load, placed).map(|()| measured)
}

/// Nothing counts that was not placed, or placed wrongly.
fn confirmed(core: &Core, load: &Load, placed: usize) -> Result<(), Failure> {
    let broken: Vec<_> = check(core).iter().take(3).map(ToString::to_string).collect();
    let name = format!("{}, {}", load.requests, load.demand);
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

/// What this thread had of a CPU: neighbours on the machine do not count.
fn cpu_time() -> Result<Duration, Failure> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map(Duration::from).map_err(|error| Failure::failed(format!("reading this thread's CPU clock: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_placed_whole_and_rightly() {
        let rows = run(&Arguments { nodes: 50, copies: 2_000 }).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(rows.len(), 3 * 3 + 2);
        assert!(rows.iter().all(|row| row.value > 0.0), "{rows:?}");
    }
}
