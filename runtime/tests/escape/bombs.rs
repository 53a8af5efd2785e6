//! Taking as much as there is: each bomb is bounded in its own container, and while it is at its worst its neighbour and the node get what is theirs.

use std::path::Path;
use std::time::Instant;

use bellows_runtime::handle::{Error, Exit};
use bellows_runtime::launch::{ESCAPE, Weaken};
use bellows_runtime::{ContainerId, ContainerSpec, Runtime};

use crate::support::{self, Place, lines};

/// One bomb: its words, what bounds it, how it ends (none: it goes on), what the neighbour does meanwhile.
struct Bomb {
    words: &'static [&'static str],
    bound: fn(&mut ContainerSpec),
    ends: Option<Exit>,
    neighbour: &'static [&'static str],
    /// As it is said of the neighbour when the node has no more to give: so the control shows that it could be otherwise.
    what: &'static str,
}

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

const BOMBS: [Bomb; 10] = [
    Bomb {
        words: &["forks"],
        bound: |spec| spec.limits.processes = 20,
        ends: None,
        neighbour: &["spin_for", "1000"],
        what: "processes",
    },
    Bomb {
        words: &["memory"],
        bound: |spec| spec.limits.memory_bytes = 24 * MIB,
        ends: Some(Exit::OutOfMemory),
        neighbour: &["spin_for", "1000"],
        what: "memory",
    },
    Bomb {
        words: &["shared_memory"],
        bound: |spec| spec.limits.memory_bytes = 24 * MIB,
        ends: Some(Exit::OutOfMemory),
        neighbour: &["spin_for", "1000"],
        what: "shared memory",
    },
    Bomb {
        words: &["disk", "/"],
        bound: |spec| spec.limits.scratch_bytes = 2 * MIB,
        ends: Some(Exit::Code(libc::ENOSPC)),
        neighbour: &["write_word", "/etc/hostname", "x"],
        what: "the writable layer",
    },
    Bomb {
        words: &["disk", "/dev/shm"],
        bound: |spec| spec.limits.scratch_bytes = 2 * MIB,
        ends: Some(Exit::Code(libc::ENOSPC)),
        neighbour: &["write_word", "/etc/hostname", "x"],
        what: "files in memory",
    },
    Bomb {
        words: &["files"],
        bound: |spec| spec.limits.scratch_bytes = MIB,
        ends: Some(Exit::Code(libc::ENOSPC)),
        neighbour: &["write_word", "/etc/hostname", "x"],
        what: "inodes",
    },
    Bomb {
        words: &["log", "4096"],
        bound: |spec| spec.limits.log_bytes = 64 << 10,
        ends: Some(Exit::Code(0)),
        neighbour: &["log", "4"],
        what: "the log",
    },
    Bomb {
        words: &["descriptors"],
        bound: |spec| spec.limits.open_files = 100,
        ends: None,
        neighbour: &["open", "/dev/null"],
        what: "open files",
    },
    Bomb { words: &["terminals"], bound: |_| {}, ends: None, neighbour: &["one_terminal"], what: "terminals" },
    Bomb { words: &["watchers"], bound: |_| {}, ends: None, neighbour: &["one_watcher"], what: "watchers of files" },
];

fn spec(place: &Place, name: &str, words: &[&str]) -> ContainerSpec {
    place.spec(name, &[&["/bin/escape"], words].concat())
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).expect("an id")
}

fn run(place: &Place, runtime: &Runtime, name: &str, words: &[&str]) -> Exit {
    runtime.launch(&spec(place, name, words)).expect("the neighbour starts");
    let exit = runtime.reap(&id(name)).expect("reaped").exit;
    runtime.forget(&id(name)).expect("forgotten");
    exit
}

#[test]
fn bombs_hurt_nobody_else() {
    let Some(place) = support::place() else { return };
    support::put(&place.image().join("bin/escape"), ESCAPE);
    let runtime = place.start();
    let mut wrong = Vec::new();
    for bomb in &BOMBS {
        let began = Instant::now();
        if let Err(what) = explode(&place, &runtime, bomb) {
            wrong.push(format!("{}: {what}", bomb.what));
        }
        println!("bomb of {:<24} {:>5} ms", bomb.what, began.elapsed().as_millis());
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn explode(place: &Place, runtime: &Runtime, bomb: &Bomb) -> Result<(), String> {
    let mut bounded = spec(place, "bomb", bomb.words);
    (bomb.bound)(&mut bounded);
    runtime.launch(&bounded).map_err(|error| format!("{error:?}"))?;
    let own_end = match bomb.ends {
        Some(_) => Some(runtime.reap(&bounded.id).map_err(|error| format!("{error:?}"))?.exit),
        None => {
            support::wait_until("the bomb has all it gets", || lines(runtime, "bomb").iter().any(|l| l.text == "full"));
            None
        }
    };
    let neighbour = run(place, runtime, "neighbour", bomb.neighbour);
    let node = node_is_well(place.image().as_path());
    if own_end.is_none() {
        runtime.kill(&bounded.id).map_err(|error: Error| format!("{error:?}"))?;
        runtime.reap(&bounded.id).map_err(|error| format!("{error:?}"))?;
    }
    let log = runtime.log(&bounded.id).map_err(|error| format!("{error:?}"))?;
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let kept = size(&log.older) + size(&log.newer);
    runtime.forget(&bounded.id).map_err(|error| format!("{error:?}"))?;
    match (own_end == bomb.ends, neighbour, node, kept <= bounded.limits.log_bytes) {
        (true, Exit::Code(0), Ok(()), true) => Ok(()),
        found => Err(format!("ended {own_end:?}, then {found:?}")),
    }
}

/// The node starts a process, writes a file, opens a terminal and a watcher.
fn node_is_well(image: &Path) -> Result<(), String> {
    for words in [&["one_terminal"][..], &["one_watcher"], &["spin_for", "100"]] {
        let done = std::process::Command::new(image.join("bin/escape")).args(words).status();
        match done {
            Ok(status) if status.success() => {}
            other => return Err(format!("the node cannot {words:?}: {other:?}")),
        }
    }
    let file = image.join("the-node-writes");
    std::fs::write(&file, "well").and_then(|()| std::fs::remove_file(file)).map_err(|error| error.to_string())
}

/// Ends what goes on by itself; gives what it told before, and forgets it.
fn stop(runtime: &Runtime, id: &ContainerId) -> Option<u64> {
    if runtime.kill(id).is_ok() {
        runtime.reap(id).expect("reaped");
    }
    let told = lines(runtime, id.as_str()).iter().find_map(|line| line.text.trim_start_matches('0').parse().ok());
    runtime.forget(id).expect("forgotten");
    told
}

/// A bomb with one of its bounds moved: how to move it, and how much then went up.
struct Bound {
    words: &'static [&'static str],
    set: fn(&mut ContainerSpec, u64),
    taken: fn(&Runtime, &ContainerId) -> u64,
    bounds: [u64; 2],
    /// Of what is counted, what the bound is for itself.
    unit: u64,
}

/// What it says of itself.
fn told(runtime: &Runtime, id: &ContainerId) -> u64 {
    let mut found = None;
    support::wait_until("it tells how much it got", || {
        found = lines(runtime, id.as_str()).iter().find_map(|line| line.text.trim_start_matches('0').parse().ok());
        found.is_some()
    });
    found.expect("just looked at")
}

/// The most pages that it held at any time. It is killed for it. (A page that the kernel is about to refuse counts for a moment.)
fn peak(runtime: &Runtime, id: &ContainerId) -> u64 {
    let mut most = 0;
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| runtime.await_end(id).expect("it ends"));
        while !ended.is_finished() {
            most = runtime.usage(id).map_or(most, |usage| usage.memory_bytes.max(most));
        }
    });
    // On a busy machine all may be over between two looks. v1 keeps the peak of this container; v2 may keep an earlier one's.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        most = runtime.stats(id).expect("it is not reaped").memory_peak_bytes.map_or(most, |peak| peak.max(most));
    }
    assert_eq!(runtime.reap(id).expect("reaped").exit, Exit::OutOfMemory);
    most / PAGE
}

/// What is kept of its output.
fn kept(runtime: &Runtime, id: &ContainerId) -> u64 {
    runtime.reap(id).expect("reaped");
    let log = runtime.log(id).expect("a log");
    [&log.older, &log.newer].map(|path| std::fs::metadata(path).map_or(0, |file| file.len())).iter().sum()
}

fn processes(runtime: &Runtime, id: &ContainerId) -> u64 {
    support::wait_until("there are no more to be had", || lines(runtime, id.as_str()).iter().any(|l| l.text == "full"));
    runtime.usage(id).expect("used").processes
}

const BOUNDS: [Bound; 8] = [
    Bound {
        words: &["forks"],
        set: |spec, bound| spec.limits.processes = bound,
        taken: processes,
        bounds: [10, 30],
        unit: 1,
    },
    Bound {
        words: &["memory"],
        set: |spec, bound| spec.limits.memory_bytes = bound,
        taken: peak,
        bounds: [24 * MIB, 72 * MIB],
        unit: PAGE,
    },
    Bound {
        words: &["shared_memory"],
        set: |spec, bound| spec.limits.memory_bytes = bound,
        taken: peak,
        bounds: [24 * MIB, 72 * MIB],
        unit: PAGE,
    },
    Bound {
        words: &["disk", "/"],
        set: |spec, bound| spec.limits.scratch_bytes = bound,
        taken: told,
        bounds: [2 * MIB, 8 * MIB],
        unit: 1,
    },
    Bound {
        words: &["disk", "/dev/shm"],
        set: |spec, bound| spec.limits.scratch_bytes = bound,
        taken: told,
        bounds: [2 * MIB, 8 * MIB],
        unit: 1,
    },
    Bound {
        words: &["files"],
        set: |spec, bound| spec.limits.scratch_bytes = bound,
        taken: told,
        bounds: [2 * MIB, 8 * MIB],
        unit: PAGE,
    },
    Bound {
        words: &["log", "1024"],
        set: |spec, bound| spec.limits.log_bytes = bound,
        taken: kept,
        bounds: [64 << 10, 512 << 10],
        unit: 1,
    },
    Bound {
        words: &["descriptors"],
        set: |spec, bound| spec.limits.open_files = bound,
        taken: told,
        bounds: [100, 400],
        unit: 1,
    },
];

/// The control of those whose bound is a number: with the bound moved, the same program takes more than the bound was, and no more than it is.
#[test]
fn bombs_are_bounded_by_their_bounds() {
    let Some(place) = support::place() else { return };
    support::put(&place.image().join("bin/escape"), ESCAPE);
    let runtime = place.start();
    for Bound { words, set, taken, bounds, unit } in BOUNDS {
        let took = bounds.map(|bound| {
            let mut bounded = spec(&place, "bomb", words);
            set(&mut bounded, bound);
            runtime.launch(&bounded).expect("launched");
            let took = taken(&runtime, &bounded.id);
            stop(&runtime, &bounded.id);
            took
        });
        println!("{words:?}: {took:?} of {bounds:?}");
        let near = |(took, bound): (u64, u64)| (bound / unit / 2..=bound / unit + 64).contains(&took);
        assert!(took.into_iter().zip(bounds).all(near), "{words:?}: {took:?}, where {bounds:?} are the bounds");
        assert!(took[1] > bounds[0] / unit, "{words:?}: {took:?}");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// How many a bomb gets of what the machine's own bounds let it, without these protections, and whether the node is well meanwhile.
fn without(protections: &[Weaken], words: &[&str]) -> Option<(u64, Result<(), String>)> {
    let place = support::place()?;
    support::put(&place.image().join("bin/escape"), ESCAPE);
    let names: Vec<&str> = protections.iter().map(|weaken| weaken.name()).collect();
    let args = if names.is_empty() { Vec::new() } else { [&["weakened"], &names[..]].concat() };
    let runtime = place.start_with_launcher(&args);
    let mut bomb = spec(&place, "bomb", words);
    bomb.limits.open_files = 600;
    runtime.launch(&bomb).expect("launched");
    support::wait_until("it has all it gets", || lines(&runtime, "bomb").iter().any(|line| line.text == "full"));
    let got = told(&runtime, &bomb.id);
    let node = node_is_well(place.image().as_path());
    stop(&runtime, &bomb.id);
    runtime.shutdown().expect("shut down");
    place.assert_clean();
    Some((got, node))
}

/// The control of those that no number bounds: the share of terminals that a container's own file system of them has, and the share of watchers that its
/// root has, who without a user namespace would be the machine's.
#[test]
fn terminals_and_watchers_are_bounded_by_what_makes_them_the_containers_own() {
    let Some((terminals, Ok(()))) = without(&[], &["terminals"]) else { return };
    assert_eq!(terminals, 256);
    let more = without(&[Weaken::Terminals], &["terminals"]).map(|(got, _)| got);
    assert!(more > Some(terminals), "{more:?} terminals without a bound");
    assert!(matches!(without(&[], &["watchers"]), Some((1.., Ok(())))), "the node's own are its own");
    if !crate::world::in_machine() {
        return println!("watchers: their control runs in a virtual machine only");
    }
    let harmed = without(&[Weaken::UserNamespace], &["watchers"]);
    assert!(matches!(harmed, Some((1.., Err(_)))), "{harmed:?}");
}
