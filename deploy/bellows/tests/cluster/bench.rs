//! The measuring verbs, with small numbers: rows come out, and nothing is left.

use super::support::cli::{BELLOWS, text};
use super::support::machine;
use super::*;

pub fn rows(arguments: &[&str]) -> Vec<Value> {
    let output = std::process::Command::new(BELLOWS).args(["bench", "--output", "json"]).args(arguments).output();
    let output = output.expect("the executable was built");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list of rows");
    for row in &rows {
        let missing = row["name"].as_str().is_some_and(|name| name.contains("not measured")) && row["value"].is_null();
        assert!(row["name"].is_string() && row["unit"].is_string(), "{row}");
        assert!(missing || row["value"].as_f64() >= Some(0.0), "{row}");
    }
    rows
}

#[test]
fn launches_are_measured_beside_the_floor() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let rows = rows(&["launch", "--count", "20", "--vm-runs", "1", "--alive", "20"]);
    assert!(rows.iter().any(|row| row["reference"]["name"] == "kernel floor" && row["ratio"].is_number()), "{rows:?}");
    let barred = ["first byte in its log, p99", "PSS of init and launchers", "crun run", "p99", "at once"];
    for part in barred {
        let found = rows.iter().filter(|row| row["name"].as_str().is_some_and(|name| name.contains(part)));
        assert!(found.clone().count() > 0, "{part}: {rows:?}");
        assert!(found.clone().all(|row| row["met"].is_boolean() || row["value"].is_null()), "{part}: {rows:?}");
    }
    let machine =
        rows.iter().filter(|row| row["name"].as_str().is_some_and(|name| name.starts_with("virtual machine")));
    assert_eq!(machine.count(), 1, "measured, or why not: {rows:?}");
}

#[test]
fn scaling_is_measured_up_and_down() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let rows = rows(&["scale", "--copies", "10", "--runs", "1", "--many", "20"]);
    assert_eq!(distinct(&rows, "unit").into_iter().collect::<Vec<_>>(), ["MiB", "s"]);
    assert!(rows.len() == 6 && rows.iter().filter(|row| row["met"].is_boolean()).count() == 4, "{rows:?}");
}

/// The same with fewer copies: how long it takes is told here too, and on a machine that does other things it may be longer than promised.
#[test]
fn copies_outlive_their_agent_its_launchers_and_its_upgrade() {
    let Some(_machine) = machine(&[]) else { return };
    let rows = rows(&["adopt", "--copies", "30"]);
    for blow in ["agent killed", "agent upgraded", "launchers killed"] {
        let of_blow = |row: &&Value| row["name"].as_str().is_some_and(|name| name.starts_with(blow));
        assert_eq!(rows.iter().filter(of_blow).count(), 4, "{rows:#?}");
    }
    let counted: Vec<&Value> = rows.iter().filter(|row| row["unit"] == "copies").collect();
    assert!(counted.len() == 9 && counted.iter().all(|row| row["met"] == true), "{rows:#?}");
}

#[test]
fn first_bytes_from_nothing_are_measured_with_and_without_a_controller() {
    let Some(_machine) = machine(&[]) else { return };
    let rows = rows(&["traffic", "--only", "cold-start", "--count", "5"]);
    let barred = rows.iter().filter(|row| row["met"].is_boolean());
    assert!(rows.len() == 9 && barred.count() == 4, "{rows:?}");
}

#[test]
fn other_proxies_are_measured_beside_ours_where_they_are_installed() {
    let Some(_machine) = machine(&["nginx"]) else { return };
    let rows = rows(&["traffic", "--only", "tcp,idle", "--rounds", "1", "--connections", "50"]);
    for part in ["raw TCP", "bellows: memory each", "nginx: memory each"] {
        assert!(rows.iter().any(|row| row["name"].as_str().is_some_and(|name| name.contains(part))), "{rows:?}");
    }
}
