//! The launcher of this crate's tests; with `weakened NAME..`, one whose containers lack these protections; with `victim ..` a runtime to
//! be ill-treated (see `victim.rs`); with `bench COUNT PARALLEL [IMAGE PROGRAM ARG..]`, measurements to look at while working on it.

mod victim;

use std::process::ExitCode;

use bellows_runtime::handle::LauncherCommand;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, RuntimeConfig, bench, launch};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((word, rest)) if word == "bench" => measure(rest),
        Some((word, rest)) if word == "weakened" => weakened(rest),
        Some((word, rest)) if word == "victim" => victim::serve(rest),
        _ if launch::launcher_main() == 0 => Ok(()),
        _ => Err("the launcher failed".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn weakened(without: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let without = without.iter().map(|name| name.parse()).collect::<Result<Vec<launch::Weaken>, String>>()?;
    if launch::weakened_launcher_main(without) == 0 { Ok(()) } else { Err("the launcher failed".into()) }
}

fn measure(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
    let (count, parallel) = (number(0), number(1));
    let dir = std::env::temp_dir().join(format!("bellows-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    report("floor", bench::floor(&dir, count.min(300))?);
    let launcher = LauncherCommand { program: std::env::current_exe()?, args: Vec::new() };
    let name = format!("bellows-bench-{}", std::process::id());
    let mut config = RuntimeConfig::new(dir.join("state"), name, "10.250.0.0/22".parse()?, launcher);
    config.pool.ready = 16;
    let runtime = Runtime::start(config)?;
    let (image, program) = match args.get(2..).and_then(<[String]>::split_first) {
        Some((image, program)) => (image.into(), program.iter().map(String::as_str).collect()),
        None => (bench::tiny_image(&dir)?, vec!["/bin/payload", "exit", "0"]),
    };
    let spec = ContainerSpec::new(ContainerId::new("bench")?, image, &program);
    bench::launch(&runtime, &spec, 50, parallel)?;
    let before = cpu_us(libc::RUSAGE_SELF);
    let run = bench::launch(&runtime, &spec, count, parallel)?;
    let own = cpu_us(libc::RUSAGE_SELF) - before;
    println!("{:.0} per second", count as f64 * 1e9 / run.wall_ns as f64);
    report("launched", run.lives.iter().map(|life| life.launched_ns).collect());
    report("cleaned", run.lives.iter().map(|life| life.cleaned_ns).collect());
    if let Some(first) = run.lives.first() {
        for (place, (what, _)) in first.timings.moments_ns.iter().enumerate() {
            report(what, run.lives.iter().filter_map(|life| Some(life.timings.moments_ns.get(place)?.1)).collect());
        }
    }
    runtime.shutdown()?;
    // The launchers', with the warm-up: a little too much. The containers' own is not in it.
    println!(
        "{:>7} us CPU runtime {:>7} us CPU launchers",
        own / count as u64,
        cpu_us(libc::RUSAGE_CHILDREN) / (count + 50) as u64
    );
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn cpu_us(whose: i32) -> u64 {
    // SAFETY: the structure is ours and plain numbers.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

fn report(what: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    let at = |part: usize| ns.get(ns.len() * part / 100).map_or(0, |n| n / 1000);
    println!("{:>7} us p5 {:>7} median {:>7} p90 {:>7} p99   {what}", at(5), at(50), at(90), at(99));
}
