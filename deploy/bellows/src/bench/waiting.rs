//! Launches on a node that was idle before: until the program was executed, and until its first byte is in its log.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bellows_runtime::{ContainerId, ContainerSpec, Runtime};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::rows::{Row, quantile};
use crate::failure::Failure;

/// Caches are cold and CPUs asleep after this, and the kernel's quick ways to move processes between cgroups are over.
const IDLE: Duration = Duration::from_millis(200);

/// What a first byte may take, median and p99, in milliseconds.
const BARS: [f64; 2] = [2.0, 5.0];

/// How long a launch takes on a node that was idle.
#[expect(clippy::disallowed_methods, reason = "idleness itself is what is measured")]
pub fn after_idleness(runtime: &Runtime, tree: &Path, count: usize) -> Result<Vec<Row>, Failure> {
    let (mut executed, mut spoken) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count {
        std::thread::sleep(IDLE);
        let (exec_ms, byte_ms) = first_byte(runtime, tree, number)?;
        executed.push(exec_ms);
        spoken.push(byte_ms);
    }
    let name = |what: &str| format!("tiny: {what} after {} ms of idleness", IDLE.as_millis());
    Ok(vec![
        Row::new(name("order to exec, median,"), quantile(&mut executed, 500), "ms"),
        Row::new(name("order to first byte in its log, median,"), quantile(&mut spoken, 500), "ms").at_most(BARS[0]),
        Row::new(name("order to first byte in its log, p99,"), quantile(&mut spoken, 990), "ms").at_most(BARS[1]),
    ])
}

/// Milliseconds from the order until the program was executed, and until what it says is in its log: through pipe and init.
fn first_byte(runtime: &Runtime, tree: &Path, number: usize) -> Result<(f64, f64), Failure> {
    let spec = spec(&format!("idle-{number}"), tree, &["/bin/payload", "print", "1"])?;
    let began = Instant::now();
    runtime.launch(&spec).map_err(|error| Failure::from_error(&error))?;
    let exec_ms = began.elapsed().as_secs_f64() * 1e3;
    let log = runtime.log(&spec.id).map_err(|error| Failure::from_error(&error))?;
    let failed = |error| Failure::failed(format!("waiting for {}: {error}", log.newer.display()));
    let watch = await_line(&log.newer).map_err(failed)?;
    let byte_ms = began.elapsed().as_secs_f64() * 1e3;
    drop(watch);
    gone(runtime, &spec.id)?;
    Ok((exec_ms, byte_ms))
}

/// Until a log has a line. The first one is the log's own. Gives what it watched with: letting go of that takes the kernel milliseconds.
fn await_line(log: &Path) -> std::io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(log, AddWatchFlags::IN_MODIFY)?;
    while fs::read(log)?.iter().filter(|byte| **byte == b'\n').count() < 2 {
        inotify.read_events()?;
    }
    Ok(inotify)
}

/// One life; milliseconds from the order until its program was executed.
pub fn one(runtime: &Runtime, tree: &Path, number: usize) -> Result<f64, Failure> {
    let spec = spec(&format!("once-{number}"), tree, &["/bin/payload", "exit", "0"])?;
    let began = Instant::now();
    runtime.launch(&spec).map_err(|error| Failure::from_error(&error))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    gone(runtime, &spec.id)?;
    Ok(ms)
}

/// Ends a container and all that is left of it.
pub fn end(runtime: &Runtime, id: &ContainerId) -> Result<(), Failure> {
    runtime.kill(id).map_err(|error| Failure::from_error(&error))?;
    gone(runtime, id)
}

fn gone(runtime: &Runtime, id: &ContainerId) -> Result<(), Failure> {
    runtime.reap(id).map_err(|error| Failure::from_error(&error))?;
    runtime.forget(id).map_err(|error| Failure::from_error(&error))
}

/// A container of the tiny image.
pub fn spec(name: &str, tree: &Path, args: &[&str]) -> Result<ContainerSpec, Failure> {
    let id = ContainerId::new(name).map_err(|error| Failure::from_error(&error))?;
    Ok(ContainerSpec::new(id, tree, args))
}
