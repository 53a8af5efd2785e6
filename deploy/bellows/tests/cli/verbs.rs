//! Every verb's happy path: what people see, what programs get.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bellows_proto::operator::{App, Event, Node, Replica, StatusResponse, node::Liveness};
use bellows_proto::types::{Activity, Ended, Fence, Lifecycle, Reason, ReplicaId, Resources, ended::Exit};
use bellows_runtime::image::{Store, build};

use crate::fake::Fake;
use crate::run::{bellows_with, command};

pub fn reason(code: &str, text: &str) -> Reason {
    Reason { code: code.to_owned(), text: text.to_owned() }
}

pub fn some_apps() -> Vec<App> {
    let web = App {
        id: 1,
        tenant: "default".to_owned(),
        name: "web".to_owned(),
        image: "web:1.2".to_owned(),
        generation: 7,
        revision: 2,
        wanted: 5,
        ready: 3,
        starting: 1,
        unplaced: 1,
        policy: "1 to 20, CPU at 60%".to_owned(),
        reason: Some(reason("no_room", "no node has 250m of CPU left")),
        ..App::default()
    };
    let sleep = App {
        id: 2,
        name: "sleep".to_owned(),
        image: "busybox".to_owned(),
        wanted: 3,
        ready: 3,
        starting: 0,
        unplaced: 0,
        policy: String::new(),
        reason: None,
        ..web.clone()
    };
    let other = App { id: 3, tenant: "acme".to_owned(), name: "shop".to_owned(), removing: true, ..sleep.clone() };
    vec![web, sleep, other]
}

pub fn id(counter: u64) -> Option<ReplicaId> {
    Some(ReplicaId { fence: Some(Fence { incarnation: 1, term: 2 }), counter })
}

pub fn some_replicas() -> Vec<Replica> {
    let busy = Replica {
        id: id(57),
        tenant: "default".to_owned(),
        app: "web".to_owned(),
        revision: 2,
        node: "n1".to_owned(),
        lifecycle: Lifecycle::Running.into(),
        ready: true,
        activity: Some(Activity { busy: true, requests: 3, idle_ms: 0 }),
        address: "10.1.0.5".to_owned(),
        attempt: 1,
        running_ms: 192_000,
        used: Some(Resources { cpu_milli: 120, memory_bytes: 20 << 20 }),
        reason: Some(reason("least_loaded", "n1 had a load of 5%, next n2 with 20%")),
        ..Replica::default()
    };
    let parked = Replica {
        id: id(58),
        parked: true,
        ready: false,
        unknown: true,
        attempt: 3,
        activity: Some(Activity { busy: false, requests: 0, idle_ms: 4_000 }),
        ..busy.clone()
    };
    let ended = Ended {
        exit: Some(Exit::Code(3)),
        why: Some(reason("crashed", "the app ended by itself")),
        at_unix_ms: 1_700_000_000_000,
        wanted: false,
    };
    let ended = Replica {
        id: id(12),
        lifecycle: Lifecycle::Ended.into(),
        ready: false,
        activity: None,
        address: String::new(),
        used: None,
        ended: Some(ended),
        ..busy.clone()
    };
    vec![busy, parked, ended]
}

pub fn some_nodes() -> Vec<Node> {
    let resources = |cpu_milli, memory_bytes| Some(Resources { cpu_milli, memory_bytes });
    let up = Node {
        id: 1,
        name: "n1".to_owned(),
        liveness: Liveness::Up.into(),
        state: "active".to_owned(),
        capacity: resources(4_000, 8 << 30),
        used: resources(200, 1 << 30),
        declared: resources(500, 128 << 20),
        load_permille: 125,
        load_age_ms: 300,
        pressure_permille: Some(3),
        replicas: 2,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        version: "0.1.0".to_owned(),
    };
    let down = Node {
        id: 2,
        name: "n2".to_owned(),
        liveness: Liveness::Down.into(),
        state: "draining".to_owned(),
        pressure_permille: None,
        labels: Default::default(),
        ..up.clone()
    };
    vec![up, down]
}

pub fn some_events() -> Vec<Event> {
    let event = |sequence, kind: &str, replica| Event {
        sequence,
        at_unix_ms: 1_700_000_000_000 + sequence,
        kind: kind.to_owned(),
        app: "web".to_owned(),
        replica,
        node: "n1".to_owned(),
        reason: Some(reason("scale_up", "wanted grew from 1 to 5")),
    };
    vec![event(1, "app_scaled", None), event(2, "replica_ordered", id(57)), event(3, "replica_ready", id(57))]
}

pub fn some_status() -> StatusResponse {
    StatusResponse {
        cluster: "home".to_owned(),
        fence: Some(Fence { incarnation: 1, term: 2 }),
        leading: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes_up: 1,
        nodes: 2,
        apps: 3,
        replicas_ready: 6,
        replicas_wanted: 8,
        observing: false,
        dashboard: "http://127.0.0.1:7480".to_owned(),
    }
}

/// For people and for programs, in one golden file.
#[test]
fn lists() {
    let fake = Fake::start();
    let mut told = String::new();
    for words in [
        &["apps"][..],
        &["apps", "--all-tenants"],
        &["replicas"],
        &["replicas", "web", "--ended"],
        &["nodes"],
        &["events"],
        &["explain", "web"],
        &["image", "ls"],
        &["status"],
        &["stats", "web", "--interval", "10ms"],
    ] {
        for format in ["table", "json"] {
            let words: Vec<&str> = words.iter().copied().chain(["--output", format]).collect();
            let outcome = fake.run(&words);
            told.push_str(&format!("$ bellows {}\n{}\n", words.join(" "), outcome.shown()));
        }
    }
    insta::assert_snapshot!(told.replace(&fake.address.to_string(), "ADDRESS"));
}

#[test]
fn changes() {
    let fake = Fake::start();
    let mut told = String::new();
    for words in [
        &["scale", "web", "5"][..],
        &["rm", "web"],
        &["freeze", "1-2-57", "--force"],
        &["thaw", "1-2-57"],
        &["cordon", "n1"],
        &["uncordon", "n1"],
        &["drain", "n1", "--deadline", "30s"],
        &["drain", "n1", "--wait"],
        &["node", "rm", "n1"],
        &["image", "rm", "web:1.2"],
        &["token", "--valid", "10m"],
    ] {
        for format in ["table", "json"] {
            let words: Vec<&str> = words.iter().copied().chain(["-o", format]).collect();
            told.push_str(&format!("$ bellows {}\n{}\n", words.join(" "), fake.run(&words).shown()));
        }
    }
    insta::assert_snapshot!(told.replace(&fake.address.to_string(), "ADDRESS"));
}

#[test]
fn apply_sends_what_the_file_says() {
    let fake = Fake::start();
    let yaml =
        "name: web\nimage: web:1.2\nreplicas: 5\n---\nname: db\nimage: db:1\npolicy: {max: 4, cpu: {target: 50%}}\n";
    let outcome = bellows_with(fake.home.path(), &["apply", "-f", "-", "--tenant", "acme"], yaml);
    insta::assert_snapshot!(outcome.shown(), @r"
    exit code 0
    --- stdout
    web declared: 5 copies of web:1.2, generation 7
    db declared: 1 to 4 copies of db:1, generation 7
    --- stderr
    ");
    let heard = fake.heard();
    assert_eq!(heard.len(), 2);
    assert!(heard[0].contains("tenant: \"acme\"") && heard[0].contains("Replicas(5)"), "{heard:?}");
    assert!(heard[1].contains("target_permille: 500"), "{heard:?}");
    let keys: std::collections::BTreeSet<_> = heard.iter().map(|request| key(request)).collect();
    assert_eq!(keys.len(), 2, "each app has a key of its own");
}

#[test]
fn apply_dry_run_and_expectation() {
    let fake = Fake::start();
    let yaml = "name: web\nimage: web:1.2\nreplicas: 5\n";
    let outcome =
        bellows_with(fake.home.path(), &["apply", "-f", "-", "--dry-run", "--expect", "3", "-o", "json"], yaml);
    let change = &outcome.json()[0];
    assert_eq!((outcome.code, change["generation"].as_u64(), change["dry_run"].as_bool()), (0, Some(4), Some(true)));
    assert!(fake.heard()[0].contains("dry_run: true"));
    let two = format!("{yaml}---\nname: db\nimage: db\n");
    assert_eq!(bellows_with(fake.home.path(), &["apply", "-f", "-", "--expect", "3"], &two).code, 2);
}

/// The key inside a remembered request.
pub fn key(request: &str) -> &str {
    request.split("idempotency_key: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("every change has a key")
}

#[test]
fn wait_prints_the_time_taken() {
    let fake = Fake::start();
    let people = fake.run(&["scale", "web", "5", "--wait"]);
    assert_eq!(people.code, 0, "{people:?}");
    assert!(people.out.starts_with("web scaled to 5 copies, generation 8; 5 of 5 ready after "), "{people:?}");
    assert_eq!(people.err, "", "no progress where there is no terminal");
    assert!(fake.heard()[1].contains("generation: 8"), "{:?}", fake.heard());
    let programs = fake.run(&["scale", "web", "5", "--wait", "-o", "json"]).json();
    assert_eq!((programs["wanted"].as_u64(), programs["ready"].as_u64()), (Some(5), Some(5)));
    assert!(programs["waited_ms"].is_u64());
}

#[test]
fn waiting_for_a_removed_app_ends_when_nobody_knows_it() {
    let fake = Fake::start();
    let outcome = fake.run(&["rm", "web", "--wait"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.out.starts_with("web removed; its last copy ended after "), "{outcome:?}");
}

#[test]
fn waiting_ends_with_the_reason() {
    let fake = Fake::start();
    let outcome = fake.run(&["scale", "slow", "5", "--wait", "--timeout", "300ms"]);
    insta::assert_snapshot!(outcome.shown(), @r#"
    exit code 4
    --- stdout
    --- stderr
    error: app "slow" has not settled within 300ms: no node has 250m of CPU left
     mend: what you asked for stands; `bellows explain slow` says what is in the way, `--timeout` waits longer
    "#);
}

#[test]
fn logs_of_one_and_of_several() {
    let fake = Fake::start();
    assert_eq!(fake.run(&["logs", "1-2-57"]).out, "one\ntwo\n");
    assert!(fake.heard()[0].contains("counter: 57"));
    let mut several: Vec<String> = fake.run(&["logs", "web", "--tail", "20"]).out.lines().map(str::to_owned).collect();
    several.sort();
    assert_eq!(several, ["1-2-57 | one", "1-2-57 | two", "1-2-58 | one", "1-2-58 | two"]);
    assert!(fake.heard()[2].contains("tail_lines: Some(20)"), "{:?}", fake.heard());
}

#[test]
fn events_come_one_per_line_as_they_happen() {
    let fake = Fake::start();
    let mut child = command(fake.home.path(), &["events", "-f", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the executable starts");
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let events = lines.map(|line| serde_json::from_str(&line.expect("a line comes")).expect("a line is a document"));
    let sequences: Vec<u64> =
        events.take(3).map(|event: serde_json::Value| event["sequence"].as_u64().expect("a number")).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert!(child.try_wait().expect("a child can be looked at").is_none(), "it follows on");
    child.kill().and_then(|()| child.wait()).expect("a child can be ended");
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command(std::path::Path::new("/nonexistent"), &["schema"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("the executable ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn images_are_checked_sent_once_and_named() {
    let fake = Fake::start();
    let layout = layout(fake.home.path());
    let path = layout.to_str().expect("a temporary path is UTF-8");
    let first = fake.run(&["image", "load", path, "--name", "hello:1", "-o", "json"]);
    assert_eq!(first.code, 0, "{first:?}");
    let first = first.json();
    assert_eq!((first["image"].as_str(), first["sent_blobs"].as_u64()), (Some("hello:1"), Some(3)));
    assert_eq!(fake.memory.blobs.lock().expect("no panic while held").len(), 3);
    let digest = first["digest"].as_str().expect("a digest").to_owned();
    assert!(fake.heard().last().expect("requests").contains(&digest));
    let second = fake.run(&["image", "load", path, "--name", "hello:2"]);
    assert_eq!(second.out, format!("hello:2 loaded: {digest}, 1 layers, everything was there already\n"));
}

#[test]
fn damaged_images_are_not_sent() {
    let fake = Fake::start();
    let layout = layout(fake.home.path());
    let largest =
        std::fs::read_dir(layout.join("blobs/sha256")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let largest = largest.max_by_key(|path| path.metadata().expect("a file").len()).expect("blobs");
    std::fs::write(&largest, b"something else").expect("a temporary file");
    let outcome =
        fake.run(&["image", "load", layout.to_str().expect("a temporary path is UTF-8"), "--name", "hello:1"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("was not loaded"), "{outcome:?}");
    assert!(fake.heard().is_empty(), "nothing was sent");
    assert_eq!(fake.run(&["image", "load", "/nonexistent"]).code, 5);
}

/// An OCI layout with one file in one layer.
fn layout(home: &std::path::Path) -> std::path::PathBuf {
    let store = Store::open(home.join("store")).expect("a store");
    let content = build::Content::Bytes(b"hello".repeat(100_000));
    let file = build::FileSpec { path: "/hello".into(), mode: 0o755, content };
    let config = build::BuildConfig { entrypoint: vec!["/hello".to_owned()], ..Default::default() };
    let digest = store.build("hello:0", &[file], &config).expect("an image");
    let layout = home.join("layout");
    std::fs::create_dir(&layout).expect("a temporary folder");
    std::fs::rename(home.join("store/blobs"), layout.join("blobs")).expect("a temporary folder");
    let manifest = layout.join("blobs/sha256").join(digest.hex());
    let size = manifest.metadata().expect("the manifest").len();
    let media = "application/vnd.oci.image.manifest.v1+json";
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{ "mediaType": media, "digest": digest.to_string(), "size": size }] });
    std::fs::write(layout.join("index.json"), index.to_string()).expect("a temporary file");
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a temporary file");
    layout
}

#[test]
fn exec_passes_input_on_and_ends_as_its_program() {
    let fake = Fake::start();
    let words = ["exec", "-i", "1-2-57", "--env", "A=b", "--workdir", "/srv", "--", "sh", "-c", "cat"];
    let ran = bellows_with(fake.home.path(), &words, "from here");
    assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (7, "from here", "wrong\n"));
    let heard = fake.heard().join("\n");
    for said in ["\"sh\"", "\"A\": \"b\"", "working_dir: \"/srv\"", "input: true", "counter: 57"] {
        assert!(heard.contains(said), "{said} in {heard}");
    }
    let ran = fake.run(&["exec", "1-2-57", "--", "missing"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.err.contains("there is no missing"), "{ran:?}");
    assert_eq!(fake.run(&["exec", "1-2-57", "--env", "=x", "--", "true"]).code, 2);
}
