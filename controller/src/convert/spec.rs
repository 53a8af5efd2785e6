//! What a tenant declares about an app.

use bellows_core::ids::SpecDigest;
use bellows_core::model::spec::{
    AppSpec, Constraint, ConstraintOperator, DiskRates, Elastic, Isolation, Policy, Port, Protocol, Rate, Scale,
    Spread, WhenCutOff, WhenFull,
};
use bellows_core::units::{Bytes, Millis, Permille};
use bellows_proto::types as wire;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::health::{health_from_wire, health_to_wire};
use super::traffic::{concurrency_to_wire, hold_to_wire, route_to_wire, traffic_from_wire};
use super::words::{resources_from_wire, resources_to_wire};
use super::{Malformed, Result, each, required, unknown_value};

/// A whole spec: 256 KiB holds 1,000 variables of 200 bytes. It is in the log, in every snapshot, and in memory thrice.
const MAX_SPEC_BYTES: usize = 256 << 10;

/// Elements of one list: more than any app file has.
const MAX_LIST: usize = 1_024;

/// SHA-256 of the canonical encoding: fields by number, maps by key.
pub(crate) fn spec_digest(spec: &AppSpec) -> SpecDigest {
    SpecDigest(Sha256::digest(spec_to_wire(spec).encode_to_vec()).into())
}

/// At the door only: what is in the log was let in already.
pub(crate) fn check_spec_size(spec: &wire::AppSpec) -> Result<()> {
    let lists = [
        ("command", spec.command.len()),
        ("args", spec.args.len()),
        ("env", spec.env.len()),
        ("ports", spec.ports.len()),
        ("constraints", spec.constraints.len()),
        ("routes", spec.routes.len()),
        ("security.drop_capabilities", spec.security.as_ref().map_or(0, |s| s.drop_capabilities.len())),
        ("security.deny_calls", spec.security.as_ref().map_or(0, |s| s.deny_calls.len())),
        ("security.add_capabilities", spec.security.as_ref().map_or(0, |s| s.add_capabilities.len())),
        ("security.add_calls", spec.security.as_ref().map_or(0, |s| s.add_calls.len())),
    ];
    if let Some((field, count)) = lists.into_iter().find(|(_, count)| *count > MAX_LIST) {
        return Err(Malformed::new(
            field,
            format!("has {count} elements, at most {MAX_LIST} are taken; put the rest into the image"),
        ));
    }
    match spec.encoded_len() {
        bytes if bytes <= MAX_SPEC_BYTES => Ok(()),
        bytes => Err(Malformed::new(
            "size",
            format!("has {bytes} bytes, at most {MAX_SPEC_BYTES} are taken; put what is long into the image"),
        )),
    }
}

pub(crate) fn spec_to_wire(spec: &AppSpec) -> wire::AppSpec {
    wire::AppSpec {
        name: spec.name.clone(),
        tenant: spec.tenant.clone(),
        image: spec.image.clone(),
        image_digest: spec.image_digest.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        resources: Some(resources_to_wire(spec.resources)),
        processes: spec.processes,
        scratch_bytes: spec.scratch.0,
        log_bytes: spec.log.0,
        scale: Some(scale_to_wire(&spec.scale)),
        ports: spec.ports.iter().map(port_to_wire).collect(),
        stop_grace_ms: spec.stop_grace.0,
        drain_deadline_ms: spec.drain_deadline.0,
        constraints: spec.constraints.iter().map(constraint_to_wire).collect(),
        spread: spec.spread.as_ref().map(spread_to_wire),
        max_per_node: spec.max_per_node,
        stop_after_cut_off_ms: match spec.when_cut_off {
            WhenCutOff::KeepRunning => None,
            WhenCutOff::StopAfter(length) => Some(length.0),
        },
        routes: spec.traffic.routes.iter().map(route_to_wire).collect(),
        concurrency: concurrency_to_wire(&spec.traffic),
        hold: hold_to_wire(spec.traffic.hold),
        slow_start_ms: spec.traffic.slow_start.0,
        health: health_to_wire(&spec.health),
        egress: spec.isolation.egress,
        security: security_to_wire(&spec.isolation),
        cpu_weight: spec.isolation.cpu_weight,
        disk_rates: rates_to_wire(spec.isolation.disk_rates),
    }
}

pub(crate) fn spec_from_wire(spec: wire::AppSpec) -> Result<AppSpec> {
    Ok(AppSpec {
        name: spec.name,
        tenant: spec.tenant,
        image: spec.image,
        image_digest: spec.image_digest,
        command: spec.command,
        args: spec.args,
        env: spec.env,
        resources: resources_from_wire(spec.resources),
        processes: spec.processes,
        scratch: Bytes(spec.scratch_bytes),
        log: Bytes(spec.log_bytes),
        scale: scale_from_wire(required("scale", spec.scale)?)?,
        ports: each("ports", spec.ports, port_from_wire)?,
        stop_grace: Millis(spec.stop_grace_ms),
        drain_deadline: Millis(spec.drain_deadline_ms),
        constraints: each("constraints", spec.constraints, constraint_from_wire)?,
        spread: spec.spread.map(spread_from_wire).transpose()?,
        max_per_node: spec.max_per_node,
        when_cut_off: match spec.stop_after_cut_off_ms {
            None => WhenCutOff::KeepRunning,
            Some(length_ms) => WhenCutOff::StopAfter(Millis(length_ms)),
        },
        isolation: Isolation {
            egress: spec.egress,
            cpu_weight: spec.cpu_weight,
            disk_rates: rates_from_wire(spec.disk_rates.unwrap_or_default()),
            ..security_from_wire(spec.security.unwrap_or_default())
        },
        traffic: traffic_from_wire(spec.routes, spec.concurrency, spec.hold, spec.slow_start_ms)?,
        health: health_from_wire(spec.health)?,
    })
}

/// Absent when it says nothing, so that specs without it keep their digest.
fn security_to_wire(isolation: &Isolation) -> Option<wire::Confinement> {
    let said = wire::Confinement {
        drop_capabilities: isolation.drop_capabilities.clone(),
        deny_calls: isolation.deny_calls.clone(),
        add_capabilities: isolation.add_capabilities.clone(),
        add_calls: isolation.add_calls.clone(),
    };
    (said != wire::Confinement::default()).then_some(said)
}

fn security_from_wire(security: wire::Confinement) -> Isolation {
    let wire::Confinement { drop_capabilities, deny_calls, add_capabilities, add_calls } = security;
    Isolation { drop_capabilities, deny_calls, add_capabilities, add_calls, ..Isolation::default() }
}

/// Absent, as [`security_to_wire`].
fn rates_to_wire(rates: DiskRates) -> Option<wire::DiskRates> {
    (rates != DiskRates::default()).then_some(wire::DiskRates {
        read_bytes: rates.read.0,
        write_bytes: rates.write.0,
        read_operations: rates.read_operations,
        write_operations: rates.write_operations,
    })
}

fn rates_from_wire(rates: wire::DiskRates) -> DiskRates {
    DiskRates {
        read: Bytes(rates.read_bytes),
        write: Bytes(rates.write_bytes),
        read_operations: rates.read_operations,
        write_operations: rates.write_operations,
    }
}

fn scale_to_wire(scale: &Scale) -> wire::app_spec::Scale {
    match scale {
        Scale::Declared { replicas } => wire::app_spec::Scale::Replicas(*replicas),
        Scale::Policies(elastic) => wire::app_spec::Scale::Elastic(wire::Elastic {
            min: elastic.min,
            max: elastic.max,
            idle_grace_ms: elastic.idle_grace.0,
            spare: elastic.spare,
            policies: elastic.policies.iter().map(policy_to_wire).collect(),
            up: elastic.up.map(rate_to_wire),
            down: elastic.down.map(rate_to_wire),
        }),
    }
}

fn scale_from_wire(scale: wire::app_spec::Scale) -> Result<Scale> {
    match scale {
        wire::app_spec::Scale::Replicas(replicas) => Ok(Scale::Declared { replicas }),
        wire::app_spec::Scale::Elastic(elastic) => {
            elastic_from_wire(elastic).map(Scale::Policies).map_err(|malformed| malformed.within("elastic"))
        }
    }
}

fn elastic_from_wire(elastic: wire::Elastic) -> Result<Elastic> {
    Ok(Elastic {
        min: elastic.min,
        max: elastic.max,
        idle_grace: Millis(elastic.idle_grace_ms),
        spare: elastic.spare,
        policies: each("policies", elastic.policies, policy_from_wire)?,
        up: elastic.up.map(rate_from_wire),
        down: elastic.down.map(rate_from_wire),
    })
}

fn policy_to_wire(policy: &Policy) -> wire::Policy {
    use wire::policy::Reading;
    let reading = match policy {
        Policy::Cpu { target } => Reading::Cpu(wire::CpuPolicy { target_permille: target.0 }),
        Policy::Memory { target } => Reading::Memory(wire::MemoryPolicy { target_permille: target.0 }),
        Policy::Concurrency { target } => Reading::Concurrency(wire::ConcurrencyPolicy { target: *target }),
        Policy::RequestsPerSecond { target } => Reading::RequestsPerSecond(wire::RequestRatePolicy { target: *target }),
    };
    wire::Policy { reading: Some(reading) }
}

fn policy_from_wire(policy: wire::Policy) -> Result<Policy> {
    use wire::policy::Reading;
    Ok(match required("reading", policy.reading)? {
        Reading::Cpu(cpu) => Policy::Cpu { target: Permille(cpu.target_permille) },
        Reading::Memory(memory) => Policy::Memory { target: Permille(memory.target_permille) },
        Reading::Concurrency(concurrency) => Policy::Concurrency { target: concurrency.target },
        Reading::RequestsPerSecond(rate) => Policy::RequestsPerSecond { target: rate.target },
    })
}

fn rate_to_wire(rate: Rate) -> wire::Rate {
    wire::Rate { copies: rate.copies, per_ms: rate.per.0 }
}

fn rate_from_wire(rate: wire::Rate) -> Rate {
    Rate { copies: rate.copies, per: Millis(rate.per_ms) }
}

pub(super) fn port_to_wire(port: &Port) -> wire::Port {
    let protocol = match port.protocol {
        Protocol::Http => wire::port::Protocol::Http,
        Protocol::Tcp => wire::port::Protocol::Tcp,
        Protocol::Http2 => wire::port::Protocol::Http2,
    };
    wire::Port { name: port.name.clone(), port: u32::from(port.port), protocol: protocol.into() }
}

fn port_from_wire(port: wire::Port) -> Result<Port> {
    let protocol = match wire::port::Protocol::try_from(port.protocol) {
        Ok(wire::port::Protocol::Http) => Protocol::Http,
        Ok(wire::port::Protocol::Tcp) => Protocol::Tcp,
        Ok(wire::port::Protocol::Http2) => Protocol::Http2,
        Ok(wire::port::Protocol::Unspecified) | Err(_) => return Err(unknown_value("protocol", port.protocol)),
    };
    let number = u16::try_from(port.port)
        .map_err(|_| Malformed::new("port", format!("{} is not a port; ports are 1 to 65535", port.port)))?;
    Ok(Port { name: port.name, port: number, protocol })
}

fn constraint_to_wire(constraint: &Constraint) -> wire::Constraint {
    let operator = match constraint.operator {
        ConstraintOperator::In => wire::constraint::Operator::In,
        ConstraintOperator::NotIn => wire::constraint::Operator::NotIn,
        ConstraintOperator::Exists => wire::constraint::Operator::Exists,
        ConstraintOperator::NotExists => wire::constraint::Operator::NotExists,
    };
    let values = constraint.values.clone();
    wire::Constraint { label: constraint.label.clone(), operator: operator.into(), values }
}

fn constraint_from_wire(constraint: wire::Constraint) -> Result<Constraint> {
    use wire::constraint::Operator;
    let operator = match Operator::try_from(constraint.operator) {
        Ok(Operator::In) => ConstraintOperator::In,
        Ok(Operator::NotIn) => ConstraintOperator::NotIn,
        Ok(Operator::Exists) => ConstraintOperator::Exists,
        Ok(Operator::NotExists) => ConstraintOperator::NotExists,
        Ok(Operator::Unspecified) | Err(_) => return Err(unknown_value("operator", constraint.operator)),
    };
    Ok(Constraint { label: constraint.label, operator, values: constraint.values })
}

fn spread_to_wire(spread: &Spread) -> wire::Spread {
    let when_full = match spread.when_full {
        WhenFull::Relax => wire::spread::WhenFull::Relax,
        WhenFull::Refuse => wire::spread::WhenFull::Refuse,
    };
    wire::Spread { by: spread.by.clone(), max_skew: spread.max_skew, when_full: when_full.into() }
}

fn spread_from_wire(spread: wire::Spread) -> Result<Spread> {
    let when_full = match wire::spread::WhenFull::try_from(spread.when_full) {
        Ok(wire::spread::WhenFull::Relax) => WhenFull::Relax,
        Ok(wire::spread::WhenFull::Refuse) => WhenFull::Refuse,
        Ok(wire::spread::WhenFull::Unspecified) | Err(_) => {
            return Err(unknown_value("spread.when_full", spread.when_full));
        }
    };
    Ok(Spread { by: spread.by, max_skew: spread.max_skew, when_full })
}
