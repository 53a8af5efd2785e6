//! The escape suite: one program (`escape/`) tries one thing at a time from inside a container. Each try must fail in the way that its row names, and
//! must succeed where only the protection that the row names is missing; else the row would show nothing.
//!
//! `cargo test -p bellows-runtime --test escape -- --nocapture` prints the table. Controls that could harm the machine run in a virtual one only
//! (`BELLOWS_IN_VM=1`).

mod bombs;
mod executable;
mod more;
mod names;
mod network;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod world;

use rows::{Control, ROWS, Row, Seen};
use world::World;

#[test]
fn every_try_meets_with_what_its_row_says() {
    let Some(world) = World::new(&[]) else { return };
    let wrong: Vec<String> = ROWS.iter().filter_map(|row| against(row, row.met, &world)).collect();
    world.end();
    assert!(wrong.is_empty(), "holes, or rows that are wrong:\n{}", wrong.join("\n"));
}

#[test]
fn every_try_succeeds_without_what_stands_against_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make containers");
        return;
    }
    let mut wrong = Vec::new();
    let mut left: Vec<&Row> = ROWS.iter().collect();
    while let Some(first) = left.first().copied() {
        let (same, others) = left.iter().partition::<Vec<&Row>, _>(|row| row.control.is_run_as(&first.control));
        left = others;
        match first.control {
            Control::Without(protections) => wrong.extend(without(protections, &same)),
            Control::InMachine(protections) if world::in_machine() => wrong.extend(without(protections, &same)),
            Control::Outside => wrong.extend(outside(&same)),
            Control::InMachine(_) => {
                same.iter().for_each(|row| println!("{}: its control runs in a virtual machine only", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "these show nothing:\n{}", wrong.join("\n"));
}

fn without(protections: &[bellows_runtime::launch::Weaken], rows: &[&Row]) -> Vec<String> {
    let Some(world) = World::new(protections) else { return Vec::new() };
    let wrong = rows.iter().filter_map(|row| against(row, Seen::Got, &world)).collect();
    world.end();
    wrong
}

/// The program as an ordinary process of this machine: without any container at all.
fn outside(rows: &[&Row]) -> Vec<String> {
    let Some(world) = World::new(&[]) else { return Vec::new() };
    let wrong = rows.iter().filter(|row| row.missing().is_none()).filter_map(|row| {
        let seen = world.outside(row);
        println!("{:<24} outside                                  {seen:?}", row.name);
        (seen != Seen::Got).then(|| format!("{} outside: {seen:?}", row.name))
    });
    let wrong = wrong.collect();
    world.end();
    wrong
}

/// What is wrong with a try in this world, if anything.
fn against(row: &Row, expected: Seen, world: &World) -> Option<String> {
    if let Some(missing) = row.missing() {
        println!("{:<24} skipped: this machine has no {missing}", row.name);
        return None;
    }
    let seen = world.inside(row);
    println!("{:<24} {:<40} {seen:?}", row.name, world.what_is_missing());
    (seen != expected).then(|| format!("{} {}: {seen:?} instead of {expected:?}", row.name, world.what_is_missing()))
}
