//! What is known stays known: reasons outlive the controller, and a node is told from its clone, its past and its successor.

use std::path::Path;

use super::support::census::tag;
use super::support::cli::{Cli, text};
use super::support::copies::{Program, kill_nine};
use super::support::events::Events;
use super::support::machine;
use super::support::parts::{Part, Parts};
use super::*;

fn with_busybox_on(agents: u8) -> Parts {
    let parts = Parts::start(agents);
    let layout = images::busybox(parts.state());
    parts.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
    parts
}

/// Waits until all that is listed is ready, so many copies, on nodes that are all up.
fn settled(cli: &Cli, app: &str, copies: usize) -> Vec<Value> {
    Events::follow(cli).until(&format!("{copies} ready copies of {app}"), PATIENCE, |_| {
        let rows = cli.replicas(app);
        let up = cli.rows(&["nodes"]).iter().all(|node| node["ready"] == true);
        (up && rows.len() == copies && ready(&rows) == copies).then_some(rows)
    })
}

/// The answers to `bellows explain`, by their questions.
fn explained(cli: &Cli, subject: &str) -> std::collections::BTreeMap<String, Value> {
    let document = cli.json(&["explain", subject]);
    let answers = document["explanations"].as_array().expect("a list").clone();
    answers.into_iter().map(|answer| (field(&answer, "question"), answer)).collect()
}

/// The one answer about a copy.
fn one(cli: &Cli, id: &str) -> (String, String, Vec<Value>) {
    let answers = explained(cli, id);
    let (question, answer) = answers.into_iter().next().expect("an answer");
    (question, field(&answer, "answer"), answer["facts"].as_array().expect("a list").clone())
}

/// An id of an ended copy of this app.
fn ended(cli: &Cli, app: &str) -> String {
    Events::follow(cli).until(&format!("an ended copy of {app}"), PATIENCE, |_| {
        let rows = cli.rows(&["replicas", app, "--ended"]);
        rows.iter().find(|row| row["state"] == "ended").map(|row| field(row, "id"))
    })
}

/// What must be the same whoever is asked: of counts the answer, of copies everything, of what found no place the facts.
fn remembered(cli: &Cli, ids: &[String]) -> Vec<String> {
    let mut told: Vec<String> = ids.iter().map(|id| format!("{:?}", one(cli, id))).collect();
    for app in ["web", "picky", "eater", "crasher"] {
        for (question, answer) in explained(cli, app) {
            match question.split(' ').take(2).collect::<Vec<_>>()[..] {
                ["Why", "no"] => told.push(format!("{question} {}", answer["facts"])),
                ["Why", _] => told.push(format!("{question} {}", answer["answer"])),
                ["Which", _] => told.push(format!("{question} {}", answer["facts"])),
                _ => {}
            }
        }
    }
    told
}

#[test]
fn explanations_outlive_a_killed_controller() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = with_busybox_on(2);
    let cli = parts.cli.clone();
    cli.apply(&sleeper("web", 2), &["--wait"]);
    cli.json(&["scale", "web", "4", "--wait"]);
    cli.json(&["scale", "web", "3", "--wait"]);
    cli.apply(&app("picky", "[sleep, \"100000\"]", "replicas: 1\nconstraints: [{label: zone, in: [nowhere]}]"), &[]);
    cli.apply(&app("crasher", "[sh, -c, \"exit 7\"]", "replicas: 1"), &[]);
    let eater = "[sh, -c, \"x=$(dd if=/dev/zero bs=1M count=64 | tr '\\\\0' x); sleep 1000\"]";
    cli.apply(&app("eater", eater, "replicas: 1").replace("cpu: 20m", "cpu: 300m"), &[]);
    let living = field(&settled(&cli, "web", 3)[0], "id");
    let ids = [living.clone(), ended(&cli, "web"), ended(&cli, "crasher"), ended(&cli, "eater")];
    // No further attempts, which would be news.
    cli.json(&["scale", "crasher", "0", "--wait"]);
    cli.json(&["scale", "eater", "0", "--wait"]);
    let before = remembered(&cli, &ids);
    let all = before.join("\n");
    for said in
        ["scaled from 4 to 3", "it was never ready|it has been idle", "exit code 7", "memory", "--label zone=nowhere"]
    {
        assert!(said.split('|').any(|said| all.contains(said)), "{said}: {all}");
    }
    let (_, placed, _) = one(&cli, &living);
    assert!(placed.contains("had load") && placed.contains("ago"), "the load seen and its age: {placed}");
    assert!(placed.contains("next best"), "the runner-up: {placed}");

    parts.controller.kill();
    parts.controller.restart();
    parts.controller.await_line();
    settled(&cli, "web", 3);
    let mut events = Events::follow(&cli);
    let after = events.until("the same answers", PATIENCE, |_| {
        let after = remembered(&cli, &ids);
        (after == before).then_some(after)
    });
    drop(events);
    assert_eq!(after, before);
    for app in ["web", "picky", "crasher", "eater"] {
        cli.json(&["rm", app, "--wait"]);
    }
    parts.end();
}

/// Exit code 1, with words that name the trouble and the way out.
fn refused(part: &mut Part, words: &[&str]) {
    assert_eq!(part.code(), Some(1), "{}", part.complaints());
    let said = part.complaints();
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_drain_waits_for_busy_copies_until_its_deadline() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let parts = with_busybox_on(2);
    let cli = parts.cli.clone();
    // With a limit far above what counts as idle.
    let burner = app("burner", "[sh, -c, \"while :; do :; done\"]", "replicas: 2\ndrain_deadline: 15s");
    cli.apply(&burner.replace("cpu: 20m", "cpu: 100m"), &["--wait"]);
    cli.apply(&sleeper("web", 4), &["--wait"]);
    let mut events = Events::follow(&cli);
    events.until("busy copies on both nodes", PATIENCE, |_| {
        let rows = cli.replicas("burner");
        let busy = rows.iter().all(|row| row["activity"].to_string().contains("busy"));
        (busy && distinct(&rows, "node").len() == 2).then_some(())
    });
    cli.json(&["drain", "node-1", "--deadline", "4s", "--wait"]);
    let told = events.until("the end at the deadline", PATIENCE, |told| {
        let late = |event: &&Value| event["reason"]["code"] == "drain_deadline" && event["app"] == "burner";
        told.iter().any(|event| late(&event)).then(|| told.to_vec())
    });
    let of = |app: &str, kind: &str| {
        let of_app = |event: &&Value| event["app"] == app && event["kind"] == kind && event["node"] == "node-1";
        told.iter().filter(of_app).filter_map(|event| event["at_unix_ms"].as_u64()).collect::<Vec<_>>()
    };
    let (idle, busy) = (of("web", "ended"), of("burner", "stopping"));
    assert!(idle.iter().max() < busy.iter().min(), "idle copies go first: {idle:?} {busy:?}");
    assert!(cli.replicas("burner").iter().chain(&cli.replicas("web")).all(|row| row["node"] == "node-2"));
    let (_, stands, facts) = one(&cli, "node-1");
    assert!(stands.contains("draining") && format!("{facts:?}").contains("no copies are left"), "{stands} {facts:?}");
    drop(events);
    for app in ["web", "burner"] {
        cli.json(&["rm", app, "--wait"]);
    }
    parts.end();
}

#[test]
fn a_node_leaves_for_good_and_returns_as_another() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = with_busybox_on(2);
    let cli = parts.cli.clone();
    cli.apply(&sleeper("web", 4), &["--wait"]);
    let on_first =
        field(cli.replicas("web").iter().find(|row| row["node"] == "node-1").expect("spread over both"), "id");
    assert_eq!(cli.json(&["node", "rm", "node-1"])["id"], "n1");
    // Its copies are told to end, and run elsewhere; its agent says why it cannot go on.
    refused(&mut parts.agents[0], &["was removed from this cluster", "`identity`", "--token"]);
    let rows = settled(&cli, "web", 4);
    assert_eq!(distinct(&rows, "node"), ["node-2".to_owned()].into());
    Events::follow(&cli).until("4 processes", PATIENCE, |_| (parts.copies().programs.len() == 4).then_some(()));
    let (question, why, _) = one(&cli, &on_first);
    assert!(question.contains("end?") && why.contains("node-1 was removed"), "{question} {why}");
    // With its old certificate it is refused each time.
    let log = parts.state().join("log-again");
    let mut again = parts.agents[0].like("node-1 again", &log, &[]);
    refused(&mut again, &["was removed from this cluster"]);
    // As a new server it is a new node.
    std::fs::remove_dir_all(parts.state().join("node-1/identity")).expect("it had one");
    let token = field(&cli.json(&["token"]), "token");
    parts.agents[0] = parts.agents[0].like("node-1", &log, &[("--token", &token)]);
    assert_eq!(parts.agents[0].await_line()["id"], "n3");
    parts.until_ready(2);
    cli.json(&["scale", "web", "8", "--wait"]);
    assert_eq!(distinct(&cli.replicas("web"), "node").len(), 2);
    cli.json(&["rm", "web", "--wait"]);
    parts.end();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file");
    }
}

#[test]
fn the_clone_of_a_node_is_refused_and_its_restart_is_not() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = with_busybox_on(1);
    let cli = parts.cli.clone();
    cli.apply(&sleeper("web", 3), &["--wait"]);
    let before = distinct(&cli.replicas("web"), "id");
    let folder = parts.state().join("clone");
    copy_folder(&parts.state().join("node-1/identity"), &folder.join("identity"));
    let state = folder.to_str().expect("temporary paths are text").to_owned();
    let cgroup = format!("bellows-{}-clone", tag(parts.state()));
    // All that one machine has once.
    let changed = [
        ("--state", state.as_str()),
        ("--subnet", "10.254.240.0/20"),
        ("--cgroup", cgroup.as_str()),
        ("--ingress", "127.0.0.99"),
        ("--links", "127.0.0.99:7499"),
    ];
    let mut clone = parts.agents[0].like("clone", &parts.state().join("log-clone"), &changed);
    refused(&mut clone, &["cloned disk", "`identity`", "--token"]);
    drop(clone);
    settled(&cli, "web", 3);
    // The agent itself may crash and come back as often as it likes.
    for _ in 0..3 {
        parts.agents[0].kill();
        parts.agents[0].restart();
        parts.agents[0].await_line();
        settled(&cli, "web", 3);
    }
    assert_eq!(distinct(&cli.replicas("web"), "id"), before);
    cli.json(&["rm", "web", "--wait"]);
    parts.end();
}

#[test]
fn after_a_reboot_copies_are_known_to_be_gone() {
    let Some(_machine) = machine(&["busybox", "unshare"]) else { return };
    let mut parts = with_busybox_on(2);
    let cli = parts.cli.clone();
    cli.apply(&sleeper("web", 4), &["--wait"]);
    let lost = cli.replicas("web").into_iter().filter(|row| row["node"] == "node-1").map(|row| field(&row, "id"));
    let lost: Vec<String> = lost.collect();
    assert!(!lost.is_empty(), "copies are spread over both nodes");
    // Nothing of it survives, as after a loss of power ...
    parts.agents[0].kill();
    let (copies, of_node) = (parts.copies(), |program: &&Program| lost.contains(&program.replica));
    let inits: Vec<u32> = copies.programs.iter().filter(of_node).map(|program| program.init).collect();
    copies.inits.iter().filter(|init| inits.contains(&init.pid)).copied().for_each(kill_nine);
    // ... and the server says that it is another boot.
    let boot = parts.state().join("boot_id");
    std::fs::write(&boot, "6b8e0cb9-5c3f-4f0c-9f5e-0123456789ab\n").expect("writable");
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"", boot.display());
    parts.agents[0].restart_through(&["unshare", "--mount", "sh", "-c", &script]);
    parts.agents[0].await_line();
    let rows = settled(&cli, "web", 4);
    assert!(rows.iter().all(|row| !lost.contains(&field(row, "id"))), "others took their places: {rows:#?}");
    for id in &lost {
        let (question, why, _) = one(&cli, id);
        assert!(question.contains("end?") && why.contains("restarted"), "{question} {why}");
    }
    let log = text(&cli.run(&["events"]).stdout);
    assert!(log.contains("host_rebooted"), "{log}");
    cli.json(&["rm", "web", "--wait"]);
    parts.end();
}
