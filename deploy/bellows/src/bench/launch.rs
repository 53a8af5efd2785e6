//! `bench launch`: containers from order to cleaned up, in a row and in a burst, beside the kernel's own floor and a plain process.
//!
//! A container here is the whole thing: seven namespaces, own root, own address, cgroups, seccomp, init. Cleaned up means reaped, its
//! cgroups, slot and scratch free. What pools prepare and refill meanwhile is inside the wall time. A root that its container has left as it was serves the
//! next one; rows of their own say what it is like where each leaves something.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bellows_runtime::bench::{self, Run};
use bellows_runtime::handle::Exit;
use bellows_runtime::image::Store;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime};
use clap::Args;

use super::rows::{Reference, Row, quantile};
use super::{alive, crun, ground, payload, waiting};
use crate::failure::Failure;

/// Of busybox: it returns at once.
const TRUE: &str = "/bin/true";

/// Addresses of the measured containers.
const RANGE: &str = "10.211.0.0/20";

/// The first ones find cold caches; a resident launcher does that once.
const WARM_UP: usize = 20;

/// How quickly containers start and end, beside the kernel's own floor
///
/// Needs root. Ends everything that it starts.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many in a row, and how many in the burst
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    count: u32,
    /// How many at once in the burst; the bars are for one per launcher
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// How often a virtual machine is booted beside them; 0 for not at all
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    vm_runs: u32,
    /// Also print where the time goes from the order until all is cleaned up, moment by moment
    #[arg(long)]
    moments: bool,
    /// Also launch beside this many containers that are alive; 0 for not at all
    #[arg(long, default_value_t = 1000, value_parser = alive_count)]
    alive: u32,
}

fn alive_count(text: &str) -> Result<u32, String> {
    let possible = |count: &u32| *count == 0 || (20..=4000).contains(count);
    text.parse().ok().filter(possible).ok_or_else(|| "expected 0, or a whole number from 20 to 4000".to_owned())
}

/// A program that is measured.
struct Payload {
    name: &'static str,
    bars: Bars,
    tree: PathBuf,
    args: [&'static str; 3],
    /// Milliseconds of the same as a plain process.
    plain: f64,
}

impl Payload {
    fn words(&self) -> Vec<&'static str> {
        self.args.into_iter().filter(|word| !word.is_empty()).collect()
    }
}

/// What is to be reached with it.
struct Bars {
    cleaned_ms: f64,
    per_second: f64,
}

/// A whole life may take this share of what crun takes for it ...
const OF_CRUN: f64 = 0.2;

/// (A process of its own for each, as crun has, may take this share.)
const OCI_OF_CRUN: f64 = 0.5;

/// ... and one of a hundred this many times the median.
const P99_OF_MEDIAN: f64 = 3.0;

/// The floor first: it is measured from a process without threads.
pub fn run(arguments: &Arguments) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench launch`")?;
    let folder = ground::folder()?;
    let count = arguments.count as usize;
    let floor = bench::floor(folder.path(), count)
        .map_err(|error| Failure::failed(format!("measuring the kernel's floor: {error}")))?;
    let floor = quantile(&mut floor.into_iter().map(milliseconds).collect::<Vec<_>>(), 500);
    let payloads = payloads(folder.path(), count)?;
    let runtime = Runtime::start(ground::config(folder.path(), RANGE)).map_err(|error| Failure::from_error(&error))?;
    let measured = all(&runtime, &payloads, arguments, floor);
    let ended = runtime.shutdown().map_err(|error| Failure::from_error(&error));
    let floor = Row::new("kernel floor: seven namespaces, overlay, exec, wait; median", floor, "ms");
    let rows = measured.and_then(|rows| ended.map(|()| [floor].into_iter().chain(rows).collect()))?;
    beside_a_machine(rows, &payloads[0], arguments.vm_runs)
}

/// Idleness and the crowd last: what is left of a thousand networks keeps the kernel busy for a while.
fn all(runtime: &Runtime, payloads: &[Payload], arguments: &Arguments, floor: f64) -> Result<Vec<Row>, Failure> {
    let (count, tree) = (arguments.count as usize, &payloads[0].tree);
    let mut rows = Vec::new();
    for payload in payloads {
        rows.extend(measure(runtime, payload, arguments, floor)?);
    }
    rows.extend(writing(runtime, tree, count, arguments.parallel as usize)?);
    rows.extend(waiting::after_idleness(runtime, tree, (count / 20).clamp(1, 100))?);
    if arguments.alive > 0 {
        rows.extend(alive::rows(runtime, tree, arguments.alive as usize, arguments.parallel as usize, count.min(200))?);
    }
    Ok(rows)
}

/// The comparison for which Bellows exists.
fn beside_a_machine(mut rows: Vec<Row>, tiny: &Payload, runs: u32) -> Result<Vec<Row>, Failure> {
    let container = rows.iter().find(|row| row.name == "tiny: order to cleaned up, in a row, median");
    let container_ms = container.map_or(0.0, |row| row.value);
    if runs > 0 {
        rows.push(super::vm::row(&tiny.tree.join("bin/payload"), runs, container_ms)?);
    }
    Ok(rows)
}

fn payloads(folder: &Path, count: usize) -> Result<Vec<Payload>, Failure> {
    let tree = ground::tiny_image(folder)?;
    let tiny = Payload {
        name: "tiny",
        bars: Bars { cleaned_ms: 0.9, per_second: 1500.0 },
        plain: plain(&tree.join("bin/payload"), &["payload", "exit", "0"], count)?,
        tree,
        args: ["/bin/payload", "exit", "0"],
    };
    let build = |store: Store| store.unpack(&payload::image(&store, "bench-launch", Path::new(TRUE))?);
    let image = Store::open(folder.join("images")).and_then(build).map_err(|error| Failure::from_error(&error))?;
    let plain = plain(&payload::program(Path::new(TRUE)), &[TRUE], count)?;
    let bars = Bars { cleaned_ms: 1.5, per_second: 1000.0 };
    Ok(vec![tiny, Payload { name: "busybox true", bars, tree: image.root, args: [TRUE, "", ""], plain }])
}

/// The same program, forked, executed and waited for: what the kernel takes for no isolation at all.
fn plain(program: &Path, words: &[&str], count: usize) -> Result<f64, Failure> {
    use std::os::unix::process::CommandExt;
    let failed = |what: String| Failure::failed(format!("executing {}: {what}", program.display()));
    let mut samples = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let status = Command::new(program)
            .arg0(words[0])
            .args(&words[1..])
            .status()
            .map_err(|error| failed(error.to_string()))?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
        if !status.success() {
            return Err(failed(format!("it ended with {status}")));
        }
    }
    Ok(quantile(&mut samples, 500))
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn measure(runtime: &Runtime, payload: &Payload, arguments: &Arguments, floor: f64) -> Result<Vec<Row>, Failure> {
    let count = arguments.count as usize;
    let parallel = arguments.parallel as usize;
    let lives = |what: &str, count, parallel| {
        let id = format!("{}-{what}", payload.name.replace(' ', "-"));
        lives(runtime, &payload.tree, &payload.words(), &id, count, parallel)
    };
    lives("warm", WARM_UP, parallel)?;
    let before_us = cpu_us(runtime)?;
    let row = lives("row", count, 1)?;
    let cpu_ms = (cpu_us(runtime)? - before_us) as f64 / 1e3 / count as f64;
    let burst = lives("burst", count, parallel)?;
    let mut launched: Vec<_> = row.lives.iter().map(|life| milliseconds(life.launched_ns)).collect();
    let mut cleaned = cleaned_ms(&row);
    let (median, p99) = (quantile(&mut cleaned, 500), quantile(&mut cleaned, 990));
    let mut rows = vec![
        Row::new("plain process, median", payload.plain, "ms"),
        Row::new("order to exec, in a row, median", quantile(&mut launched, 500), "ms"),
        Row::new("order to cleaned up, in a row, median", median, "ms").at_most(payload.bars.cleaned_ms),
        Row::new("order to cleaned up, in a row, median beside the floor", median, "ms").beside("kernel floor", floor),
        Row::new("order to cleaned up, in a row, p99", p99, "ms").at_most_times("median", median, P99_OF_MEDIAN),
        Row::new(format!("containers, {parallel} at once"), per_second(&burst), "1/s")
            .at_least(payload.bars.per_second),
    ];
    rows.extend(beside_crun(payload, arguments, median)?);
    // The kernel counts in hundredths of a second: of a few containers it may have seen nothing.
    if cpu_ms > 0.0 {
        rows.push(Row::new("CPU of the whole machine, per container in a row", cpu_ms, "ms"));
    }
    if arguments.moments {
        rows.extend(moments(&row));
    }
    Ok(rows.into_iter().map(|row| Row { name: format!("{}: {}", payload.name, row.name), ..row }).collect())
}

/// Where each container leaves a file, so that its root serves no other.
fn writing(runtime: &Runtime, tree: &Path, count: usize, parallel: usize) -> Result<[Row; 2], Failure> {
    let words = ["/bin/payload", "write"];
    lives(runtime, tree, &words, "write-warm", WARM_UP, parallel)?;
    let row = lives(runtime, tree, &words, "write-row", count, 1)?;
    let burst = lives(runtime, tree, &words, "write-burst", count, parallel)?;
    let mut cleaned = cleaned_ms(&row);
    let name = |what: &str| format!("tiny, each writes a file: {what}");
    Ok([
        Row::new(name("order to cleaned up, in a row, median"), quantile(&mut cleaned, 500), "ms"),
        Row::new(name(&format!("containers, by {parallel}")), per_second(&burst), "1/s"),
    ])
}

fn cleaned_ms(run: &Run) -> Vec<f64> {
    run.lives.iter().map(|life| milliseconds(life.cleaned_ns)).collect()
}

fn per_second(run: &Run) -> f64 {
    run.lives.len() as f64 / (run.wall_ns as f64 / 1e9)
}

/// The same payload by another runtime, in the same run; a row that says why where that cannot be.
fn beside_crun(payload: &Payload, arguments: &Arguments, cleaned: f64) -> Result<Vec<Row>, Failure> {
    let names = [
        "order to cleaned up, in a row, median beside crun run",
        "bellows oci run, the process's start included, mean",
    ];
    let missing =
        |name: &str, why: &str| Row::new(format!("{name}: not measured: {}", why.replace('\n', " / ")), f64::NAN, "ms");
    let means = match crun::means(&payload.tree, &payload.words(), arguments.count.min(200)) {
        Ok(Some(means)) => means,
        Ok(None) => return Ok(names.map(|name| missing(name, "crun is not installed")).into()),
        Err(failure) => return Ok(names.map(|name| missing(name, &failure.to_string())).into()),
    };
    let crun = "crun run, mean";
    let ours = match means.ours {
        Ok(ms) => Row::new(names[1], ms, "ms").at_most_times(crun, means.crun, OCI_OF_CRUN),
        Err(failure) => missing(names[1], &failure.to_string()),
    };
    Ok(vec![Row::new(names[0], cleaned, "ms").at_most_times(crun, means.crun, OF_CRUN), ours])
}

/// Of all CPUs, whoever used them.
fn cpu_us(runtime: &Runtime) -> Result<u64, Failure> {
    runtime.node_usage().map(|usage| usage.cpu_us).map_err(|error| Failure::from_error(&error))
}

fn lives(
    runtime: &Runtime,
    tree: &Path,
    words: &[&str],
    id: &str,
    count: usize,
    parallel: usize,
) -> Result<Run, Failure> {
    let id = ContainerId::new(id).map_err(|error| Failure::from_error(&error))?;
    let spec = ContainerSpec::new(id, tree, words);
    let run = bench::launch(runtime, &spec, count, parallel).map_err(|error| Failure::from_error(&error))?;
    match run.lives.iter().find(|life| life.exit != Exit::Code(0)) {
        None => Ok(run),
        Some(life) => {
            Err(Failure::failed(format!("a container of {words:?} ended with {:?} instead of code 0", life.exit)))
        }
    }
}

/// The moments of a life, after the order: the median of each, beside the mean of how long it was after the one before. The means add up to the last row.
fn moments(run: &Run) -> Vec<Row> {
    let mut all: BTreeMap<&str, (Vec<f64>, f64)> = BTreeMap::new();
    for life in &run.lives {
        let mut before_ns = 0;
        for (moment, at_ns) in &life.timings.moments_ns {
            let (times, steps) = all.entry(moment).or_default();
            times.push(milliseconds(*at_ns));
            *steps += milliseconds(at_ns.saturating_sub(before_ns));
            before_ns = *at_ns;
        }
    }
    let count = run.lives.len().max(1) as f64;
    let total = all.values().map(|(_, steps)| steps).sum::<f64>() / count;
    let beside = |name: &str, value| Some(Reference { name: name.to_owned(), value });
    let mut rows: Vec<Row> = all
        .into_iter()
        .map(|(moment, (mut times, steps))| Row {
            reference: beside("this step, mean", steps / count),
            ..Row::new(format!("after the order, {moment}"), quantile(&mut times, 500), "ms")
        })
        .collect();
    rows.sort_by(|a, b| a.value.total_cmp(&b.value));
    let cleaned = cleaned_ms(run).iter().sum::<f64>() / count;
    let sum = Row::new("order to cleaned up, in a row, mean", cleaned, "ms");
    rows.push(Row { reference: beside("all steps above", total), ..sum });
    rows
}
