//! `bench launch`: one container from order to cleaned up, again and again, beside the same program as a plain process.
//!
//! A container here is the whole thing: seven namespaces, own root, own address, cgroups, seccomp, init. Cleaned means reaped, its cgroups,
//! slot and scratch free. What pools prepare and refill meanwhile is inside the wall time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bellows_runtime::handle::{Ipv4Subnet, LauncherCommand};
use bellows_runtime::image::Store;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, RuntimeConfig};
use clap::Args;

use super::payload;
use super::rows::{Row, quantile};
use crate::failure::Failure;

/// What is executed: it returns at once.
const TRUE: &str = "/bin/true";

/// Addresses of the measured containers.
const RANGE: &str = "10.211.0.0/20";

/// How quickly containers start and end, beside plain processes
///
/// Needs root. Ends everything that it starts.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many in a row, and how many in the burst
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    count: u32,
    /// How many at once in the burst
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
}

/// Sequential, burst, and the references.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let folder = tempfile::Builder::new().prefix("bellows-bench-").tempdir();
    let folder = folder.map_err(|error| Failure::failed(format!("making a folder to measure in: {error}")))?;
    let tree = tree(&folder.path().join("images")).map_err(|error| Failure::from_error(&error))?;
    let runtime = Runtime::start(config(folder.path())?).map_err(|error| Failure::from_error(&error))?;
    let measured = measure(&runtime, &tree, arguments);
    let ended = runtime.shutdown().map_err(|error| Failure::from_error(&error));
    measured.and_then(|rows| ended.map(|()| rows))
}

fn tree(store: &Path) -> bellows_runtime::image::Result<PathBuf> {
    let store = Store::open(store)?;
    let digest = payload::image(&store, "bench-launch", Path::new(TRUE))?;
    Ok(store.unpack(&digest)?.root)
}

fn config(folder: &Path) -> Result<RuntimeConfig, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("finding this program's own file: {error}")))?;
    let launcher = LauncherCommand { program, args: vec![crate::LAUNCHER.into()] };
    let subnet: Ipv4Subnet = RANGE.parse().expect("a constant subnet");
    let cgroup = format!("bellows-bench-{}", std::process::id());
    Ok(RuntimeConfig::new(folder.join("runtime"), cgroup, subnet, launcher))
}

fn measure(runtime: &Runtime, tree: &Path, arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let plain = plain_processes(arguments.count)?;
    let mut sequence = Sequence::new(runtime, tree);
    sequence.warm_up()?;
    let (mut started, mut whole) = sequence.in_a_row(arguments.count)?;
    let per_second = sequence.burst(arguments.count, arguments.parallel)?;
    let reference = "plain process, same program, same run";
    Ok(vec![
        Row::new("launch to exec, in a row, median", quantile(&mut started, 500), "ms"),
        Row::new("launch to cleaned up, in a row, median", quantile(&mut whole, 500), "ms").beside(reference, plain),
        Row::new("launch to cleaned up, in a row, p99", quantile(&mut whole, 990), "ms"),
        Row::new(format!("launched and cleaned up, {} at once", arguments.parallel), per_second, "1/s"),
        Row::new("plain process, fork to reaped, median", plain, "ms"),
    ])
}

/// The same program, forked, executed and waited for: what the kernel takes for no isolation at all.
fn plain_processes(count: u32) -> Result<f64, Failure> {
    use std::os::unix::process::CommandExt;
    let program = payload::program(Path::new(TRUE));
    let mut samples = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let status = Command::new(&program).arg0(TRUE).status();
        let status = status.map_err(|error| Failure::failed(format!("executing {}: {error}", program.display())))?;
        if !status.success() {
            return Err(Failure::failed(format!("{} ended with {status}", program.display())));
        }
        samples.push(milliseconds(began));
    }
    Ok(quantile(&mut samples, 500))
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// Containers numbered through, so that no name comes twice.
struct Sequence<'a> {
    runtime: &'a Runtime,
    tree: &'a Path,
    next: AtomicUsize,
}

impl<'a> Sequence<'a> {
    fn new(runtime: &'a Runtime, tree: &'a Path) -> Self {
        Self { runtime, tree, next: AtomicUsize::new(0) }
    }

    /// The first ones find cold caches; a resident launcher does that once.
    fn warm_up(&self) -> Result<(), Failure> {
        (0..20).try_for_each(|_| self.one().map(drop))
    }

    /// Milliseconds until exec and until cleaned up.
    fn one(&self) -> Result<(f64, f64), Failure> {
        let name = format!("bench-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let id = ContainerId::new(name).map_err(|error| Failure::from_error(&error))?;
        let spec = ContainerSpec::new(id.clone(), self.tree, &[TRUE]);
        let began = Instant::now();
        let failed = |error: bellows_runtime::handle::Error| Failure::from_error(&error);
        self.runtime.launch(&spec).map_err(failed)?;
        let started = milliseconds(began);
        let ended = self.runtime.reap(&id).map_err(failed)?;
        let whole = milliseconds(began);
        self.runtime.forget(&id).map_err(failed)?;
        match ended.exit {
            bellows_runtime::handle::Exit::Code(0) => Ok((started, whole)),
            other => Err(Failure::failed(format!("container {id} ended with {other:?} instead of code 0"))),
        }
    }

    fn in_a_row(&mut self, count: u32) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        (0..count).map(|_| self.one()).collect()
    }

    /// Containers per second, from the first order to the last one cleaned up.
    fn burst(&self, count: u32, parallel: u32) -> Result<f64, Failure> {
        let left = AtomicUsize::new(count as usize);
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        let worker = || -> Result<(), Failure> {
            while take() {
                self.one()?;
            }
            Ok(())
        };
        let began = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(worker)).collect();
            let outcomes = workers
                .into_iter()
                .map(|worker| worker.join().map_err(|_| Failure::failed("a measuring thread panicked")));
            outcomes.collect::<Result<Vec<_>, _>>()?.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        Ok(f64::from(count) / began.elapsed().as_secs_f64())
    }
}
