//! From values to specs: which fields there are, what each may be, what they mean when left out.

use bellows_proto::types::constraint::Operator;
use bellows_proto::types::port::Protocol;
use bellows_proto::types::spread::WhenFull;
use bellows_proto::types::{AppSpec, Constraint, DiskRates, Port, Resources, Spread, app_spec};

use super::fields::{Fields, Found, Report};
use super::health::health;
use super::isolation::isolation;
use super::leaves::{cpu, duration, environment, filled, label, list, name, size, text, truth, whole, whole_32, word};
use super::policy::policy;
use super::ranges;
use super::shape::defaults;
use super::traffic::traffic;
use super::tree::{Node, Value};

/// All apps of all documents.
pub fn apps(documents: &[Node], tenant: &str, report: &mut Report<'_>) -> Vec<AppSpec> {
    if documents.is_empty() {
        report.add(super::tree::Place { line: 1, column: 1 }, "", "there is no app in this file");
    }
    let mut specs: Vec<AppSpec> = Vec::new();
    for node in documents {
        let Some(spec) = app(node, tenant, report) else { continue };
        if specs.iter().any(|other| (&other.tenant, &other.name) == (&spec.tenant, &spec.name)) {
            report.add(node.at, "name", format!("app \"{}\" is declared twice in this file", spec.name));
        }
        specs.push(spec);
    }
    specs
}

/// One app; problems are in the report, and then the result is not used.
fn app(node: &Node, tenant: &str, report: &mut Report<'_>) -> Option<AppSpec> {
    let found = Found { node, path: String::new() };
    let mut fields = Fields::open(&found, "an app: a block of fields, beginning for example with `name: web`", report)?;
    let mut spec = AppSpec {
        name: fields.required("name", "web", report, name).unwrap_or_default(),
        tenant: fields.optional("tenant", report, name).unwrap_or_else(|| tenant.to_owned()),
        image: fields.required("image", "web:1.2", report, filled).unwrap_or_default(),
        command: fields.optional("command", report, words).unwrap_or_default(),
        args: fields.optional("args", report, words).unwrap_or_default(),
        env: fields.optional("env", report, environment).unwrap_or_default().into_iter().collect(),
        ports: fields.optional("ports", report, ports).unwrap_or_default(),
        stop_grace_ms: fields
            .optional("stop_grace", report, duration(&ranges::STOP_GRACE_MS))
            .unwrap_or(defaults::STOP_GRACE_MS),
        drain_deadline_ms: fields
            .optional("drain_deadline", report, duration(&ranges::DRAIN_DEADLINE_MS))
            .unwrap_or(defaults::DRAIN_DEADLINE_MS),
        spread: fields.optional("spread", report, spread),
        max_per_node: fields.optional("max_per_node", report, whole_32(&ranges::PER_NODE)),
        stop_after_cut_off_ms: fields.optional("when_cut_off", report, when_cut_off).flatten(),
        health: fields.optional("health", report, health),
        ..resources(&mut fields, report)
    };
    spec.constraints = fields
        .optional(
            "constraints",
            report,
            list("a list of conditions, for example `- {label: zone, in: [a, b]}`", constraint),
        )
        .unwrap_or_default();
    spec.scale = Some(scale(&mut fields, report));
    traffic(&mut fields, &mut spec, report);
    isolation(&mut fields, &mut spec, report);
    fields.finish(report);
    Some(spec)
}

fn words<'n>(found: &Found<'n>, report: &mut Report<'_>) -> Option<Vec<String>> {
    list("a list of words, for example [sleep, \"60\"]", text)(found, report)
}

/// The fields of `resources`, in a spec that has only them.
fn resources(fields: &mut Fields<'_>, report: &mut Report<'_>) -> AppSpec {
    let declared = fields.optional("resources", report, |found, report| {
        let mut block = Fields::open(found, "fields, for example `cpu: 250m`", report)?;
        let spec = AppSpec {
            resources: Some(Resources {
                cpu_milli: block.optional("cpu", report, cpu(&ranges::CPU_MILLI)).unwrap_or(defaults::CPU_MILLI),
                memory_bytes: block
                    .optional("memory", report, size(&ranges::MEMORY_BYTES))
                    .unwrap_or(defaults::MEMORY_BYTES),
            }),
            processes: block.optional("processes", report, whole_32(&ranges::PROCESSES)).unwrap_or(defaults::PROCESSES),
            scratch_bytes: block
                .optional("scratch", report, size(&ranges::SCRATCH_BYTES))
                .unwrap_or(defaults::SCRATCH_BYTES),
            log_bytes: block.optional("log", report, size(&ranges::LOG_BYTES)).unwrap_or(defaults::LOG_BYTES),
            cpu_weight: block.optional("cpu_weight", report, whole_32(&ranges::CPU_WEIGHT)),
            disk_rates: block.optional("io", report, disk_rates),
            ..AppSpec::default()
        };
        block.finish(report);
        Some(spec)
    });
    declared.unwrap_or_else(|| AppSpec {
        resources: Some(Resources { cpu_milli: defaults::CPU_MILLI, memory_bytes: defaults::MEMORY_BYTES }),
        processes: defaults::PROCESSES,
        scratch_bytes: defaults::SCRATCH_BYTES,
        log_bytes: defaults::LOG_BYTES,
        ..AppSpec::default()
    })
}

fn disk_rates(found: &Found<'_>, report: &mut Report<'_>) -> Option<DiskRates> {
    let mut block = Fields::open(found, "fields, for example `read: 10Mi`", report)?;
    let rates = DiskRates {
        read_bytes: block.optional("read", report, size(&ranges::DISK_BYTES)).unwrap_or(0),
        write_bytes: block.optional("write", report, size(&ranges::DISK_BYTES)).unwrap_or(0),
        read_operations: block.optional("read_operations", report, whole(&ranges::DISK_OPERATIONS)).unwrap_or(0),
        write_operations: block.optional("write_operations", report, whole(&ranges::DISK_OPERATIONS)).unwrap_or(0),
    };
    block.finish(report);
    Some(rates)
}

/// `replicas` or `policy`; neither means one copy.
fn scale(fields: &mut Fields<'_>, report: &mut Report<'_>) -> app_spec::Scale {
    let replicas = fields.optional("replicas", report, whole_32(&ranges::COPIES));
    let policy = fields.optional("policy", report, policy);
    if fields.has("replicas") && fields.has("policy") {
        let at = fields.place("policy").unwrap_or(fields.start());
        report.add(at, "policy", "`replicas` and `policy` contradict each other; keep one: a number you choose, or bounds within which the load decides");
    }
    match policy {
        Some(elastic) => app_spec::Scale::Elastic(elastic),
        None => app_spec::Scale::Replicas(replicas.unwrap_or(defaults::REPLICAS)),
    }
}

fn ports<'n>(found: &Found<'n>, report: &mut Report<'_>) -> Option<Vec<Port>> {
    let ports = list("a list, for example [8080] or `- {name: web, port: 8080, protocol: http}`", port)(found, report)?;
    for (index, port) in ports.iter().enumerate() {
        let earlier = &ports[..index];
        if earlier.iter().any(|other| other.port == port.port) {
            found.refuse::<()>(report, format!("port {} stands there twice", port.port));
        }
        if !port.name.is_empty() && earlier.iter().any(|other| other.name == port.name) {
            found.refuse::<()>(report, format!("two ports are named \"{}\"", port.name));
        }
    }
    Some(ports)
}

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("http2", Protocol::Http2), ("tcp", Protocol::Tcp)];

fn port(found: &Found<'_>, report: &mut Report<'_>) -> Option<Port> {
    if matches!(found.node.value, Value::Plain(_)) {
        let port = whole_32(&ranges::PORT)(found, report)?;
        return Some(Port { name: String::new(), port, protocol: defaults::PROTOCOL.into() });
    }
    let mut block =
        Fields::open(found, "a port's number or fields, for example 8080 or {name: web, port: 8080}", report)?;
    let name = block.optional("name", report, name).unwrap_or_default();
    let port = block.required("port", "8080", report, whole_32(&ranges::PORT));
    let protocol = block
        .optional("protocol", report, |found, report| word(found, PROTOCOLS, report))
        .unwrap_or(defaults::PROTOCOL);
    block.finish(report);
    Some(Port { name, port: port?, protocol: protocol.into() })
}

/// A label and exactly one of `in`, `not_in`, `exists`.
fn constraint(found: &Found<'_>, report: &mut Report<'_>) -> Option<Constraint> {
    let mut block = Fields::open(found, "a condition, for example {label: zone, in: [a, b]}", report)?;
    let label = block.required("label", "zone", report, label);
    let said = ["in", "not_in", "exists"].into_iter().filter(|operator| block.has(operator)).count();
    let within = block.optional("in", report, values).map(|values| (Operator::In, values));
    let without = block.optional("not_in", report, values).map(|values| (Operator::NotIn, values));
    let exists = block.optional("exists", report, truth).map(|exists| match exists {
        true => (Operator::Exists, Vec::new()),
        false => (Operator::NotExists, Vec::new()),
    });
    block.finish(report);
    if said != 1 {
        return found.refuse(report, "needs exactly one of in, not_in, exists; for example {label: zone, in: [a, b]}");
    }
    let (operator, values) = within.or(without).or(exists)?;
    Some(Constraint { label: label?, operator: operator.into(), values })
}

fn values<'n>(found: &Found<'n>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let values = list("a list of values, for example [a, b]", text)(found, report)?;
    if values.is_empty() {
        found.refuse(report, "is empty; name at least one value, for example [a, b]")
    } else {
        Some(values)
    }
}

const WHEN_FULL: &[(&str, WhenFull)] = &[("relax", WhenFull::Relax), ("refuse", WhenFull::Refuse)];

fn spread(found: &Found<'_>, report: &mut Report<'_>) -> Option<Spread> {
    let mut block = Fields::open(found, "fields, for example {by: zone, max_skew: 1, when_full: relax}", report)?;
    let by = block.required("by", "zone", report, label);
    let max_skew = block.optional("max_skew", report, whole(&ranges::SKEW));
    let when_full = block.optional("when_full", report, |found, report| word(found, WHEN_FULL, report));
    block.finish(report);
    Some(Spread {
        by: by?,
        max_skew: max_skew.and_then(|skew| u32::try_from(skew).ok()).unwrap_or(defaults::SKEW),
        when_full: when_full.unwrap_or(defaults::WHEN_FULL).into(),
    })
}

/// None: keep running. Some: stop after so many milliseconds.
fn when_cut_off(found: &Found<'_>, report: &mut Report<'_>) -> Option<Option<u64>> {
    const EXPECTED: &str = "keep_running or {stop_after: 5m}";
    match &found.node.value {
        Value::Text(text) if text == "keep_running" => Some(None),
        Value::Map(_) => {
            let mut block = Fields::open(found, EXPECTED, report)?;
            let after = block.required("stop_after", "5m", report, duration(&ranges::STOP_AFTER_MS));
            block.finish(report);
            Some(Some(after?))
        }
        _ => found.expected(report, EXPECTED),
    }
}
