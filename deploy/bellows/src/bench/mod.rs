//! `bellows bench`: how fast, measured here and now, as rows of {name, value, unit, reference?, ratio?}.

mod adopt;
mod alive;
mod cgroups;
mod cluster;
mod crun;
mod endurance;
mod ground;
mod lab;
mod launch;
mod memory;
mod parts;
mod payload;
mod place;
mod rival;
mod rows;
mod scale;
mod thaw;
mod traffic;
mod vm;
mod waiting;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::globals::Globals;

/// Measure this machine: rows of name, value, unit, reference, ratio
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Launch(launch::Arguments),
    Scale(scale::Arguments),
    Adopt(adopt::Arguments),
    Traffic(traffic::Arguments),
    Thaw(thaw::Arguments),
    Endurance(endurance::Arguments),
    Place(place::Arguments),
}

/// Measures and prints. No async runtime exists.
pub fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    match arguments.what {
        What::Launch(arguments) => rows::print(&launch::run(&arguments)?, globals),
        What::Place(arguments) => rows::print(&place::run(&arguments)?, globals),
        What::Endurance(arguments) => rows::print(&endurance::run(&arguments)?, globals),
        What::Thaw(arguments) => rows::print(&thaw::run(&arguments)?, globals),
        What::Adopt(arguments) => {
            crate::execution::client(async { rows::print(&adopt::run(arguments, globals).await?, globals) })
        }
        What::Scale(arguments) => {
            crate::execution::client(async { rows::print(&scale::run(arguments, globals).await?, globals) })
        }
        What::Traffic(arguments) => {
            crate::execution::client(async { rows::print(&traffic::run(arguments, globals).await?, globals) })
        }
    }
}
