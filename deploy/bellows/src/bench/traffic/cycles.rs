//! Twenty copies, two, twenty again, under traffic of all kinds: nothing may fail. Beside it the rule of others: the newest go, at once.

use std::time::{Duration, Instant};

use super::load::{Kind, Load};
use super::{apps, judge};
use crate::bench::lab::{self, Lab};
use crate::bench::parts::Wish;
use crate::bench::rows::Row;
use crate::failure::Failure;
use crate::globals::Globals;

const MANY: u32 = 20;
const FEW: u32 = 2;

/// After so long the next growth begins, whether the shrink has settled or not: what is on its way out and still works is taken back then.
const SHORT: Duration = Duration::from_millis(1_500);
/// Of so many shrinks one is waited for to its end.
const WHOLE: u32 = 10;

/// Requests of a whole measurement at least, and its cycles.
const REQUESTS: f64 = 200_000.0;
const CYCLES: u32 = 100;

/// The share of shrinks at which fewer copies shall be idle than must go.
const TIGHT_PERCENT: f64 = 30.0;

const NAME: &str = "cycles";
const HOST: &str = "cycles.bench";

/// Who ends copies by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Ours,
    /// The newest first, SIGTERM and grace, no parking.
    Rivals,
}

/// An app that does not care about its end, and what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// The demo app without its care for SIGTERM.
    Careless,
    Nginx,
}

impl App {
    pub fn name(self) -> &'static str {
        match self {
            Self::Careless => "an app with default SIGTERM",
            Self::Nginx => "nginx",
        }
    }

    fn yaml(self) -> String {
        let (image, command, port) = match self {
            Self::Careless => (lab::OWN, "[/bellows, demo-app, --abrupt]".to_owned(), 8080),
            Self::Nginx => {
                let program = apps::program("nginx").unwrap_or_default();
                (apps::NGINX, format!("[{}]", program.display()), apps::NGINX_PORT)
            }
        };
        format!(
            "name: {NAME}\nimage: {image}\ncommand: {command}\nreplicas: {MANY}\nresources: {{cpu: 100m, memory: 32MiB}}\n\
             concurrency: {{target: 1}}\nstop_grace: 10s\nports: [{{name: web, port: {port}, protocol: http}}]\n\
             routes: [{{host: {HOST}, to: web}}]\n"
        )
    }

    fn kinds(self) -> Vec<Kind> {
        let kind =
            |name, askers, path, bytes, messages| Kind { name, askers, path, bytes, messages, pause: Duration::ZERO };
        match self {
            Self::Careless => vec![
                kind("short", 16, "/slow?ms=5", None, 0),
                kind("long, 5 s", 8, "/slow?ms=5000", None, 0),
                kind("streams, 2 s", 4, "/stream?chunks=20&ms=100", None, 0),
                kind("WebSockets, 2 s", 4, "/echo", None, 20),
            ],
            Self::Nginx => vec![
                Kind { pause: Duration::from_millis(5), ..kind("short", 16, "/1k", Some(1 << 10), 0) },
                kind("long, 5 s", 12, "/long", Some(50_000), 0),
                kind("downloads, 2 s", 4, "/stream", Some(20_000), 0),
            ],
        }
    }
}

/// So many cycles under that rule, with that app.
pub async fn rows(globals: &Globals, rule: Rule, app: App, cycles: u32) -> Result<Vec<Row>, Failure> {
    let title = match rule {
        Rule::Ours => format!("{MANY} -> {FEW} -> {MANY}, {}", app.name()),
        Rule::Rivals => format!("{MANY} -> {FEW} -> {MANY} by the rivals' rule, {}", app.name()),
    };
    let name = |what: &str| format!("{title}: {what}");
    if app == App::Nginx && apps::program("nginx").is_none() {
        return Ok(vec![Row::new(
            name("requests failed or cut: not measured: nginx is not installed"),
            f64::NAN,
            "requests",
        )]);
    }
    let mut lab = Lab::start(globals, wish(rule)).await?;
    match (app, apps::program("nginx")) {
        (App::Nginx, Some(program)) => lab.image(apps::NGINX, |store| apps::nginx(&store, &program)).await?,
        _ => lab.own_image().await?,
    }
    lab.declare(&app.yaml()).await?;
    let load = Load::begin(&app.kinds(), &lab.parts.doors, HOST);
    let (began, at) = (Instant::now(), cycle(&mut lab, cycles).await?);
    let seconds = began.elapsed().as_secs_f64();
    let counted = load.end().await?;
    let logs: Vec<_> = lab.parts.agents.iter().map(|agent| agent.log()).collect();
    let judged = judge::judge(&logs, &at, MANY - FEW)?;
    lab.end().await?;
    let all: u64 = counted.iter().map(|(_, served, failed)| served + failed).sum();
    let failed: u64 = counted.iter().map(|(_, _, failed)| failed).sum();
    let mut rows = vec![Row::new(name("time of a cycle"), seconds / f64::from(cycles), "s")];
    let requests = Row::new(name(&format!("requests in {cycles} cycles")), all as f64, "requests");
    rows.push(if (cycles, rule) == (CYCLES, Rule::Ours) { requests.at_least(REQUESTS) } else { requests });
    for (kind, served, failed) in counted {
        rows.push(Row::new(name(&format!("{kind}: failed or cut of {}", served + failed)), failed as f64, "requests"));
    }
    rows.push(Row::new(name("requests failed or cut for each shrink"), failed as f64 / f64::from(cycles), "requests"));
    let cut = Row::new(name("requests failed or cut"), failed as f64, "requests");
    let tight = 100.0 * f64::from(judged.tight) / f64::from(judged.shrinks.max(1));
    let shrinks = Row::new(name("shrinks with fewer idle copies than victims"), tight, "%");
    let stopped = Row::new(name("copies ended"), f64::from(judged.stopped), "copies");
    let busy = Row::new(name("copies ended while busy"), f64::from(judged.busy), "copies");
    let wrong = Row::new(name("copies ended while busy, with an idle one there"), f64::from(judged.wrong), "copies");
    rows.extend(match rule {
        Rule::Ours => [cut.at_most(0.0), shrinks.at_least(TIGHT_PERCENT), stopped, busy, wrong.at_most(0.0)],
        Rule::Rivals => [cut, shrinks, stopped, busy, wrong],
    });
    Ok(rows)
}

fn wish(rule: Rule) -> Wish {
    Wish { nodes: 2, cpu_milli: 4_000, memory_mib: 2_048, log: judge::LOG, rival: rule == Rule::Rivals }
}

/// When each shrink was wished.
async fn cycle(lab: &mut Lab, cycles: u32) -> Result<Vec<String>, Failure> {
    let mut began = Vec::new();
    for number in 1..=cycles {
        began.push(judge::now());
        let generation = lab.scale(NAME, FEW).await?;
        let settled = lab.settled(NAME, generation);
        if number % WHOLE == 0 {
            settled.await?;
        } else if let Ok(settled) = tokio::time::timeout(SHORT, settled).await {
            settled?;
        }
        let generation = lab.scale(NAME, MANY).await?;
        lab.settled(NAME, generation).await?;
    }
    Ok(began)
}
