//! Every case of [`crate::cases`]: a change of the configuration, a script inside, and what it must print. The table of which section each covers is
//! `runtime/src/oci/CASES.md`, which is checked against the cases.

use std::fmt::Write;

use crate::cases::CASES;
use crate::place::{self, Place};

/// Run as one test, in one bundle: the cases have nothing in common but the runtime.
#[test]
fn the_inside_shows_what_the_configuration_says() {
    let Some(place) = place::place() else { return };
    let failed: Vec<String> = CASES.iter().filter_map(|case| fails(&place, case)).collect();
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

fn fails(place: &Place, case: &crate::cases::Case) -> Option<String> {
    let mut config = place.config(case.script);
    (case.change)(&mut config);
    let said = place.run(&config);
    let want = case.want.trim();
    place.check_nothing_left();
    let good = match want.strip_prefix("refused: ") {
        Some(reason) => said.code == 1 && said.err.contains(reason),
        None => said.out.trim() == want,
    };
    (!good).then(|| format!("{} ({}): wanted {want:?}, got {said:?}", case.name, case.section))
}

#[test]
fn the_table_of_sections_is_that_of_the_cases() {
    let mut table = String::from("| section of the specification | case |\n| --- | --- |\n");
    for case in CASES {
        writeln!(table, "| {} | {} |", case.section, case.name).expect("a line");
    }
    let kept = include_str!("../../../../runtime/src/oci/CASES.md");
    let first = kept.split("| test in").next().unwrap_or_default();
    let lines = |text: &str| text.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(first), lines(&table), "runtime/src/oci/CASES.md should say:\n{table}");
}
