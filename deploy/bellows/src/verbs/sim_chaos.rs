//! `bellows sim chaos`.

use std::ops::Range;

use bellows_sim::chaos::{self, Options, SeedReport};
use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::output;

const AFTER: &str = "\
Each seed makes one run: members, agents and their minds in virtual time, with late, lost and doubled messages, cuts, dead and \
returning nodes and leaders. A failing seed fails again in the same way.

Examples:
  bellows sim chaos --seeds 0..200
  bellows sim chaos --seeds 42..43 --diary    replay one, with every event

Exit code 1 when a seed fails.

JSON: {seeds, planted, nodes, events, events_least, virtual_ms, log_hash, failures: [{seed, at_ms, law, rule, text}], \
counts: {fault: times}}; with --diary the same of one seed, with diary: []";

/// Seeds of faults in virtual time, each checked after every event
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// From A up to but not including B
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = seeds)]
    seeds: Range<u64>,

    /// Print every event; for a range of one seed
    #[arg(long)]
    diary: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("\"{text}\" is no range of seeds; expected A..B with A below B, for example 0..200");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

/// Runs them.
pub fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let Arguments { seeds, diary } = arguments;
    if diary {
        return one(&seeds, globals);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = chaos::run(seeds, &Options { threads, ..Options::default() });
    if globals.json() {
        output::json(&report)?
    } else {
        output::line(report.to_string().trim_end())?
    }
    match report.failures.first() {
        None => Ok(()),
        Some(first) => Err(Failure::failed(format!("{} of {} seeds failed", report.failures.len(), report.seeds))
            .mend(format!(
                "`bellows sim chaos --seeds {}..{} --diary` shows every event of the first",
                first.seed,
                first.seed + 1
            ))),
    }
}

/// One seed with its log.
fn one(seeds: &Range<u64>, globals: &Globals) -> Result<(), Failure> {
    if seeds.end - seeds.start != 1 {
        return Err(Failure::usage("--diary is for one seed, for example --seeds 42..43"));
    }
    let report = chaos::run_seed(seeds.start, &Options { keep_diary: true, ..Options::default() });
    if globals.json() {
        output::json(&report)?
    } else {
        lines(&report)?
    }
    report.failure.map_or(Ok(()), |failure| Err(Failure::failed(failure.to_string())))
}

fn lines(report: &SeedReport) -> Result<(), Failure> {
    report.diary.iter().try_for_each(|line| output::line(line))?;
    let SeedReport { seed, events, log_hash, .. } = report;
    output::line(&format!("seed {seed}: {events} events, event log hash {log_hash:016x}"))
}
