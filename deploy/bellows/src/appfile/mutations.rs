//! Good files, changed: the parser never panics and always says where; and it agrees with the schema, but for what a schema cannot say.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{parse, shape};

/// Every field, and every form that one may have. A corpus of good documents.
fn good() -> Vec<Value> {
    let full = json!({
        "name": "web", "tenant": "acme", "image": "web:1.2",
        "command": ["/bin/server", 8080, true], "args": ["-v"],
        "env": { "A": "x", "B": 1, "C": true },
        "resources": { "cpu": "250m", "memory": "64Mi", "processes": 64, "scratch": "32Mi", "log": "8Mi", "cpu_weight": 200,
            "io": { "read": "10Mi", "write": 1_048_576, "read_operations": 500, "write_operations": 100 } },
        "replicas": 3,
        "ports": [80, { "name": "admin", "port": 81, "protocol": "tcp" }, { "port": 82, "protocol": "http2" }],
        "routes": [
            { "host": "web.example.org", "path": "/api/v1" }, { "listen": 8000, "path": "/", "to": 80, "tls": true, "max_body": "10Mi" },
            { "listen": 5432, "to": "admin" },
        ],
        "concurrency": { "limit": 10, "target": 7 },
        "hold": { "requests": 1000, "bytes": "16Mi", "time": "10s" }, "slow_start": "5s",
        "egress": true, "security": { "drop_capabilities": ["net_raw"], "deny_calls": ["ptrace"],
            "add_capabilities": ["sys_ptrace"], "add_calls": ["kcmp"] },
        "stop_grace": "10s", "drain_deadline": "1h30m",
        "constraints": [
            { "label": "zone", "in": ["a", "b"] }, { "label": "disk", "not_in": ["slow"] }, { "label": "gpu", "exists": false },
        ],
        "spread": { "by": "zone", "max_skew": 2, "when_full": "refuse" },
        "max_per_node": 2, "when_cut_off": { "stop_after": "5m" },
    });
    let elastic = json!({
        "name": "api", "image": "api",
        "resources": { "cpu": 1.5, "memory": 1_073_741_824 },
        "policy": { "min": 1, "max": 20, "idle_grace": "30s", "spare": 1, "cpu": { "target": "62.5%" } },
        "when_cut_off": "keep_running",
    });
    let demand = json!({
        "name": "job", "image": "job", "ports": [80], "routes": [{}],
        "policy": {
            "min": 0, "max": 20, "up": { "copies": 5, "per": "1s" }, "down": { "copies": 1, "per": "10s" },
            "concurrency": { "target": 10 }, "requests_per_second": { "target": 50 }, "memory": { "target": "80%" },
        },
        "concurrency": { "limit": 12 },
    });
    vec![json!({ "name": "web", "image": "web" }), full, elastic, demand]
}

/// What any value may be replaced by.
fn strange() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "x",
        "X_y",
        "10s",
        "-5s",
        "10",
        "3h1",
        "64Mi",
        "64Mb",
        "-1Mi",
        "60%",
        "60",
        "0.6",
        "250m",
        "9m",
        "999h",
        "999%",
        "http",
        "relax",
        "keep_running",
    ];
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.extend([json!(null), json!(true), json!(0), json!(1), json!(3), json!(-1), json!(1.5), json!(70_000)]);
    values.extend([json!(5_000_000), json!(99_999_999_999_999_u64), json!(1e300), json!([]), json!({}), json!(["a"])]);
    values.extend([
        json!([null]),
        json!([["a"]]),
        json!({ "a": 1 }),
        json!([80, 80]),
        json!("\u{0}"),
        json!("a".repeat(64)),
    ]);
    values
}

/// The pointers of all values of a document, the document's own first.
fn pointers(document: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let below: Vec<(String, &Value)> = match document {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in below {
        found.extend(pointers(value).into_iter().map(|rest| format!("/{name}{rest}")));
    }
    found
}

/// The document with one thing changed at a place: another value, no value, one more field, a field of another name.
fn changed(document: &Value, pointer: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Value)| {
        let mut copy = document.clone();
        if let Some(value) = copy.pointer_mut(pointer) {
            change(value);
            all.push(copy);
        }
    };
    for value in strange() {
        with(&|place| *place = value.clone());
    }
    with(&|place| drop(place.as_object_mut().map(|fields| fields.insert("surprise".to_owned(), json!(1)))));
    with(&|place| {
        if let Some(items) = place.as_array_mut() {
            items.extend(items.clone());
        }
    });
    if let Some((parent, name)) = pointer.rsplit_once('/') {
        let mut without = document.clone();
        let taken = without.pointer_mut(parent).and_then(Value::as_object_mut).and_then(|fields| fields.remove(name));
        if let Some(value) = taken {
            all.push(without.clone());
            let fields = without.pointer_mut(parent).and_then(Value::as_object_mut).expect("it was one just now");
            fields.insert(format!("{name}s"), value);
            all.push(without);
        }
    }
    all
}

/// What the parser says of a document, as the file that a program would write: JSON is YAML.
fn problems(document: &Value) -> Vec<String> {
    let text = document.to_string();
    let told = parse("app.yaml", &text, "default").err().unwrap_or_default();
    for problem in &told {
        let columns = text.chars().count() as u64 + 1;
        assert!(problem.line == 1 && (1..=columns).contains(&problem.column), "{problem:?} in {text}");
        assert!(!problem.message.is_empty(), "{text}");
    }
    told.into_iter().map(|problem| problem.message).collect()
}

/// The differences that are known and stay: what the parser refuses and the schema cannot say.
const ONLY_THE_PARSER: [&str; 11] = [
    // Bounds of quantities that are written as texts: a schema sees their form, not their amount.
    "expected an amount of CPU from",
    "expected a size from",
    "expected a duration from",
    "expected a percentage from",
    // Fields that are compared with each other.
    "is more than policy.max",
    "stands there twice",
    "two ports are named",
    "is more than concurrency.limit",
    "leads to no port",
    "leads to a TCP port",
    // NUL is a letter to JSON, and none to the kernel.
    "has a NUL byte in it",
];

/// What both say of a document.
enum Compared {
    Accepted,
    Refused,
    /// Only the parser refuses, for reasons that are known.
    Known(Vec<&'static str>),
    Surprise(String),
}

fn compare(document: &Value) -> Compared {
    let problems = problems(document);
    let reason = |message: &String| ONLY_THE_PARSER.into_iter().find(|part| message.contains(part));
    match (problems.is_empty(), validator().is_valid(document)) {
        (true, true) => Compared::Accepted,
        (false, false) => Compared::Refused,
        (false, true) if problems.iter().all(|message| reason(message).is_some()) => {
            Compared::Known(problems.iter().filter_map(reason).collect())
        }
        (_, valid) => Compared::Surprise(format!("{document}\n  parser: {problems:?}\n  schema accepts: {valid}")),
    }
}

/// Every single change of every good document, both ways. Each difference that is said to be known is met: else the list would only grow.
#[test]
fn schema_and_parser_agree_on_every_change() {
    let (mut surprises, mut met) = (Vec::new(), BTreeSet::new());
    let (mut accepted, mut refused) = (0, 0);
    for document in good() {
        let all: Vec<String> = pointers(&document);
        for one in all.iter().flat_map(|pointer| changed(&document, pointer)).chain([document.clone()]) {
            match compare(&one) {
                Compared::Accepted => accepted += 1,
                Compared::Refused => refused += 1,
                Compared::Known(parts) => met.extend(parts),
                Compared::Surprise(told) => surprises.push(told),
            }
        }
    }
    assert!(surprises.is_empty(), "{} of them:\n{}", surprises.len(), surprises.join("\n"));
    assert!(accepted > 200 && refused > 1_000, "the corpus is thin: {accepted} accepted, {refused} refused");
    assert_eq!(met, BTreeSet::from(ONLY_THE_PARSER));
}

/// A good file as a person would write it, and one that uses most of what YAML has.
const WRITTEN: [&str; 2] = [
    include_str!("../../../config/everything.yaml"),
    "# c\n--- # d\nname: &n web\nimage: \"we\\x62\"\nenv: {A: *n, 'B': |-\n    x\n    y\n  , C: >\n    z\n}\ncommand:\n- a\n-  - b\n...\n---\n? name\n: x\n",
];

/// What a slip of the hand puts into a file.
const SLIPS: [&str; 24] = [
    "\t", "\n", " ", "  ", ":", ": ", "-", "- ", "{", "}", "[", "]", "\"", "'", "|", ">", "&a", "*a", "#", "!!", "%",
    "\u{0}", "\u{feff}", "é",
];

/// Bugs were looked for with 10,000; these see that none comes back.
const CASES: u32 = 100;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    /// No change of letters makes the parser panic; each problem is at a line and column of the file.
    #[test]
    fn slips_are_told_with_their_place(
        which in 0..WRITTEN.len(),
        slips in proptest::collection::vec((any::<prop::sample::Index>(), 0..SLIPS.len(), 0..4_usize), 1..6),
    ) {
        let mut letters: Vec<char> = WRITTEN[which].chars().collect();
        for (at, slip, drop) in slips {
            let at = at.index(letters.len());
            letters.splice(at..(at + drop).min(letters.len()), SLIPS[slip].chars());
        }
        let text: String = letters.into_iter().collect();
        let lines = text.lines().count() as u64 + 1;
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0) as u64 + 2;
        for problem in parse("app.yaml", &text, "default").err().unwrap_or_default() {
            prop_assert!((1..=lines).contains(&problem.line), "{problem:?} in {text:?}");
            prop_assert!((1..=longest).contains(&problem.column), "{problem:?} in {text:?}");
            prop_assert!(!problem.message.is_empty(), "{text:?}");
        }
    }

    /// Several changes at once, where schema and parser must agree as well.
    #[test]
    fn schema_and_parser_agree_on_several_changes(
        which in 0..4_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 2..5),
    ) {
        let mut document = good().swap_remove(which);
        for (at, how) in changes {
            let pointers = pointers(&document);
            let mut all = changed(&document, &pointers[at.index(pointers.len())]);
            document = all.swap_remove(how.index(all.len()));
        }
        if let Compared::Surprise(told) = compare(&document) {
            prop_assert!(false, "{told}");
        }
    }
}

fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
        let schema = serde_json::to_value(shape::schema()).expect("a schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is sound")
    });
    &VALIDATOR
}
