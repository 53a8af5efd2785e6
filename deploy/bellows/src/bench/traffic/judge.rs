//! The judge: reads what the owners wrote down when copies were parked and stopped, and says whether the idle ones went.

use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::Failure;

/// Agents write it under this name, at level `debug`.
pub const LOG: &str = "warn,bellows_agent::witness=debug";
const MARK: &str = "bellows_agent::witness:";

/// What an owner wrote down about one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// As it is written: comparable, and the same clock on one machine.
    at: String,
    node: usize,
    stopped: bool,
    busy: bool,
    /// Idle copies of the app on this node, itself among them.
    idle: u32,
    idle_others: u32,
}

/// What the lines say, taken together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Decisions for fewer copies.
    pub shrinks: u32,
    /// Those of them at which fewer copies were idle than had to go.
    pub tight: u32,
    /// Copies that were stopped.
    pub stopped: u32,
    /// Those of them that were busy.
    pub busy: u32,
    /// Those of these beside which an idle one was there.
    pub wrong: u32,
}

/// Judges what these agents wrote of shrinks by `victims` copies, which began at these moments (as the log writes them) and lasted to the next.
pub fn judge(logs: &[&Path], began: &[String], victims: u32) -> Result<Judgement, Failure> {
    let mut lines = Vec::new();
    for (node, log) in logs.iter().enumerate() {
        let failed = |error: std::io::Error| Failure::failed(format!("reading {}: {error}", log.display()));
        let text = std::fs::read_to_string(log).map_err(failed)?;
        lines.extend(text.lines().filter_map(|line| read(line, node)));
    }
    lines.sort_by(|a, b| a.at.cmp(&b.at));
    let mut judgement = Judgement { shrinks: began.len() as u32, ..Judgement::default() };
    for (at, from) in began.iter().enumerate() {
        let within = |line: &&Line| line.at >= *from && began.get(at + 1).is_none_or(|to| line.at < *to);
        // What each node said first in a shrink was how it stood at the decision.
        let mut first = BTreeMap::new();
        for line in lines.iter().filter(within) {
            first.entry(line.node).or_insert(line.idle);
        }
        judgement.tight += u32::from(first.values().sum::<u32>() < victims);
    }
    let mut idle = BTreeMap::new();
    for line in &lines {
        idle.insert(line.node, line.idle);
        if line.stopped {
            let elsewhere: u32 = idle.iter().filter(|(node, _)| **node != line.node).map(|(_, idle)| *idle).sum();
            judgement.stopped += 1;
            judgement.busy += u32::from(line.busy);
            judgement.wrong += u32::from(line.busy && line.idle_others + elsewhere > 0);
        }
    }
    Ok(judgement)
}

fn read(line: &str, node: usize) -> Option<Line> {
    let (before, said) = line.split_once(MARK)?;
    let value = |name: &str| said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let busy = value("busy")? == "true";
    let idle_others: u32 = value("idle_others")?.parse().ok()?;
    Some(Line {
        at: before.split_whitespace().next()?.to_owned(),
        node,
        stopped: value("what")?.contains("stopped"),
        busy,
        idle: idle_others + u32::from(!busy),
        idle_others,
    })
}

/// This moment, as the log writes it.
pub fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, what: &str, busy: bool, idle_others: u32) -> String {
        format!(
            "2026-01-01T00:00:{second:02}.000000Z DEBUG bellows_agent::witness: replica=1.1-4 app=3 what=\"{what}\" requests=0 busy={busy} \
             idle_others={idle_others} why=\"\"\n"
        )
    }

    #[test]
    fn the_first_word_of_each_node_is_how_it_stood_and_busy_ends_are_seen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let logs = [folder.path().join("a"), folder.path().join("b")];
        let one = [line(1, "parked", false, 2), line(2, "parked", true, 1), line(3, "stopped", false, 1)].concat();
        let other = [line(1, "parked", false, 0), line(4, "stopped", true, 0), line(11, "parked", true, 0)].concat();
        std::fs::write(&logs[0], one).expect("writable");
        std::fs::write(&logs[1], other).expect("writable");
        let began = ["2026-01-01T00:00:00.500000Z".to_owned(), "2026-01-01T00:00:10.000000Z".to_owned()];
        let judged = judge(&[&logs[0], &logs[1]], &began, 4).expect("readable");
        assert_eq!(judged, Judgement { shrinks: 2, tight: 1, stopped: 2, busy: 1, wrong: 1 });
    }
}
