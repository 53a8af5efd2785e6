//! Launches that do not come one upon the other: on a node that was idle before, and beside many containers that are alive.

use std::path::Path;
use std::time::{Duration, Instant};

use bellows_runtime::{ContainerId, ContainerSpec, Runtime};

use super::rows::{Row, quantile};
use crate::failure::Failure;

/// Caches are cold and CPUs asleep after this, and the kernel's quick ways to move processes between cgroups are over.
const IDLE: Duration = Duration::from_millis(200);

/// Beside so few nothing is to be felt yet.
const FEW: usize = 10;

/// How long a launch takes on a node that was idle, median and p99.
#[expect(clippy::disallowed_methods, reason = "idleness itself is what is measured")]
pub fn after_idleness(runtime: &Runtime, tree: &Path, count: usize) -> Result<Vec<Row>, Failure> {
    let mut samples = Vec::with_capacity(count);
    for number in 0..count {
        std::thread::sleep(IDLE);
        samples.push(one(runtime, tree, number)?);
    }
    let name = |what: &str| format!("tiny: order to exec after {} ms of idleness, {what}", IDLE.as_millis());
    Ok(vec![
        Row::new(name("median"), quantile(&mut samples, 500), "ms"),
        Row::new(name("p99"), quantile(&mut samples, 990), "ms"),
    ])
}

/// How long a launch takes beside `many` containers that are alive, against a few; and how long it took to start them all.
pub fn beside_many(runtime: &Runtime, tree: &Path, many: usize, count: usize) -> Result<Vec<Row>, Failure> {
    let mut alive = Vec::with_capacity(many);
    let measured = measure_beside(runtime, tree, many, count, &mut alive);
    let ended = alive.iter().map(|id| end(runtime, id)).fold(Ok(()), Result::and);
    let (few, beside, seconds) = measured?;
    ended?;
    Ok(vec![
        Row::new(format!("tiny: order to exec beside {many} alive, median"), beside, "ms")
            .beside(format!("beside {FEW}"), few),
        Row::new(format!("tiny: {FEW} -> {many} alive, one after the other"), seconds, "s"),
    ])
}

/// Medians beside a few and beside many, and the seconds between.
fn measure_beside(
    runtime: &Runtime,
    tree: &Path,
    many: usize,
    count: usize,
    alive: &mut Vec<ContainerId>,
) -> Result<(f64, f64, f64), Failure> {
    add(runtime, tree, alive, FEW)?;
    let few = medians(runtime, tree, count)?;
    let began = Instant::now();
    add(runtime, tree, alive, many)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((few, medians(runtime, tree, count)?, seconds))
}

fn add(runtime: &Runtime, tree: &Path, alive: &mut Vec<ContainerId>, wanted: usize) -> Result<(), Failure> {
    while alive.len() < wanted {
        let spec = spec(&format!("alive-{}", alive.len()), tree, &["/bin/payload", "sleep"])?;
        runtime.launch(&spec).map_err(|error| Failure::from_error(&error))?;
        alive.push(spec.id);
    }
    Ok(())
}

fn medians(runtime: &Runtime, tree: &Path, count: usize) -> Result<f64, Failure> {
    let mut samples = (0..count).map(|number| one(runtime, tree, number)).collect::<Result<Vec<_>, _>>()?;
    Ok(quantile(&mut samples, 500))
}

/// One life; milliseconds from the order until its program was executed.
fn one(runtime: &Runtime, tree: &Path, number: usize) -> Result<f64, Failure> {
    let spec = spec(&format!("once-{number}"), tree, &["/bin/payload", "exit", "0"])?;
    let began = Instant::now();
    runtime.launch(&spec).map_err(|error| Failure::from_error(&error))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    gone(runtime, &spec.id)?;
    Ok(ms)
}

fn end(runtime: &Runtime, id: &ContainerId) -> Result<(), Failure> {
    runtime.kill(id).map_err(|error| Failure::from_error(&error))?;
    gone(runtime, id)
}

fn gone(runtime: &Runtime, id: &ContainerId) -> Result<(), Failure> {
    runtime.reap(id).map_err(|error| Failure::from_error(&error))?;
    runtime.forget(id).map_err(|error| Failure::from_error(&error))
}

fn spec(name: &str, tree: &Path, args: &[&str]) -> Result<ContainerSpec, Failure> {
    let id = ContainerId::new(name).map_err(|error| Failure::from_error(&error))?;
    Ok(ContainerSpec::new(id, tree, args))
}
