//! App files that cannot be, and names that nobody knows: the place, what was expected, the nearest known name, the exit code; nothing is sent and
//! nothing changes.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::fake::Fake;
use crate::image_support::{Blobs, Layer, Stored};
use crate::run::bellows;
use crate::serve::{self, Serving};

const WEB: &str = "name: web\nimage: web\n";

/// Title and file. Every mistake that one field can have is in the parser's own table; here are the kinds, through the executable.
fn bad_files() -> Vec<(&'static str, Vec<u8>)> {
    let web = |more: &str| format!("{WEB}{more}").into_bytes();
    vec![
        ("empty", Vec::new()),
        ("blank lines and comments only", b"\n# nothing\n\n---\n".to_vec()),
        ("a list", b"- name: web\n".to_vec()),
        ("a tab", web("\treplicas: 3\n")),
        ("an unclosed bracket", web("command: [sleep, 3\nreplicas: 1\n")),
        ("an unclosed quote", b"name: \"web\nimage: web\n".to_vec()),
        ("indentation", b"name: web\n  image: web\n".to_vec()),
        ("a key that stands there twice", web("replicas: 3\nreplicas: 4\n")),
        ("a nested key that stands there twice", web("resources: {cpu: 1, cpu: 2}\n")),
        ("an alias of nothing", b"name: web\nimage: *missing\n".to_vec()),
        ("an alias of itself", web("env: &a {B: *a}\n")),
        ("nested too deep", web(&format!("command: {}\n", "[".repeat(50_000)))),
        ("nested too deep, and closed", web(&format!("command: {}{}\n", "[".repeat(50_000), "]".repeat(50_000)))),
        ("a bomb of aliases", bomb()),
        ("a NUL", b"name: web\0\nimage: web\n".to_vec()),
        ("a bell in a name", b"name: \"we\\ab\"\nimage: web\n".to_vec()),
        ("not UTF-8", b"name: web\nimage: caf\xe9\n".to_vec()),
        ("UTF-16", "name: web\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("an executable", b"\x7fELF\x02\x01\x01\0\0\0\xe8\xff".to_vec()),
        ("too large", vec![b'#'; (1 << 20) + 1]),
        ("nothing but a name", b"name: web\n".to_vec()),
        ("unknown fields", web("replica: 3\nresource: {cpu: 1}\nmax-per-node: 2\nflavour: mild\n")),
        (
            "unknown nested fields",
            web("resources: {cpus: 1, mem: 64Mi}\npolicy: {min: 1, max: 2, cpu: {targt: 60%}}\n"),
        ),
        ("wrong types", web("replicas: three\ncommand: sleep 3\nenv: [A=1]\nports: {a: 1}\nresources: lots\n")),
        ("impossible resources", web("resources: {cpu: 0, memory: 10k, processes: 0, scratch: 1000Ti, log: 1}\n")),
        ("negative and absurd counts", web("replicas: -3\nmax_per_node: 0\n")),
        ("a count beyond any cluster", web("replicas: 99999999999999999999\n")),
        ("a count with a fraction", web("replicas: 1.5\n")),
        ("an endless duration", web("stop_grace: 3000h\ndrain_deadline: .inf\n")),
        ("a count and a policy", web("replicas: 3\npolicy: {min: 1, max: 4, cpu: {target: 60%}}\n")),
        ("bounds that contradict each other", web("policy: {min: 5, max: 4, spare: 9, cpu: {target: 160%}}\n")),
        ("a policy that decides nothing", web("policy: {min: 1, max: 4}\n")),
        ("a policy that never comes back from zero", web("policy: {min: 0, max: 4, cpu: {target: 60%}}\n")),
        ("a port that stands there twice", web("ports: [80, {port: 80}, {name: a, port: 81}, {name: a, port: 82}]\n")),
        ("a constraint that says two things", web("constraints: [{label: zone, in: [a], exists: true}]\n")),
        ("one app twice", web("---\nname: web\nimage: web\n")),
        ("the second of three wrong", web("---\nname: db\n---\nname: cache\nimage: cache\n")),
        ("the third is no YAML", web("---\nname: db\nimage: db\n---\nname: [\n")),
    ]
}

/// Aliases that double at each line: 2^40 values out of a few bytes.
fn bomb() -> Vec<u8> {
    let mut yaml = format!("{WEB}x0: &x0 [a, b]\n");
    for level in 1..40 {
        writeln!(yaml, "x{level}: &x{level} [*x{0}, *x{0}]", level - 1).expect("a String takes everything");
    }
    yaml.into_bytes()
}

#[test]
fn files_that_cannot_be() {
    let fake = Fake::start();
    let file = fake.home.path().join("app.yaml");
    let path = file.to_str().expect("a temporary path is UTF-8");
    let mut told = String::new();
    for (title, bytes) in bad_files() {
        std::fs::write(&file, bytes).expect("a temporary file");
        let refused = fake.run(&["apply", "-f", path]);
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{title}: {refused:?}");
        assert!(refused.err.contains("\n mend: "), "{title} does not say how to mend it: {refused:?}");
        writeln!(told, "# {title}\n{}", refused.told(&[(path, "app.yaml")])).expect("a String takes everything");
        let programs = fake.run(&["apply", "-f", path, "-o", "json"]).error();
        assert_eq!((programs["kind"].as_str(), programs["exit_code"].as_i64()), (Some("usage"), Some(2)), "{title}");
        for problem in programs["problems"].as_array().expect("a list") {
            assert!(problem["line"].as_u64() > Some(0) && problem["column"].as_u64() > Some(0), "{title}: {problem}");
        }
    }
    assert!(fake.heard().is_empty(), "nothing was sent: {:?}", fake.heard());
    std::fs::write(&file, WEB).expect("a temporary file");
    assert_eq!(fake.run(&["apply", "-f", path]).code, 0, "the right file is taken afterwards");
    insta::assert_snapshot!(told);
}

/// What editors on other systems write is no mistake.
#[test]
fn odd_but_right() {
    let fake = Fake::start();
    let file = fake.home.path().join("app.yaml");
    let path = file.to_str().expect("a temporary path is UTF-8");
    for (title, text, apps) in [
        ("a byte order mark", format!("\u{feff}{WEB}"), 1),
        ("lines as Windows ends them", WEB.replace('\n', "\r\n"), 1),
        ("JSON", r#"{"name": "web", "image": "web", "replicas": 3}"#.to_owned(), 1),
        ("no line end", WEB.trim_end().to_owned(), 1),
        ("marks around it", format!("%YAML 1.2\n---\n{WEB}...\n"), 1),
        ("several, one of them empty", format!("---\n---\n{WEB}---\nname: db\nimage: web\n---\n"), 2),
        ("an alias", "name: &n web\nimage: *n\nenv: {A: *n}\n".to_owned(), 1),
    ] {
        std::fs::write(&file, text).expect("a temporary file");
        let before = fake.heard().len();
        let taken = fake.run(&["apply", "-f", path]);
        assert_eq!((taken.code, fake.heard().len() - before), (0, apps), "{title}: {taken:?}");
    }
}

/// A real controller with one image and the app `web`.
struct Cluster {
    controller: Serving,
    home: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let controller = serve::controller(&home.path().join("state"), &[]).expect("it serves");
        let cluster = Self { controller, home };
        let layout = cluster.home.path().join("layout");
        let layers = [Layer::default().file("app", b"x").finish()];
        Blobs::new(&layers, Stored::Gzip).write_layout(&layout, "1").expect("a temporary folder");
        cluster.done(&["image", "load", layout.to_str().expect("a temporary path is UTF-8"), "--name", "web"]);
        let applied = cluster.apply(WEB, &[]);
        assert_eq!(applied.code, 0, "{applied:?}");
        cluster
    }

    fn done(&self, words: &[&str]) -> Value {
        let done = self.controller.run(&[words, &["-o", "json"]].concat());
        assert_eq!(done.code, 0, "{words:?}: {done:?}");
        done.json()
    }

    fn apply(&self, yaml: &str, more: &[&str]) -> crate::run::Outcome {
        let file = self.home.path().join("app.yaml");
        std::fs::write(&file, yaml).expect("a temporary file");
        self.controller.run(&[&["apply", "-f", file.to_str().expect("a temporary path is UTF-8")], more].concat())
    }
}

#[test]
fn names_that_nobody_knows() {
    let cluster = Cluster::start();
    let before = cluster.done(&["apps"]);
    let mut told = String::new();
    for words in [
        &["scale", "wbe", "5"][..],
        &["scale", "shop", "5"],
        &["scale", "web", "5", "--tenant", "acme"],
        &["scale", "web", "5", "--expect", "7"],
        &["scale", "web", "2000000"],
        &["rm", "weeb"],
        &["explain", "wep"],
        &["replicas", "wep"],
        &["logs", "wep"],
        &["image", "rm", "weg"],
        &["drain", "node-7"],
        &["cordon", "node-7"],
        &["uncordon", "node-7"],
        &["node", "rm", "node-7"],
    ] {
        let refused = cluster.controller.run(words);
        assert!(refused.code != 0 && refused.out.is_empty(), "{words:?}: {refused:?}");
        writeln!(told, "$ bellows {}\n{}", words.join(" "), refused.told(&[])).expect("a String takes everything");
    }
    let refused = cluster.apply("name: shop\nimage: wep\n", &[]);
    writeln!(told, "# an image that nobody knows\n{}", refused.told(&[])).expect("a String takes everything");
    let large = format!("{WEB}env: {{{}}}\n", (0..1_100).map(|n| format!("A{n}: x")).collect::<Vec<_>>().join(", "));
    let refused = cluster.apply(&large, &[]);
    writeln!(told, "# more variables than are taken\n{}", refused.told(&[])).expect("a String takes everything");
    assert_eq!(cluster.done(&["apps"]), before, "nothing has changed");
    assert_eq!(cluster.done(&["scale", "web", "5"])["changed"], true, "the right name is taken afterwards");
    insta::assert_snapshot!(told);
}

/// Each value that has bounds, at both of its ends and beyond them: app file, and whether it can be.
fn at_the_bounds() -> Vec<(String, bool)> {
    let one = |text: &str, right| (format!("{WEB}{text}\n"), right);
    let mut cases = Vec::new();
    for (field, rights, wrongs) in [
        ("replicas: ?", &["0", "1000000"][..], &["1000001", "4294967296"][..]),
        ("resources: {cpu: ?}", &["10m", "0.01", "4096"], &["9m", "0.009", "4097", "4096001m"]),
        ("resources: {memory: ?}", &["1Mi", "64Ti"], &["1048575", "70368744177665"]),
        ("resources: {processes: ?}", &["1", "4194304"], &["0", "4194305"]),
        ("resources: {scratch: ?}", &["64Ki", "64Ti"], &["0", "65535", "70368744177665"]),
        ("resources: {log: ?}", &["64Ki", "64Gi"], &["0", "65535", "68719476737"]),
        ("ports: [?]", &["1", "65535"], &["0", "65536"]),
        ("stop_grace: ?", &["0s", "24h"], &["86400001ms"]),
        ("drain_deadline: ?", &["0s", "24h"], &["86400001ms"]),
        ("when_cut_off: {stop_after: ?}", &["1s", "24h"], &["999ms", "86400001ms"]),
        ("health: {startup: {tcp: ?}}", &["1", "65535"], &["0", "65536"]),
        ("health: {startup: {tcp: 80, initial_delay: ?}}", &["0s", "24h"], &["86400001ms"]),
        ("health: {liveness: {tcp: 80, period: ?}}", &["100ms", "24h"], &["99ms", "86400001ms"]),
        ("health: {liveness: {tcp: 80, timeout: ?}}", &["10ms", "24h"], &["9ms", "86400001ms"]),
        ("health: {liveness: {tcp: 80, success_threshold: ?}}", &["1"], &["0", "2"]),
        ("health: {readiness: {tcp: 80, success_threshold: ?}}", &["1", "1000"], &["0", "1001"]),
        ("health: {readiness: {tcp: 80, failure_threshold: ?}}", &["1", "1000"], &["0", "1001"]),
        ("health: {readiness: {http: {port: 80, path: ?}}}", &["/", "/a?b=%20"], &["a", "'/a b'"]),
        ("max_per_node: ?", &["1", "1000000"], &["0", "1000001"]),
        ("spread: {by: zone, max_skew: ?}", &["1", "1000000"], &["0", "1000001"]),
        ("spread: {by: ?}", &["node", "a.b/c-d_E"], &["''", "a b"]),
        ("constraints: [{label: ?, exists: true}]", &["zone", "a.b/c-d_E"], &["''", "a b"]),
        ("ports: [{port: 80, name: ?}]", &["http"], &["Http", "-a"]),
        ("policy: {max: 1000000, min: ?, cpu: {target: 60%}}", &["1", "1000000"], &["0", "1000001"]),
        ("policy: {max: ?, cpu: {target: 60%}}", &["1", "1000000"], &["0", "1000001"]),
        ("policy: {max: 9, spare: ?, cpu: {target: 60%}}", &["0", "9"], &["10"]),
        ("policy: {max: 9, idle_grace: ?, cpu: {target: 60%}}", &["0s", "24h"], &["86400001ms"]),
        ("policy: {max: 9, cpu: {target: ?}}", &["1%", "100%"], &["0.9%", "100.1%"]),
    ] {
        cases.extend(rights.iter().map(|value| one(&field.replace('?', value), true)));
        cases.extend(wrongs.iter().map(|value| one(&field.replace('?', value), false)));
    }
    cases
}

/// What the reader of app files takes, the controller's door takes. (That the door refuses what the reader refuses is tested at the door, with
/// the same bounds: `controller/core/tests/door.rs`.)
#[test]
fn the_door_takes_what_the_reader_takes() {
    let cluster = Cluster::start();
    let mut rights = String::new();
    for (at, (yaml, right)) in at_the_bounds().into_iter().enumerate() {
        if right {
            write!(rights, "---\n{}", yaml.replace("name: web", &format!("name: web{at}"))).expect("a String takes it");
        } else {
            let refused = cluster.apply(&yaml, &["--dry-run"]);
            assert!(refused.code == 2 && refused.err.contains("app.yaml:3:"), "{yaml}: {refused:?}");
        }
    }
    let taken = cluster.apply(&rights, &["--dry-run"]);
    assert_eq!(taken.code, 0, "{taken:?}");
    assert_eq!(cluster.done(&["apps"]).as_array().map(Vec::len), Some(1), "a dry run changes nothing");
}

/// Without any controller: the file's mistakes are told all the same, since nothing would be sent.
#[test]
fn mistakes_need_no_controller() {
    let refused = crate::run::bellows_with(Path::new("/nonexistent"), &["apply", "-f", "-"], "name: web\n");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert_eq!(bellows(Path::new("/nonexistent"), &["schema"]).code, 0);
}
