//! Several hosts on this machine: made, hurt, healed and ended, with the real executable throughout.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::cli::text;
use super::support::events::Events;
use super::support::local::{self, Local};
use super::support::machine;
use super::*;

const HTTPD: &str = "[httpd, -f, -p, \"8080\", -h, /www]";

fn load_busybox(cli: &support::cli::Cli) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let layout = images::busybox(work.path());
    cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
}

/// Three hosts, and copies of a server on each, as many as on the others: whatever load the start of one is seen to make.
fn with_copies(copies: u32) -> Local {
    let local = Local::up(&["--agents", "3"]);
    load_busybox(&local.cli);
    let more = format!("replicas: {copies}\nports: [8080]\nspread: {{by: node, max_skew: 1, when_full: relax}}");
    local.cli.apply(&app("web", HTTPD, &more), &["--wait"]);
    local
}

fn on<'r>(replicas: &'r [Value], node: &'r str) -> impl Iterator<Item = &'r Value> {
    replicas.iter().filter(move |row| row["node"] == node)
}

/// Waits until exactly so many copies are alive and ready, in the eyes of the controller.
fn until_settled(local: &Local, what: &str, copies: usize) -> Vec<Value> {
    let mut events = Events::follow(&local.cli);
    events.until(what, PATIENCE, |_| {
        let replicas = local.cli.replicas("web");
        (replicas.len() == copies && ready(&replicas) == copies).then_some(replicas)
    })
}

#[test]
fn hosts_have_addresses_programs_and_replicas_of_their_own() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = with_copies(6);
    let replicas = local.cli.replicas("web");
    assert_eq!(distinct(&replicas, "node").len(), 3, "{replicas:#?}");
    for host in ["n1", "n2", "n3"] {
        let replica = on(&replicas, host).next().expect("each node has copies");
        let page = format!("http://{}/", address(replica, 8080));
        let answer = local.exec(host, &["busybox", "wget", "-q", "-O", "-", &page]);
        assert_eq!(text(&answer.stdout), "busybox serves\n", "{}", text(&answer.stderr));
    }
    assert_eq!(local.exec("n2", &["sh", "-c", "exit 7"]).status.code(), Some(7), "exit codes are the program's own");
    refusals(&local);
    local.down();
}

/// What is wrong is told, with what would be right.
fn refusals(local: &Local) {
    let name: &str = &local.name;
    let cases: [(&str, &[&str], i32, &str); 5] = [
        ("up", &[], 1, "bellows local down"),
        ("exec", &["n4", "--", "true"], 5, "did you mean n"),
        ("exec", &["n1", "--", "no-such-program"], 5, "no-such-program"),
        ("cut", &["n1", "n1"], 2, "itself"),
        ("slow", &["n1", "--rate", "fast"], 2, "1mbit"),
    ];
    for (verb, arguments, code, hint) in cases {
        let output = local::run(name, verb, arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{verb} {arguments:?}: {said}");
        assert!(said.contains(hint), "{verb} {arguments:?}: {said}");
    }
    let unknown = local::run("no-such", "status", &[]);
    assert_eq!(unknown.status.code(), Some(5), "{}", text(&unknown.stderr));
    let nobody = local::command(name, "status", &[]).uid(65534).gid(65534).output();
    // Where the tests were built nobody may be allowed to execute anything.
    if let Ok(nobody) = nobody {
        assert!(text(&nobody.stderr).contains("root"), "{}", text(&nobody.stderr));
    }
}

#[test]
fn a_cut_node_is_replaced_and_its_copies_end_when_it_is_back() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = with_copies(6);
    assert_eq!(local.replica_processes("n2").len(), 4, "two copies, each a program and its init");
    local.json("cut", &["n2", "m1"]);
    let mut events = Events::follow(&local.cli);
    events.until("six ready copies on the other nodes", PATIENCE, |_| {
        let replicas = local.cli.replicas("web");
        (replicas.iter().filter(|row| row["node"] != "n2" && row["ready"] == true).count() == 6).then_some(())
    });
    drop(events);
    let seen = local.host("n2");
    assert_eq!(
        (&seen["node"]["liveness"], &seen["cut"][0], &seen["alive"]),
        (&"down".into(), &"m1".into(), &true.into())
    );
    assert_eq!(local.replica_processes("n2").len(), 4, "who cannot be seen is not stopped");
    local.json("heal", &[]);
    let replicas = until_settled(&local, "the surplus has ended", 6);
    let elsewhere = on(&replicas, "n2").count();
    let processes: usize = ["n1", "n2", "n3"].iter().map(|host| local.replica_processes(host).len()).sum();
    assert_eq!(processes, 12, "no process is left of a copy that is none: {elsewhere} of {replicas:#?}");
    local.down();
}

#[test]
fn a_slow_and_lossy_link_delays_and_prevents_nothing() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = Local::up(&["--agents", "2"]);
    load_busybox(&local.cli);
    local.json("slow", &["n1", "--rate", "2mbit", "--loss", "5%"]);
    let seen = local.host("n1");
    assert_eq!((&seen["rate_bits"], &seen["loss_permille"]), (&2_000_000.into(), &50.into()));
    // The image, 2 MB, has to go through as well: at 2 Mbit/s that takes seconds.
    let began = Instant::now();
    local.cli.apply(&app("web", HTTPD, "replicas: 6\nports: [8080]\nmax_per_node: 3"), &["--wait"]);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1), "the link was not slow: {took:?}");
    let replicas = local.cli.replicas("web");
    assert_eq!((on(&replicas, "n1").count(), ready(&replicas)), (3, 6), "{replicas:#?}");
    local.json("heal", &["n1"]);
    assert_eq!(local.host("n1")["rate_bits"], Value::Null);
    local.down();
}

#[test]
fn after_kill_nine_an_agent_adopts_and_a_host_begins_anew() {
    let Some(_machine) = machine(&["busybox", "nft"]) else { return };
    let local = with_copies(6);
    let before = local.replica_processes("n1");
    assert_eq!(before.len(), 4, "{before:?}");
    let agent = local.host("n1")["pid"].clone();
    assert_eq!(local.json("kill", &["n1", "-9", "--what", "agent"])["killed"], 1);
    assert_eq!((&local.host("n1")["alive"], local.replica_processes("n1")), (&false.into(), before.clone()));
    assert_ne!(local.json("restart", &["n1"])["pid"], agent);
    until_settled(&local, "six copies as before", 6);
    assert_eq!(local.replica_processes("n1"), before, "the same processes");
    // As if the power had failed.
    assert!(local.json("kill", &["n3", "-9"])["killed"].as_u64() > Some(4));
    assert_eq!(local.host("n3")["processes"], 0);
    local.json("kill", &["m1", "-9"]);
    local.json("restart", &["m1"]);
    local.json("restart", &["n3"]);
    let replicas = until_settled(&local, "six copies again", 6);
    assert_eq!(distinct(&replicas, "id").len(), 6);
    let after = local.replica_processes("n1");
    // It may have taken copies of n3 over.
    assert!(before.is_subset(&after), "they have outlived the controller, too: {before:?}, {after:?}");
    local.down();
}

/// A moment in the life of `up`: what of the cluster there is.
type Moment = (&'static str, fn(&Census) -> bool);

const MOMENTS: [Moment; 4] = [
    ("a cgroup", |census| !census.cgroups.is_empty()),
    ("the link to this machine", |census| !census.links.is_empty()),
    ("a controller", |census| census.processes.iter().any(|process| process.contains(" controller "))),
    ("an agent", |census| census.processes.iter().any(|process| process.contains(" agent "))),
];

/// Begins, and returns when the moment has come.
fn up_until(name: &str, (what, has_come): Moment) -> Child {
    let child = local::command(name, "up", &["--agents", "2"]).spawn().expect("the executable was built");
    let end = Instant::now() + PATIENCE;
    while !has_come(&Census::of_local(name)) {
        assert!(Instant::now() < end, "`up` never had {what}");
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().expect("process ids are small")), signal).expect("it is our child");
}

/// Everything that is remembered is lost, from one moment to the next: nobody can remove a folder that is still written to.
fn lose_folder(name: &str) -> PathBuf {
    let lost = Path::new("/var/lib/bellows").join(format!("lost-{name}"));
    std::fs::rename(Path::new("/var/lib/bellows/local").join(name), &lost).expect("it was made");
    lost
}

#[test]
fn whenever_the_tool_is_killed_down_leaves_nothing() {
    let Some(_machine) = machine(&["nft"]) else { return };
    for moment in MOMENTS {
        let name = local::Name::fresh();
        let mut up = up_until(&name, moment);
        signal(&up, Signal::SIGKILL);
        up.wait().expect("it is our child");
        let lost = (moment.0 == "an agent").then(|| lose_folder(&name));
        let down = local::run(&name, "down", &[]);
        assert!(down.status.success(), "killed at {}: {}", moment.0, text(&down.stderr));
        lost.map(std::fs::remove_dir_all).transpose().expect("nobody writes to it any more");
        let left = Census::of_local(&name);
        assert!(left.is_empty(), "killed at {}, left behind: {left:#?}", moment.0);
        assert_eq!(local::run(&name, "down", &[]).status.code(), Some(5), "there is nothing more to end");
    }
}

#[test]
fn an_interrupted_up_removes_what_it_made() {
    let Some(_machine) = machine(&["nft"]) else { return };
    let mut interrupted = 0;
    // All of it takes a few hundred milliseconds: some of these moments are before it listens for signals, some behind its end.
    for moment_ms in (10..400).step_by(10) {
        let name = local::Name::fresh();
        let up = local::command(&name, "up", &["--agents", "2"]).stderr(std::process::Stdio::piped()).spawn();
        let up = up.expect("the executable was built");
        std::thread::park_timeout(Duration::from_millis(moment_ms));
        signal(&up, Signal::SIGINT);
        let output = up.wait_with_output().expect("it is our child");
        if output.status.code() == Some(1) {
            let left = Census::of_local(&name);
            assert!(left.is_empty(), "left behind after {moment_ms} ms: {left:#?}");
            interrupted += 1;
            if interrupted == 5 {
                return;
            }
        } else if output.status.success() {
            assert!(local::run(&name, "down", &[]).status.success(), "it was up");
        }
    }
    assert!(interrupted > 0, "`up` was always done before it was interrupted, or had not begun");
}

#[test]
fn two_clusters_side_by_side_share_nothing() {
    let Some(_machine) = machine(&["nft"]) else { return };
    let starts: Vec<_> = (0..2).map(|_| std::thread::spawn(|| Local::up(&["--agents", "1"]))).collect();
    let clusters: Vec<Local> = starts.into_iter().map(|start| start.join().expect("both come up")).collect();
    let ranges: BTreeSet<String> = clusters.iter().map(|local| local.up["range"].to_string()).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let [first, second]: [Local; 2] = clusters.try_into().expect("two were started");
    first.json("cut", &["n1"]);
    assert_eq!(second.cli.rows(&["nodes"]).len(), 1);
    first.down();
    assert_eq!(second.host("n1")["alive"], true);
    second.down();
}

#[test]
fn of_two_with_one_name_one_comes_up_and_stays() {
    let Some(_machine) = machine(&["nft"]) else { return };
    let name = local::Name::fresh();
    let start = || local::command(&name, "up", &["--agents", "1"]).spawn().expect("the executable was built");
    let ups = [start(), start()].map(|up| up.wait_with_output().expect("it is our child"));
    let mut codes = ups.each_ref().map(|up| up.status.code());
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1)]);
    let refused = ups.iter().find(|up| !up.status.success()).expect("one is refused");
    assert!(text(&refused.stderr).contains("already"), "{}", text(&refused.stderr));
    let status: Value = serde_json::from_slice(&local::run(&name, "status", &[]).stdout).expect("a list of hosts");
    assert_eq!((&status[0]["alive"], &status[1]["alive"]), (&true.into(), &true.into()), "{status}");
    assert!(local::run(&name, "down", &[]).status.success());
    assert!(Census::of_local(&name).is_empty());
}
