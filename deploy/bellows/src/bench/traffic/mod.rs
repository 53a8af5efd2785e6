//! `bench traffic`: requests through the ingress of real agents to real containers, while copies come and go.

mod apps;
mod ask;
mod cold;
mod cost;
mod cycles;
mod judge;
mod load;
mod pace;
mod proxies;
mod step;

use clap::{Args, ValueEnum};

use super::rows::Row;
use crate::failure::Failure;
use crate::globals::Globals;
use cost::Scene;
use cycles::{App, Rule};

const AFTER: &str = "\
Each part starts a cluster of its own, its controller and agents as processes, and ends it. Needs root. What is compared with another program \
says so in its rows where that is not installed.

Examples:
  bellows bench traffic --only cold-start
  bellows bench traffic --only cold-start --count 50 --output json";

/// Requests while copies come and go, and what they cost: from nothing, steps, cycles, beside others' rule and other proxies
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Only these parts [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,

    /// Requests from zero copies, of each kind
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,

    /// Steps of load
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    steps: u32,

    /// Cycles of scaling
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cycles: u32,

    /// Cycles by the rivals' rule
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rival_cycles: u32,

    /// Rounds in which each proxy has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Idle connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
}

/// What can be measured by itself.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A request to an app at zero copies, until the first byte of its answer
    ColdStart,
    /// From 1 to 200 requests at once
    Step,
    /// From 20 copies to 2 and back under traffic of all kinds
    Cycles,
    /// The same, with copies ended as others do
    Rival,
    /// CPU of a request, beside HAProxy and nginx
    Cost,
    /// Bytes passed on for each CPU second, beside HAProxy
    Tcp,
    /// Memory of idle connections, beside HAProxy and nginx
    Idle,
}

/// The rows of all wanted parts.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench traffic`")?;
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut rows = Vec::new();
    if wanted(Part::ColdStart) {
        rows.extend(cold::rows(globals, arguments.count).await?);
    }
    if wanted(Part::Step) {
        rows.extend(step::rows(globals, arguments.steps).await?);
    }
    if wanted(Part::Cycles) {
        rows.extend(cycles::rows(globals, Rule::Ours, App::Careless, arguments.cycles).await?);
    }
    if wanted(Part::Rival) {
        for (rule, app) in [(Rule::Rivals, App::Careless), (Rule::Rivals, App::Nginx), (Rule::Ours, App::Nginx)] {
            rows.extend(cycles::rows(globals, rule, app, arguments.rival_cycles).await?);
        }
    }
    if [Part::Cost, Part::Tcp, Part::Idle].into_iter().any(wanted) {
        rows.extend(compared(globals, &arguments, wanted).await?);
    }
    Ok(rows)
}

/// Beside other proxies, in front of one copy of nginx.
async fn compared(
    globals: &Globals,
    arguments: &Arguments,
    wanted: impl Fn(Part) -> bool,
) -> Result<Vec<Row>, Failure> {
    let Some(scene) = Scene::start(globals).await? else {
        let name = "cost, bytes, idle connections: not measured: nginx, the app, is not installed";
        return Ok(vec![Row::new(name, f64::NAN, "ms")]);
    };
    let mut rows = Vec::new();
    if wanted(Part::Cost) {
        rows.extend(scene.requests(arguments.rounds).await?);
    }
    if wanted(Part::Tcp) {
        rows.extend(scene.bytes(arguments.rounds).await?);
    }
    if wanted(Part::Idle) {
        rows.extend(scene.idle(arguments.connections as usize).await?);
    }
    scene.end().await?;
    Ok(rows)
}
