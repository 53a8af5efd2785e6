//! A step of load: one who asks, then two hundred at once, where a copy takes ten at most.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ask::Asker;
use crate::bench::lab::{self, Lab};
use crate::bench::parts::Wish;
use crate::bench::rows::{Row, quantile};
use crate::failure::Failure;
use crate::globals::Globals;

/// Requests in one copy at most, and copies at most: together as many as ask.
const LIMIT: usize = 10;
const COPIES: usize = 20;
const ASKERS: usize = LIMIT * COPIES;

/// What one request takes by itself.
const WORK_MS: u64 = 50;

/// After the step the copies come; who arrives later shall not notice.
const GRACE: Duration = Duration::from_millis(150);
const BAR_MS: f64 = 100.0;

/// How long each load lasts.
const CALM: Duration = Duration::from_secs(1);
const STORM: Duration = Duration::from_secs(3);

const HOST: &str = "step.bench";

/// One request: milliseconds after the step, and how long it took.
type Sample = (f64, f64);

pub async fn rows(globals: &Globals, steps: u32) -> Result<Vec<Row>, Failure> {
    let mut lab =
        Lab::start(globals, Wish { nodes: 1, cpu_milli: 8_000, memory_mib: 2_048, log: "warn", rival: false }).await?;
    lab.own_image().await?;
    lab.declare(&app()).await?;
    let door = lab.parts.doors[0];
    let (mut early, mut late, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps {
        lab.copies("step", 1).await?;
        let samples = step(door).await?;
        let (mut before, mut after): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        for (at, ms) in samples {
            if at > GRACE.as_secs_f64() * 1e3 { after.push(ms) } else { before.push(ms) }
        }
        slowest.push(quantile(&mut after, 1000));
        early.extend(before);
        late.extend(after);
    }
    lab.end().await?;
    let name = |what: &str| format!("1 -> {ASKERS} at once, {WORK_MS} ms each, {LIMIT} a copy: {what}");
    let grace = GRACE.as_millis();
    Ok(vec![
        Row::new(name(&format!("requests later than {grace} ms after the step")), late.len() as f64, "requests"),
        Row::new(name("their median"), quantile(&mut late, 500), "ms"),
        Row::new(name("their p99"), quantile(&mut late, 990), "ms"),
        Row::new(
            name(&format!("the slowest of them in the median of {steps} steps")),
            quantile(&mut slowest, 500),
            "ms",
        ),
        Row::new(name(&format!("the slowest of them in {steps} steps")), quantile(&mut late, 1000), "ms")
            .at_most(BAR_MS),
        Row::new(name("the slowest of those before"), quantile(&mut early, 1000), "ms"),
    ])
}

fn app() -> String {
    format!(
        "name: step\nimage: {image}\nresources: {{cpu: 100m, memory: 32MiB}}\nconcurrency: {{limit: {LIMIT}}}\n\
         policy: {{min: 1, max: {COPIES}, idle_grace: 500ms, concurrency: {{target: {LIMIT}}}}}\n\
         ports: [{{name: web, port: 8080, protocol: http}}]\nroutes: [{{host: {HOST}, to: web}}]\n",
        image = lab::OWN,
    )
}

async fn step(door: SocketAddr) -> Result<Vec<Sample>, Failure> {
    let calm = Instant::now();
    ask_until(door, calm, calm + CALM).await?;
    let began = Instant::now();
    let askers: Vec<_> = (0..ASKERS).map(|_| tokio::spawn(ask_until(door, began, began + STORM))).collect();
    let mut samples = Vec::new();
    for asker in askers {
        samples.extend(asker.await.map_err(|error| Failure::from_error(&error))??);
    }
    Ok(samples)
}

/// One after the other.
async fn ask_until(door: SocketAddr, began: Instant, end: Instant) -> Result<Vec<Sample>, Failure> {
    let (mut asker, path) = (Asker::new(door, HOST), format!("/slow?ms={WORK_MS}"));
    let mut samples = Vec::new();
    while Instant::now() < end {
        let asked = Instant::now();
        asker.get(&path).await.map_err(|why| Failure::failed(format!("a request of a step failed: {why}")))?;
        samples.push(((asked - began).as_secs_f64() * 1e3, asked.elapsed().as_secs_f64() * 1e3));
    }
    Ok(samples)
}
