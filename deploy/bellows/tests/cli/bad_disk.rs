//! Full disks: what was under way is undone and told with the path and the way out, what was acknowledged stays, and with room it goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::image_support::{Blobs, Layer, Stored};
use crate::run::{Outcome, command, outcome};
use crate::serve::{self, Disk, PATIENCE, Serving, check, controller, root};

const MIB: u64 = 1 << 20;

/// Bytes that do not get smaller.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut draw = seed;
    std::iter::repeat_with(move || {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 56) as u8
    })
}

/// An image of 2 MiB.
fn image(folder: &Path) -> PathBuf {
    let content: Vec<u8> = noise(1).take(2 * MIB as usize).collect();
    let layout = folder.join("layout");
    let layers = [Layer::default().file("app", &content).finish()];
    Blobs::new(&layers, Stored::Gzip).write_layout(&layout, "1").expect("a temporary folder");
    layout
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn load(controller: &Serving, layout: &Path, temporary: &Path) -> Outcome {
    let mut load = controller.command(&["image", "load", layout.to_str().expect("UTF-8"), "--name", "web"]);
    load.env("TMPDIR", temporary);
    outcome(load)
}

#[test]
fn while_an_image_is_loaded() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let layout = image(home.path());
    let ours = Disk::mount(home.path().join("ours"), 8 * MIB);
    let theirs = Disk::mount(home.path().join("theirs"), 8 * MIB);
    let store = theirs.0.join("store");
    let more = ["--store", store.to_str().expect("UTF-8")];
    let controller = controller(&home.path().join("state"), &more).expect("it serves");
    let images = || controller.run(&["image", "ls", "-o", "json"]).json();

    let full = ours.fill(MIB);
    let refused = load(&controller, &layout, &ours.0);
    check(
        &refused,
        1,
        &["was not loaded", "No space left on device", "make room on that disk", "mend: $TMPDIR names another place"],
    );
    assert_eq!(names(&ours.0).len(), 1, "nothing is left behind");
    full.free();

    let full = theirs.fill(MIB);
    let refused = load(&controller, &layout, &ours.0);
    check(
        &refused,
        1,
        &[store.to_str().expect("UTF-8"), "No space left on device", "make room on the controller's disk"],
    );
    assert_eq!(images().as_array().map(Vec::len), Some(0), "no image in part");
    assert_eq!(names(&store.join("tmp")), [""; 0], "its room is given back");
    assert_eq!(names(&ours.0), [""; 0], "nothing is left behind");
    full.free();

    let loaded = load(&controller, &layout, &ours.0);
    assert_eq!(loaded.code, 0, "with room it goes on: {loaded:?}");
    assert_eq!(images().as_array().map(Vec::len), Some(1));
    controller.end();
}

/// An app whose declaration takes room: 200 KiB.
fn large(number: u64) -> String {
    let letters: String = noise(number).take(200 << 10).map(|byte| char::from(b'0' + byte % 64)).collect();
    format!("name: web\nimage: web\nenv: {{A: '{}'}}\n", letters.replace('\'', "x"))
}

fn generation(controller: &Serving) -> u64 {
    let apps = controller.run(&["apps", "-o", "json"]).json();
    apps[0]["generation"].as_u64().unwrap_or_else(|| panic!("no generation in {apps}"))
}

#[test]
fn while_the_log_is_written() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::mount(home.path().join("disk"), 64 * MIB);
    let (state, layout) = (disk.0.join("state"), image(home.path()));
    let store = home.path().join("store");
    let more = ["--store", store.to_str().expect("UTF-8")];
    let first = controller(&state, &more).expect("it serves");
    assert_eq!(load(&first, &layout, home.path()).code, 0);
    let file = home.path().join("app.yaml");
    let apply = |number| {
        fs::write(&file, large(number)).expect("a temporary file");
        first.run(&["apply", "-f", file.to_str().expect("UTF-8"), "-o", "json"])
    };
    let generation_of = |done: &Outcome| done.json()[0]["generation"].as_u64().unwrap_or_else(|| panic!("{done:?}"));
    let mut acknowledged = generation_of(&apply(0));
    let full = disk.fill(MIB);
    let refused = (1..300).find_map(|number| {
        let done = apply(number);
        match done.code {
            0 => acknowledged = generation_of(&done),
            _ => return Some(done),
        }
        None
    });
    let refused = refused.expect("a disk has an end");
    assert!([1, 3].contains(&refused.code), "not acknowledged: {refused:?}");
    let ended = first.ended();
    let path = state.join("raft");
    check(&ended, 1, &[path.to_str().expect("UTF-8"), "make room", "nothing acknowledged is lost"]);

    let rest = disk.fill(0);
    let again = match controller(&state, &more) {
        Ok(up) => panic!("it serves on a full disk: {}", up.first),
        Err(again) => again,
    };
    check(&again, 1, &[state.to_str().expect("UTF-8"), "make room"]);
    full.free();
    rest.free();
    let mended = controller(&state, &more).expect("with room it goes on");
    let found = generation(&mended);
    assert!((acknowledged..=acknowledged + 1).contains(&found), "{acknowledged} were acknowledged, {found} are there");
    let done = mended.run(&["scale", "web", "7", "-o", "json"]);
    assert_eq!((done.code, done.json()["generation"].as_u64()), (0, Some(found + 1)));
    mended.end();
}

/// An image with busybox and nothing else.
fn busybox(folder: &Path) -> Option<PathBuf> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.is_file());
    let Some(path) = path else {
        println!("skipped: busybox is not installed");
        return None;
    };
    let program = fs::read(path).expect("a program");
    let mut files = bellows_runtime::image::build::executable_with_libraries(path).expect("busybox is an executable");
    files.remove(0);
    if !files.is_empty() {
        println!("skipped: {} is not static", path.display());
        return None;
    }
    let layer = Layer::default().folder("bin", 0o755);
    let mut layer = layer.raw(b"bin/busybox", b'0', 0o755, b"", program.len() as u64, &program);
    layer = layer.symlink("bin/sleep", "busybox");
    let layout = folder.join("layout");
    Blobs::new(&[layer.finish()], Stored::Gzip).write_layout(&layout, "1").expect("a temporary folder");
    Some(layout)
}

fn agent(controller: &Serving, state: &Path, store: &Path) -> Command {
    let mut agent = command(Path::new("/nonexistent"), &["agent", "-o", "json", "--name", "bad-disk", "--state"]);
    agent.arg(state).arg("--store").arg(store);
    agent.args(["--controller", controller.named("controller").trim_start_matches("https://")]);
    agent.args(["--token", &controller.named("token"), "--subnet", "10.194.0.0/24", "--uid-base", "1610612736"]);
    agent.args(["--cpu", "2", "--memory", "1Gi"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    agent
}

/// Asks until the answer is the one that is waited for.
fn until<T>(what: &str, controller: &Serving, words: &[&str], wanted: impl Fn(&Value) -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        let answer = controller.run(&[words, &["-o", "json"]].concat());
        assert_eq!(answer.code, 0, "{what}: {answer:?}");
        if let Some(found) = wanted(&answer.json()) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {answer:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The reason of an order that ended.
fn ended(controller: &Serving) -> String {
    until("an order that ended with its reason", controller, &["replicas", "web", "--ended"], |replicas| {
        let ended = replicas.as_array()?.iter().find(|replica| !replica["ended"].is_null())?;
        Some(ended.to_string())
    })
}

fn full_disk(why: &str, folder: &Path) {
    let folder = folder.to_str().expect("a temporary path is UTF-8");
    assert!(why.contains("No space left on device") && why.contains(folder) && why.contains("make room"), "{why}");
}

#[test]
fn while_a_copy_is_launched() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let Some(layout) = busybox(home.path()) else { return };
    let disk = Disk::mount(home.path().join("disk"), 16 * MIB);
    let images = Disk::mount(home.path().join("images"), 16 * MIB);
    let controller = controller(&home.path().join("controller"), &[]).expect("it serves");
    assert_eq!(load(&controller, &layout, home.path()).code, 0);
    let (state, store) = (disk.0.join("agent"), images.0.join("store"));
    let agent = serve::start(agent(&controller, &state, &store)).expect("it joins");
    let file = home.path().join("app.yaml");
    let yaml =
        "name: web\nimage: web\ncommand: [/bin/sleep, '10000']\nresources: {cpu: 20m, memory: 16Mi}\nstop_grace: 0s\n";
    fs::write(&file, yaml).expect("a temporary file");

    let full = images.fill(0);
    let applied = controller.run(&["apply", "-f", file.to_str().expect("UTF-8")]);
    assert_eq!(applied.code, 0, "a wish is no promise of room: {applied:?}");
    full_disk(&ended(&controller), &store);
    assert_eq!(names(&store.join("tmp")), [""; 0], "nothing half-done");
    full.free();
    let waited = controller.run(&["scale", "web", "1", "--wait", "--timeout", "300s"]);
    assert_eq!(waited.code, 0, "with room it goes on: {waited:?} {}", agent.said());

    let full = disk.fill(0);
    assert_eq!(controller.run(&["scale", "web", "2"]).code, 0, "a wish is no promise of room");
    until("another order that ended with its reason", &controller, &["replicas", "web", "--ended"], |replicas| {
        let told = replicas.as_array()?.iter().map(ToString::to_string);
        told.filter(|told| told.contains(state.to_str().expect("UTF-8"))).map(|why| full_disk(&why, &state)).next()
    });
    until("the old copy runs on", &controller, &["replicas", "web"], |replicas| {
        replicas.as_array()?.iter().any(|replica| replica["ready"] == true).then_some(())
    });
    until("the agent lives", &controller, &["nodes"], |nodes| (nodes[0]["liveness"] == "up").then_some(()));
    full.free();
    let waited = controller.run(&["scale", "web", "3", "--wait", "--timeout", "300s"]);
    assert_eq!(waited.code, 0, "with room it goes on: {waited:?} {}", agent.said());
    assert_eq!(controller.run(&["rm", "web", "--wait", "--timeout", "60s"]).code, 0);
    assert_eq!(agent.end().code, 0);
    controller.end();
}
