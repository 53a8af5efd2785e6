//! Example files and bad files against both the parser and the schema.

use std::fmt::Write;
use std::path::PathBuf;

use super::parse;
use super::shape;

/// Title, file, and whether the schema sees it too (it cannot compare fields with each other, nor bound quantities in texts).
const BAD: &[(&str, &str, bool)] = &[
    ("empty", "", true),
    ("comments only", "# nothing\n", true),
    ("a list", "- name: web\n", true),
    ("a word", "web\n", true),
    ("tab", "name: web\nimage: web\n\treplicas: 3\n", false),
    ("unclosed bracket", "name: web\nimage: web\ncommand: [sleep, 3\nreplicas: 1\n", false),
    ("unclosed quote", "name: \"web\nimage: web\n", false),
    ("indentation", "name: web\n  image: web\n", false),
    ("twice the same field", "name: web\nimage: web\nname: web2\n", false),
    ("unknown anchor", "name: web\nimage: *missing\n", false),
    ("nothing but a name", "name: web\n", true),
    ("unknown fields", "name: web\nimage: web\nreplica: 3\nresource: {cpu: 1}\nmax-per-node: 2\nflavour: mild\n", true),
    (
        "unknown nested field",
        "name: web\nimage: web\nresources: {cpus: 1, mem: 64Mi}\npolicy: {min: 1, max: 2, cpu: {targt: 60%}}\n",
        true,
    ),
    (
        "many mistakes",
        "name: Web_1\nimage: ''\nreplicas: -3\nresources: {cpu: lots, memory: 3 Mi, processes: 0}\nports: [0, 70000]\nstop_grace: 10\n",
        true,
    ),
    ("field without value", "name: web\nimage: web\nreplicas:\n", true),
    ("absurd count", "name: web\nimage: web\nreplicas: 99999999999999999999\n", true),
    ("fractional count", "name: web\nimage: web\nreplicas: 1.5\n", true),
    ("count in words", "name: web\nimage: web\nreplicas: three\n", true),
    ("count in quotes", "name: web\nimage: web\nreplicas: \"3\"\n", true),
    ("no cpu", "name: web\nimage: web\nresources: {cpu: 0}\n", true),
    ("negative cpu", "name: web\nimage: web\nresources: {cpu: -250m}\n", true),
    ("too much cpu", "name: web\nimage: web\nresources: {cpu: 100000}\n", true),
    ("too little memory", "name: web\nimage: web\nresources: {memory: 10k}\n", false),
    ("infinite memory", "name: web\nimage: web\nresources: {memory: .inf}\n", false),
    ("unknown size unit", "name: web\nimage: web\nresources: {memory: 64Mb}\n", true),
    ("replicas and policy", "name: web\nimage: web\nreplicas: 3\npolicy: {min: 1, max: 4, cpu: {target: 60%}}\n", true),
    ("policy from zero", "name: web\nimage: web\npolicy: {min: 0, max: 4, cpu: {target: 60%}}\n", true),
    ("numbers for names", "name: 3\nimage: 1.10\ntenant: true\nspread: {by: 7}\n", true),
    ("min above max", "name: web\nimage: web\npolicy: {min: 5, max: 4, spare: 9, cpu: {target: 60%}}\n", false),
    ("policy without a reading", "name: web\nimage: web\npolicy: {min: 1, max: 4}\n", true),
    ("policy without max", "name: web\nimage: web\npolicy: {cpu: {target: 60%}}\n", true),
    ("policy with zero target", "name: web\nimage: web\npolicy: {max: 4, cpu: {target: 0%}}\n", false),
    ("policy with target above all", "name: web\nimage: web\npolicy: {max: 4, cpu: {target: 160%}}\n", false),
    ("target without percent", "name: web\nimage: web\npolicy: {max: 4, cpu: {target: 0.6}}\n", true),
    ("command as text", "name: web\nimage: web\ncommand: sleep 3\nargs: {a: b}\n", true),
    ("list in a command", "name: web\nimage: web\ncommand: [sleep, [3], {a: b}]\n", true),
    ("environment as list", "name: web\nimage: web\nenv: [A=1]\n", true),
    ("bad environment", "name: web\nimage: web\nenv: {A=B: 1, C: [1], D: }\n", true),
    ("port twice", "name: web\nimage: web\nports: [80, {port: 80}, {name: a, port: 81}, {name: a, port: 82}]\n", false),
    ("unknown protocol", "name: web\nimage: web\nports: [{port: 80, protocol: udp}]\n", true),
    ("port as text", "name: web\nimage: web\nports: [http]\n", true),
    ("constraint without operator", "name: web\nimage: web\nconstraints: [{label: zone}]\n", true),
    (
        "constraint with two operators",
        "name: web\nimage: web\nconstraints: [{label: zone, in: [a], exists: true}]\n",
        true,
    ),
    ("constraint without values", "name: web\nimage: web\nconstraints: [{label: zone, in: []}]\n", true),
    ("constraint with a bad label", "name: web\nimage: web\nconstraints: [{label: 'my zone', exists: yes}]\n", true),
    ("spread over nothing", "name: web\nimage: web\nspread: {max_skew: 0, when_full: explode}\n", true),
    ("per node nothing", "name: web\nimage: web\nmax_per_node: 0\n", true),
    ("cut off, unknown word", "name: web\nimage: web\nwhen_cut_off: panic\n", true),
    ("cut off, too short", "name: web\nimage: web\nwhen_cut_off: {stop_after: 10ms}\n", false),
    (
        "policy of requests without a route",
        "name: web\nimage: web\nports: [80]\npolicy: {max: 4, concurrency: {target: 9}}\n",
        true,
    ),
    (
        "targets that contradict",
        "name: web\nimage: web\nports: [80]\nroutes: [{}]\nconcurrency: {limit: 4, target: 0}\npolicy: {max: 4, concurrency: {target: 9}, cpu: {target: 0%}}\n",
        true,
    ),
    ("rate without time", "name: web\nimage: web\npolicy: {max: 4, up: {copies: 0}, cpu: {target: 60%}}\n", true),
    (
        "routes to nowhere",
        "name: web\nimage: web\nports: [80, {name: db, port: 81, protocol: tcp}]\nroutes: [{to: 82}, {to: dbs}, {to: db}, {listen: 81, host: a, to: db}]\n",
        false,
    ),
    (
        "routes that cannot be",
        "name: web\nimage: web\nports: [80]\nroutes: [{host: Web_1}, {path: api}, {path: /a/../b}, {path: /a//b}, {listen: 0}, {host: 10}]\n",
        true,
    ),
    ("routes of an app without ports", "name: web\nimage: web\nroutes: [{host: web.example.org}]\n", false),
    ("hold too long", "name: web\nimage: web\nhold: {requests: many, time: 3h, bytes: 1}\nslow_start: 2h\n", true),
    ("health as a word", "name: web\nimage: web\nhealth: good\n", true),
    ("unknown check", "name: web\nimage: web\nhealth: {livenes: {tcp: 80}}\n", true),
    ("check without a way", "name: web\nimage: web\nhealth: {liveness: {period: 5s}}\n", true),
    ("check in two ways", "name: web\nimage: web\nhealth: {liveness: {tcp: 80, exec: [\"true\"]}}\n", true),
    ("check of no program", "name: web\nimage: web\nhealth: {startup: {exec: []}}\n", true),
    ("check of no port", "name: web\nimage: web\nhealth: {readiness: {tcp: 0}, startup: {http: {path: /}}}\n", true),
    ("check of no path", "name: web\nimage: web\nhealth: {readiness: {http: {port: 80, path: a b}}}\n", true),
    (
        "check with a bad header",
        "name: web\nimage: web\nhealth: {readiness: {http: {port: 80, headers: {a b: c}}}}\n",
        false,
    ),
    ("check too often", "name: web\nimage: web\nhealth: {readiness: {tcp: 80, period: 5ms, timeout: 1}}\n", true),
    (
        "two successes of liveness",
        "name: web\nimage: web\nhealth: {liveness: {tcp: 80, success_threshold: 2}}\n",
        false,
    ),
    ("no failures", "name: web\nimage: web\nhealth: {liveness: {tcp: 80, failure_threshold: 0}}\n", true),
    (
        "taken away by a wrong name",
        "name: web\nimage: web\nresources: {cpu_weight: 0}\negress: maybe\nsecurity: {drop_capabilities: [NET_RAW, sys_admin], deny_calls: [ptrase, mount]}\n",
        true,
    ),
    (
        "never given",
        "name: web\nimage: web\nsecurity: {add_capabilities: [sys_admin, sys_ptrac], add_calls: [mount]}\n",
        true,
    ),
    (
        "too little of the disk",
        "name: web\nimage: web\nresources: {io: {read: 1Ki, write: much, write_operations: 1, reads: 5}}\n",
        true,
    ),
    ("one app twice", "name: web\nimage: web\n---\nname: web\nimage: web\n", false),
    ("second document wrong", "name: web\nimage: web\n---\nname: db\n", false),
    ("duration too long", "name: web\nimage: web\nstop_grace: 3h\ndrain_deadline: 1y\n", true),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    let mut told = String::new();
    for (title, yaml, _) in BAD {
        let problems = parse("app.yaml", yaml, "default").expect_err(title);
        writeln!(told, "# {title}").expect("a String takes everything");
        for line in yaml.lines() {
            writeln!(told, "    {line}").expect("a String takes everything");
        }
        for problem in problems {
            writeln!(told, "{}:{} {}", problem.line, problem.column, problem.message)
                .expect("a String takes everything");
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let validator = validator();
    let mut surprises = Vec::new();
    for (title, yaml, seen) in BAD {
        let Ok(document) = serde_saphyr::from_str::<serde_json::Value>(yaml) else { continue };
        if validator.is_valid(&document) == *seen {
            surprises.push(title);
        }
    }
    assert!(surprises.is_empty(), "not as the table says: {surprises:?}");
}

#[test]
fn example_files_parse_and_fit_the_schema() {
    let validator = validator();
    let mut files = 0;
    for path in example_files() {
        let text = std::fs::read_to_string(&path).expect("example files are readable");
        let name = path.display().to_string();
        let specs = parse(&name, &text, "default").unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("parsed above");
        assert_eq!(specs.len(), documents.len(), "{name}");
        for document in documents {
            let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
        }
        files += 1;
    }
    assert!(files >= 4, "the example files are gone");
}

#[test]
fn everything_means_what_it_says() {
    let text = std::fs::read_to_string(config().join("everything.yaml")).expect("the example file is readable");
    let specs = parse("everything.yaml", &text, "other").expect("it parses");
    insta::assert_debug_snapshot!(specs);
}

#[test]
fn what_is_left_out_means_the_default() {
    let specs = parse("-", "name: web\nimage: web\n", "acme").expect("it parses");
    insta::assert_debug_snapshot!(specs);
}

#[test]
fn aliases_and_numbers_keep_what_was_written() {
    let yaml = "name: web\nimage: web\nenv: {A: &v 1.10, B: *v, C: 0x10, D: \"é\", E: yes, F: 007, G: ''}\n";
    let specs = parse("-", yaml, "default").expect("it parses");
    let pairs: Vec<_> = specs[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["A=1.10", "B=1.10", "C=0x10", "D=é", "E=yes", "F=007", "G="]);
}

/// Aliases that double at each line: 2^40 values out of a few bytes.
#[test]
fn a_bomb_is_refused() {
    let mut yaml = "name: web\nimage: web\nx0: &x0 [a, b]\n".to_owned();
    for level in 1..40 {
        writeln!(yaml, "x{level}: &x{level} [*x{0}, *x{0}]", level - 1).expect("a String takes everything");
    }
    let problems = parse("-", &yaml, "default").expect_err("a bomb");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

/// Names that the schema knows and the parser does not, or the other way round, would be found here.
#[test]
fn schema_and_parser_know_the_same_fields() {
    let schema = serde_json::to_value(shape::schema()).expect("a schema is JSON");
    let mut names: Vec<&String> = schema["properties"].as_object().expect("an object has properties").keys().collect();
    names.sort();
    let problems =
        parse("-", "name: web\nimage: web\nzzzzzzzzzzzzzzzzzz: 1\n", "default").expect_err("an unknown field");
    let (_, known) = problems[0].message.split_once("known here: ").expect("the names are listed");
    let mut known: Vec<&str> = known.split(", ").collect();
    known.sort_unstable();
    assert_eq!(known, names);
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::to_value(shape::schema()).expect("a schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is sound")
}

fn config() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../config"))
}

fn example_files() -> impl Iterator<Item = PathBuf> {
    let folder = std::fs::read_dir(config()).expect("the folder of examples is there");
    let yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    folder.map(|entry| entry.expect("its entries are readable").path()).filter(yaml)
}
