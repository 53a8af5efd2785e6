//! `bench thaw`: how quickly containers are frozen, give up memory, and go on. A parked copy that is frozen must be there again within a millisecond.

use std::path::Path;
use std::time::Instant;

use bellows_runtime::handle::{Execute, Execution};
use bellows_runtime::{ContainerId, ContainerSpec, Runtime};
use clap::Args;

use super::ground;
use super::rows::{Row, quantile};
use crate::failure::Failure;

/// Addresses of the measured containers.
const RANGE: &str = "10.211.32.0/24";

/// What thawing may take.
const BAR_MS: f64 = 1.0;

/// How quickly containers are frozen and thawed
///
/// Needs root. Ends everything that it starts.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How often each
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    count: u32,
}

/// One container, some processes.
struct Case {
    name: &'static str,
    program: &'static str,
    /// Beside the first one.
    more: usize,
}

const CASES: [Case; 4] = [
    Case { name: "1 sleeping", program: "sleep", more: 0 },
    Case { name: "10 sleeping", program: "sleep", more: 9 },
    Case { name: "1 busy", program: "spin", more: 0 },
    Case { name: "4 busy", program: "spin", more: 3 },
];

/// Measures each case in a container of its own.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench thaw`")?;
    let folder = ground::folder()?;
    let tree = ground::tiny_image(folder.path())?;
    let runtime = Runtime::start(ground::config(folder.path(), RANGE)).map_err(|error| Failure::from_error(&error))?;
    let measured: Result<Vec<_>, _> =
        CASES.iter().enumerate().map(|(at, case)| measure(&runtime, &tree, at, case, arguments.count)).collect();
    let ended = runtime.shutdown().map_err(|error| Failure::from_error(&error));
    measured.and_then(|rows| ended.map(|()| rows.into_iter().flatten().collect()))
}

fn measure(runtime: &Runtime, tree: &Path, at: usize, case: &Case, count: u32) -> Result<Vec<Row>, Failure> {
    let failed = |error: bellows_runtime::handle::Error| Failure::from_error(&error);
    let id = ContainerId::new(format!("thaw-{at}")).map_err(|error| Failure::from_error(&error))?;
    let mut spec = ContainerSpec::new(id, tree, &["/bin/payload", case.program]);
    spec.limits.cpu_milli = 4_000;
    runtime.launch(&spec).map_err(failed)?;
    let more = (0..case.more).map(|_| runtime.execute(&spec, Execute::Piped));
    let beside: Vec<Execution> = more.collect::<Result<_, _>>().map_err(failed)?;
    let (mut freezes, mut thaws) = (Vec::new(), Vec::new());
    for _ in 0..count {
        freezes.push(timed(|| runtime.freeze(&spec.id)).map_err(failed)?);
        thaws.push(timed(|| runtime.thaw(&spec.id)).map_err(failed)?);
    }
    runtime.freeze(&spec.id).map_err(failed)?;
    let (before, after) = runtime.reclaim(&spec.id).map_err(failed)?;
    let reclaimed = timed(|| runtime.thaw(&spec.id)).map_err(failed)?;
    drop(beside);
    runtime.kill(&spec.id).map_err(failed)?;
    runtime.reap(&spec.id).map_err(failed)?;
    let name = |what: &str| format!("{}: {what}", case.name);
    Ok(vec![
        Row::new(name("freeze, median"), quantile(&mut freezes, 500), "ms"),
        Row::new(name("thaw, median"), quantile(&mut thaws, 500), "ms").at_most(BAR_MS),
        Row::new(name("thaw, p99"), quantile(&mut thaws, 990), "ms").at_most(BAR_MS),
        Row::new(name("memory after reclaim"), after as f64 / 1024.0, "KiB").beside("before", before as f64 / 1024.0),
        Row::new(name("thaw after reclaim, once"), reclaimed, "ms").at_most(BAR_MS),
    ])
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
