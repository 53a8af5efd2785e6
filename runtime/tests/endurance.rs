//! Six hundred launches and ends, a hundred at a time: nothing of them is left, in the runtime, its launcher or the kernel. Speed is measured elsewhere.

#[path = "support/driven.rs"]
mod driven;
mod support;

use std::fs;

use bellows_runtime::handle::Exit;
use bellows_runtime::{Runtime, bench};
use support::{place, wait_until};

const COUNT: usize = 300;
const PARALLEL: usize = 100;
/// What a launcher may grow by from the first half to the second: its allocator's slack.
const SLACK_KIB: u64 = 512;

fn half(runtime: &Runtime, place: &support::Place, name: &str) {
    let spec = place.spec(name, &["/bin/payload", "exit", "7"]);
    let run = bench::launch(runtime, &spec, COUNT, PARALLEL).expect("all were launched and reaped");
    assert_eq!(run.lives.iter().filter(|life| life.exit == Exit::Code(7)).count(), COUNT);
    // Slots beyond those that are kept go when no launch has needed them for a while.
    wait_until("the slots are few again", || place.groups().len() <= place.config().pool.keep);
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn six_hundred_launches_leave_nothing() {
    let Some(mut place) = place() else { return };
    place.widen();
    let runtime = place.start();
    half(&runtime, &place, "first");
    let launcher = runtime.launcher_pids()[0];
    let (ours, launchers) = (driven::descriptors(std::process::id()), driven::descriptors(launcher));
    let memory = resident_kib(launcher);
    half(&runtime, &place, "second");
    assert_eq!(runtime.launcher_pids(), [launcher], "it is the same launcher");
    assert!(resident_kib(launcher) <= memory + SLACK_KIB, "{memory} KiB became {}", resident_kib(launcher));
    let total = |all: &driven::Descriptors| all.values().sum::<usize>();
    let after = driven::descriptors(launcher);
    assert!(total(&after) <= total(&launchers) + 1, "the launcher had {launchers:?} and has {after:?}");
    let after = driven::descriptors(std::process::id());
    for kind in ["pidfd", "anon_inode", "pipe", "socket", "net", "user"] {
        let (now, then) = (after.get(kind).unwrap_or(&0), ours.get(kind).unwrap_or(&0));
        assert!(*now <= then + place.config().pool.keep, "{kind}: {then} became {now}");
    }
    assert_eq!(place.processes(), [0; 0], "processes are left, zombies perhaps");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}
