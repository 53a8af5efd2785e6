//! Taking as much as there is: each bomb is bounded in its own container, and while it is at its worst its neighbour and the node get what is theirs.

use std::path::Path;
use std::time::Instant;

use bellows_runtime::handle::{Error, Exit};
use bellows_runtime::launch::ESCAPE;
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

/// The control of all of them: with the bound raised, the same program takes more than the bound was.
#[test]
fn bombs_are_bounded_by_their_bounds() {
    let Some(place) = support::place() else { return };
    support::put(&place.image().join("bin/escape"), ESCAPE);
    let runtime = place.start();
    for (words, of_bound) in [(&["disk", "/"][..], 1), (&["files"], 4096)] {
        let took = [2 * MIB, 8 * MIB].map(|bound| {
            let mut bounded = spec(&place, "bomb", words);
            bounded.limits.scratch_bytes = bound;
            runtime.launch(&bounded).expect("launched");
            assert_eq!(runtime.reap(&bounded.id).expect("reaped").exit, Exit::Code(libc::ENOSPC), "{words:?}");
            let told = lines(&runtime, "bomb").first().and_then(|line| line.text.parse::<u64>().ok());
            runtime.forget(&bounded.id).expect("forgotten");
            told.expect("it tells how much it got")
        });
        let expected = [2 * MIB, 8 * MIB].map(|bound| bound / of_bound);
        let near = |(took, expected): (u64, u64)| (expected / 2..=expected + 64).contains(&took);
        assert!(took.into_iter().zip(expected).all(near), "{words:?}: {took:?}, where {expected:?} are the bounds");
    }
    let mut forks = spec(&place, "forks", &["forks"]);
    for processes in [10, 30] {
        forks.limits.processes = processes;
        runtime.launch(&forks).expect("launched");
        support::wait_until("there are no more to be had", || {
            runtime.usage(&forks.id).is_ok_and(|usage| usage.processes == processes)
        });
        runtime.kill(&forks.id).expect("killed");
        runtime.reap(&forks.id).expect("reaped");
        runtime.forget(&forks.id).expect("forgotten");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}
