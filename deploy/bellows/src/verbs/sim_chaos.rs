//! `bellows sim chaos`.

use std::ops::Range;

use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;

const AFTER: &str = "\
Each seed makes one run: members, agents and their minds in virtual time, with late, lost and doubled messages, cuts, dead and \
returning nodes and leaders. A failing seed fails again in the same way.

Examples:
  bellows sim chaos --seeds 0..200
  bellows sim chaos --seeds 42..43       replay one

Exit code 1 when a seed fails.";

/// Seeds of faults in virtual time, each checked after every event
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// From A up to but not including B
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = seeds)]
    seeds: Range<u64>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("\"{text}\" is no range of seeds; expected A..B with A below B, for example 0..200");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

/// Runs them.
pub fn run(arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    let Range { start, end } = arguments.seeds;
    Err(Failure::failed(format!("seeds {start}..{end} cannot be run: the laboratory is not in this build yet")))
}
