//! The door: each value that has bounds is taken at both of its ends and refused beyond them, with its field and a way out.

use std::collections::BTreeMap;

use bellows_core::model::bounds::{self, Bounds};
use bellows_core::model::health::{Check, Health, How};
use bellows_core::model::spec::{
    AppSpec, Constraint, ConstraintOperator, Elastic, Policy, Port, Protocol, Scale, Spread, WhenCutOff, WhenFull,
};
use bellows_core::units::{Bytes, CpuMilli, Millis, Permille, Resources};

fn spec() -> AppSpec {
    AppSpec {
        name: "web".to_owned(),
        tenant: "default".to_owned(),
        image: "web".to_owned(),
        image_digest: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: Resources { cpu: CpuMilli(100), memory: Bytes(64 << 20) },
        processes: 10,
        scratch: Bytes(1 << 20),
        log: Bytes(1 << 20),
        scale: Scale::Declared { replicas: 1 },
        ports: Vec::new(),
        stop_grace: Millis(1_000),
        drain_deadline: Millis(1_000),
        constraints: Vec::new(),
        spread: None,
        max_per_node: None,
        when_cut_off: WhenCutOff::KeepRunning,
        traffic: Default::default(),
        health: Default::default(),
        isolation: Default::default(),
    }
}

/// Bounds between which an elastic app stands.
fn elastic(change: impl Fn(&mut Elastic)) -> Scale {
    let cpu = Policy::Cpu { target: Permille(600) };
    let mut elastic = Elastic {
        min: 1,
        max: 1_000_000,
        idle_grace: Millis(30_000),
        spare: 0,
        policies: vec![cpu],
        up: None,
        down: None,
    };
    change(&mut elastic);
    Scale::Policies(elastic)
}

fn checked_by(how: How) -> Check {
    let (initial_delay, period, timeout) = (Millis(0), Millis(10_000), Millis(1_000));
    Check { how, initial_delay, period, timeout, success_threshold: 1, failure_threshold: 3 }
}

fn readiness(change: impl Fn(&mut Check)) -> Health {
    let mut check = checked_by(How::Tcp { port: 80 });
    change(&mut check);
    Health { readiness: Some(check), ..Health::default() }
}

/// A readiness check by HTTP with this path and header.
fn asking(path: &str, name: &str) -> Health {
    let headers = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
    readiness(|check| check.how = How::Http { port: 80, path: path.to_owned(), headers: headers.clone() })
}

fn narrow<T: TryFrom<u64>>(value: u64) -> T {
    T::try_from(value).ok().expect("bounds of a field fit its type, and one beyond them as well")
}

type Put = fn(&mut AppSpec, u64);

/// The field at fault, and a change that makes it one.
type Case = (&'static str, Box<dyn Fn(&mut AppSpec)>);

/// Field, bounds, and how a value is put there.
const VALUES: [(&str, Bounds, Put); 20] = [
    ("replicas", bounds::COPIES, |spec, value| spec.scale = Scale::Declared { replicas: narrow(value) }),
    ("resources.cpu", bounds::CPU_MILLI, |spec, value| spec.resources.cpu = CpuMilli(value)),
    ("resources.memory", bounds::MEMORY_BYTES, |spec, value| spec.resources.memory = Bytes(value)),
    ("resources.processes", bounds::PROCESSES, |spec, value| spec.processes = narrow(value)),
    ("resources.scratch", bounds::SCRATCH_BYTES, |spec, value| spec.scratch = Bytes(value)),
    ("resources.log", bounds::LOG_BYTES, |spec, value| spec.log = Bytes(value)),
    ("stop_grace", bounds::STOP_GRACE_MS, |spec, value| spec.stop_grace = Millis(value)),
    ("drain_deadline", bounds::DRAIN_DEADLINE_MS, |spec, value| spec.drain_deadline = Millis(value)),
    ("when_cut_off.stop_after", bounds::STOP_AFTER_MS, |spec, value| {
        spec.when_cut_off = WhenCutOff::StopAfter(Millis(value));
    }),
    ("health.readiness.initial_delay", bounds::CHECK_DELAY_MS, |spec, value| {
        spec.health = readiness(|check| check.initial_delay = Millis(value));
    }),
    ("health.readiness.period", bounds::CHECK_PERIOD_MS, |spec, value| {
        spec.health = readiness(|check| check.period = Millis(value));
    }),
    ("health.readiness.timeout", bounds::CHECK_TIMEOUT_MS, |spec, value| {
        spec.health = readiness(|check| check.timeout = Millis(value));
    }),
    ("health.readiness.success_threshold", bounds::CHECK_THRESHOLD, |spec, value| {
        spec.health = readiness(|check| check.success_threshold = narrow(value));
    }),
    ("health.readiness.failure_threshold", bounds::CHECK_THRESHOLD, |spec, value| {
        spec.health = readiness(|check| check.failure_threshold = narrow(value));
    }),
    ("max_per_node", bounds::PER_NODE, |spec, value| spec.max_per_node = Some(narrow(value))),
    ("spread.max_skew", bounds::SKEW, |spec, value| {
        spec.spread = Some(Spread { by: "zone".to_owned(), max_skew: narrow(value), when_full: WhenFull::Relax });
    }),
    ("policy.min", Bounds { least: 1, most: bounds::COPIES.most }, |spec, value| {
        spec.scale = elastic(|elastic| elastic.min = narrow(value));
    }),
    ("policy.max", bounds::MOST_COPIES, |spec, value| {
        spec.scale = elastic(|elastic| elastic.max = narrow(value));
    }),
    ("policy.idle_grace", bounds::IDLE_GRACE_MS, |spec, value| {
        spec.scale = elastic(|elastic| elastic.idle_grace = Millis(value));
    }),
    ("policy.cpu.target", bounds::CPU_TARGET_PERMILLE, |spec, value| {
        spec.scale = elastic(|elastic| elastic.policies = vec![Policy::Cpu { target: Permille(narrow(value)) }]);
    }),
];

#[test]
fn values_are_taken_at_their_bounds_and_refused_beyond() {
    for (field, bounds, put) in VALUES {
        let checked = |value| {
            let mut spec = spec();
            put(&mut spec, value);
            spec.check()
        };
        for value in [bounds.least, bounds.most] {
            assert_eq!(checked(value), Ok(()), "{field}: {value}");
        }
        // Zero bytes of scratch or log say nothing, and then the node's default holds.
        for value in [bounds.least.checked_sub(1), Some(bounds.most + 1)].into_iter().flatten() {
            let faults = checked(value).expect_err(field);
            assert!(faults.iter().any(|fault| fault.field == field), "{field}: {value}: {faults:?}");
            assert!(faults.iter().all(|fault| !fault.mend.is_empty()), "{faults:?}");
        }
    }
}

#[test]
fn texts_that_cannot_be_are_refused() {
    let constraint = |label: &str, operator, values: &[&str]| Constraint {
        label: label.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let port = |name: &str, port| Port { name: name.to_owned(), port, protocol: Protocol::Http };
    let cases: Vec<Case> = vec![
        ("name", Box::new(|spec| spec.name = "Web".to_owned())),
        ("name", Box::new(|spec| spec.name = "a".repeat(64))),
        ("tenant", Box::new(|spec| spec.tenant = String::new())),
        ("image", Box::new(|spec| spec.image = String::new())),
        ("env", Box::new(|spec| drop(spec.env.insert("A=B".to_owned(), String::new())))),
        ("command", Box::new(|spec| spec.args.push("a\0b".to_owned()))),
        (
            "health.readiness.exec",
            Box::new(|spec| spec.health = readiness(|c| c.how = How::Exec { command: Vec::new() })),
        ),
        ("health.readiness.tcp", Box::new(|spec| spec.health = readiness(|c| c.how = How::Tcp { port: 0 }))),
        ("health.readiness.http.path", Box::new(|spec| spec.health = asking("a", "X-A"))),
        ("health.readiness.http.headers", Box::new(|spec| spec.health = asking("/", "X A"))),
        (
            "health.liveness.success_threshold",
            Box::new(|spec| {
                let check = Check { success_threshold: 2, ..checked_by(How::Tcp { port: 80 }) };
                spec.health = Health { liveness: Some(check), ..Health::default() };
            }),
        ),
        ("ports[0]", Box::new(move |spec| spec.ports = vec![port("", 0)])),
        ("ports[1]", Box::new(move |spec| spec.ports = vec![port("a", 1), port("b", 1)])),
        ("ports[1]", Box::new(move |spec| spec.ports = vec![port("a", 1), port("a", 2)])),
        ("ports[0]", Box::new(move |spec| spec.ports = vec![port("A_B", 1)])),
        (
            "constraints[0]",
            Box::new(move |spec| spec.constraints = vec![constraint("", ConstraintOperator::Exists, &[])]),
        ),
        (
            "constraints[0]",
            Box::new(move |spec| spec.constraints = vec![constraint("a b", ConstraintOperator::Exists, &[])]),
        ),
        ("constraints[0]", Box::new(move |spec| spec.constraints = vec![constraint("a", ConstraintOperator::In, &[])])),
        (
            "constraints[0]",
            Box::new(move |spec| spec.constraints = vec![constraint("a", ConstraintOperator::Exists, &["x"])]),
        ),
        ("policy.min", Box::new(|spec| spec.scale = elastic(|elastic| (elastic.min, elastic.max) = (5, 4)))),
        ("policy.spare", Box::new(|spec| spec.scale = elastic(|elastic| (elastic.spare, elastic.max) = (5, 4)))),
        ("policy", Box::new(|spec| spec.scale = elastic(|elastic| elastic.policies.clear()))),
    ];
    for (field, change) in cases {
        let mut spec = spec();
        change(&mut spec);
        let faults = spec.check().expect_err(field);
        assert!(faults.iter().any(|fault| fault.field == field && !fault.mend.is_empty()), "{field}: {faults:?}");
    }
}
