//! The runtime's tests on another kernel: Debian 12's, with cgroup v2 and nothing of v1, in a machine in software. Function only, never speed.
//!
//! To add a test binary, add its name to [`SUITES`]. Inside, [`INSIDE`] is set: tries that could harm the machine they run on ask for it, and patience is
//! longer, as system calls take ten times as long.

mod built;

use std::path::PathBuf;
use std::time::Duration;

use bellows_vm::{Guest, PackError, Ran};
use built::{Built, built};

/// Integration tests of `bellows-runtime` that run inside, one after the other.
const SUITES: [&str; 6] = ["containers", "execute", "hierarchy", "limits", "shortages", "escape"];

/// Tells tests where they are.
const INSIDE: &str = "BELLOWS_IN_VM=1";

/// All suites together. They take two minutes where the machine has nothing else to do.
const LIMIT: Duration = Duration::from_secs(560);

/// Programs that tests use where they are installed.
const TOOLS: [&str; 2] = ["/usr/sbin/nft", "/usr/sbin/ip"];

#[test]
fn the_runtimes_tests_pass_with_cgroup_v2_on_an_older_kernel() {
    let built = built(&SUITES);
    let suites: Vec<&Built> = built.iter().filter(|one| SUITES.contains(&one.name.as_str())).collect();
    assert_eq!(suites.len(), SUITES.len(), "cargo builds every suite: {built:?}");
    let packed = Guest::new().and_then(|guest| {
        let tools = TOOLS.into_iter().map(PathBuf::from).filter(|tool| tool.exists());
        built.iter().map(|one| one.executable.clone()).chain(tools).try_fold(guest, |guest, path| guest.program(&path))
    });
    let guest = match packed {
        Ok(guest) => guest,
        Err(PackError::Missing(missing)) => {
            println!("skipped: {missing}");
            return;
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let ran = guest.run(&script(&suites), LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let console = ran.said.console.join("\n");
    println!("{console}");
    for suite in &suites {
        assert!(console.contains(&format!("suite {}: 0\n", suite.name)), "{} failed:\n{console}", suite.name);
    }
    let skipped: Vec<&String> = ran.said.console.iter().filter(|line| line.contains("skipped:")).collect();
    println!("{skipped:#?}\nall of it took {} s", ran.said.after.as_secs());
    assert_eq!(ran.code, 0, "the script itself");
}

fn script(suites: &[&Built]) -> String {
    let run = |suite: &&Built| {
        let (name, path) = (&suite.name, suite.executable.display());
        format!("{path} --test-threads=1 --nocapture 2>&1\necho \"suite {name}: $?\"\n")
    };
    format!("export {INSIDE}\n{}", suites.iter().map(run).collect::<String>())
}

/// Shown to be a real run: a script that fails says so.
#[test]
fn a_script_that_fails_is_told_by_its_code_and_finds_what_a_container_needs() {
    let guest = match Guest::new() {
        Ok(guest) => guest,
        Err(PackError::Missing(missing)) => return println!("skipped: {missing}"),
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    let script = "cat /proc/filesystems | tr '\\n' ' '; grep -c ' /tmp ext4 ' /proc/mounts; cat /sys/fs/cgroup/cgroup.controllers
        lsmod | grep -c -E '^(overlay|veth|nf_tables|tcp_diag) '; ls /sys/class/net; exit 7";
    let ran: Ran = guest.run(script, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let console = ran.said.console.join("\n");
    assert_eq!(ran.code, 7, "{console}");
    for found in ["overlay", "cpuset cpu io memory", "pids", "\n4\n", " lo"] {
        assert!(console.contains(found), "no {found:?} in {console}");
    }
    assert!(!console.contains("cannot load") && !console.contains("no disk"), "{console}");
}
