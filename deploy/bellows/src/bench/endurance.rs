//! `bench endurance`: thousands of containers through one runtime: the last thousand as quick as the first, and nothing left of any.
//!
//! Memory and descriptors are compared between the end of the first thousand, when every pool is full, and the end of the last; what the runtime as a
//! whole leaves, between before its start and after its shutdown.

use std::fs;
use std::path::Path;

use bellows_runtime::bench;
use bellows_runtime::handle::Exit;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime};
use clap::Args;

use super::ground;
use super::rows::Row;
use crate::failure::Failure;

/// Addresses of the measured containers.
const RANGE: &str = "10.211.48.0/20";

/// What speed and memory are compared over.
const CHUNK: u32 = 1_000;

/// The last chunk may take this many times the first.
const SLOWDOWN: f64 = 1.2;

/// What an allocator may keep for itself.
const SLACK_KIB: f64 = 1_024.0;

/// What the kernel may keep of one container until it tidies up: nothing that grows without end.
const SLAB_BYTES: f64 = 1_024.0;

/// Whether launching wears anything out: leaks, zombies, slowness
///
/// Needs root. Ends everything that it starts.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many in all, in thousands
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    thousands: u32,
    /// How many at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
}

/// What a moment's look finds.
struct Look {
    own_kib: f64,
    launchers_kib: f64,
    launchers_descriptors: f64,
    slabs_kib: f64,
}

/// Launches chunk by chunk.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench endurance`")?;
    let folder = ground::folder()?;
    let tree = ground::tiny_image(folder.path())?;
    let config = ground::config(folder.path(), RANGE);
    let cgroup = config.cgroup_parent.clone();
    let descriptors = descriptors("self");
    let runtime = Runtime::start(config).map_err(|error| Failure::from_error(&error))?;
    let measured = chunks(&runtime, &tree, arguments);
    let ended = runtime.shutdown().map_err(|error| Failure::from_error(&error));
    let mut rows = measured.and_then(|rows| ended.map(|()| rows))?;
    let more = descriptors_now() - descriptors;
    rows.push(Row::new("descriptors left after the runtime's end", more.max(0.0), "").at_most(0.0));
    rows.push(Row::new("cgroups left after the runtime's end", cgroups(&cgroup), "").at_most(0.0));
    Ok(rows)
}

fn chunks(runtime: &Runtime, tree: &Path, arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    let per_second = |number| chunk(runtime, tree, number, arguments.parallel as usize);
    let first = per_second(0)?;
    let before = look(runtime)?;
    let mut last = first;
    for number in 1..arguments.thousands {
        last = per_second(number)?;
    }
    let after = look(runtime)?;
    let parallel = arguments.parallel;
    let later = f64::from((arguments.thousands - 1) * CHUNK);
    let grown = |now: f64, then: f64| (now - then).max(0.0);
    Ok(vec![
        Row::new(format!("first thousand, {parallel} at once"), first, "1/s"),
        Row::new(format!("last thousand of {}, {parallel} at once", arguments.thousands * CHUNK), last, "1/s"),
        Row::new("time of the last thousand beside the first", first / last, "x").at_most(SLOWDOWN),
        Row::new("memory of this process, grown by", grown(after.own_kib, before.own_kib), "KiB").at_most(SLACK_KIB),
        Row::new("memory of the launchers, grown by", grown(after.launchers_kib, before.launchers_kib), "KiB")
            .at_most(SLACK_KIB),
        Row::new(
            "descriptors of the launchers, grown by",
            grown(after.launchers_descriptors, before.launchers_descriptors),
            "",
        )
        .at_most(0.0),
        Row::new(
            "kernel slabs of the whole machine, per container",
            grown(after.slabs_kib, before.slabs_kib) * 1024.0 / later,
            "B",
        )
        .at_most(SLAB_BYTES),
        Row::new("zombies", zombies(runtime), "").at_most(0.0),
    ])
}

/// Containers per second.
fn chunk(runtime: &Runtime, tree: &Path, number: u32, parallel: usize) -> Result<f64, Failure> {
    let id = ContainerId::new(format!("endure-{number}")).map_err(|error| Failure::from_error(&error))?;
    let spec = ContainerSpec::new(id, tree, &["/bin/payload", "exit", "0"]);
    let run = bench::launch(runtime, &spec, CHUNK as usize, parallel).map_err(|error| Failure::from_error(&error))?;
    match run.lives.iter().find(|life| life.exit != Exit::Code(0)) {
        None => Ok(f64::from(CHUNK) / (run.wall_ns as f64 / 1e9)),
        Some(life) => Err(Failure::failed(format!("a container ended with {:?} instead of code 0", life.exit))),
    }
}

fn look(runtime: &Runtime) -> Result<Look, Failure> {
    let pids = runtime.launcher_pids();
    let each = |of: &dyn Fn(&str) -> f64| pids.iter().map(|pid| of(&pid.to_string())).sum();
    let resident = |pid: &str| field(&format!("/proc/{pid}/status"), "VmRSS:");
    Ok(Look {
        own_kib: resident("self")?,
        launchers_kib: pids.iter().map(|pid| resident(&pid.to_string())).sum::<Result<f64, _>>()?,
        launchers_descriptors: each(&descriptors),
        slabs_kib: field("/proc/meminfo", "SUnreclaim:")?,
    })
}

/// A number of KiB in a file of the kernel's.
fn field(file: &str, name: &str) -> Result<f64, Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::failed(format!("reading {file}: {error}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Failure::failed(format!("{file} has no {name}")))
}

fn descriptors_now() -> f64 {
    descriptors("self")
}

fn descriptors(pid: &str) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0.0, |all| all.count() as f64)
}

/// Directories of this run, in the first hierarchy that has any.
fn cgroups(parent: &str) -> f64 {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"];
    roots.iter().filter(|root| Path::new(root).join(parent).exists()).count() as f64
}

/// Ended children of this process or of its launchers that nobody waited for.
fn zombies(runtime: &Runtime) -> f64 {
    let mut parents = runtime.launcher_pids();
    parents.push(std::process::id());
    let Ok(all) = fs::read_dir("/proc") else { return f64::NAN };
    let stats = all.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_zombie = |stat: &String| {
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        state == Some("Z") && parent.is_some_and(|parent| parents.contains(&parent))
    };
    stats.filter(is_zombie).count() as f64
}
