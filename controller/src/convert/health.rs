//! Health checks, as they are declared.

use bellows_core::model::health::{Check, Health, How};
use bellows_core::units::Millis;
use bellows_proto::types as wire;

use super::{Malformed, Result, required};

/// Nothing is said where nothing is checked: specs of before have the same digest as ever.
pub(super) fn health_to_wire(health: &Health) -> Option<wire::Health> {
    let of = |check: &Option<Check>| check.as_ref().map(check_to_wire);
    let Health { startup, liveness, readiness } = health;
    let any = health.checks().next().is_some();
    any.then(|| wire::Health { startup: of(startup), liveness: of(liveness), readiness: of(readiness) })
}

pub(super) fn health_from_wire(health: Option<wire::Health>) -> Result<Health> {
    let wire::Health { startup, liveness, readiness } = health.unwrap_or_default();
    let of = |name: &str, check: Option<wire::Check>| {
        let check = check.map(check_from_wire).transpose();
        check.map_err(|malformed| malformed.within(name).within("health"))
    };
    Ok(Health {
        startup: of("startup", startup)?,
        liveness: of("liveness", liveness)?,
        readiness: of("readiness", readiness)?,
    })
}

fn check_to_wire(check: &Check) -> wire::Check {
    use wire::check::How as Wire;
    let how = match &check.how {
        How::Exec { command } => Wire::Exec(wire::ExecCheck { command: command.clone() }),
        How::Http { port, path, headers } => {
            let header = |(name, value): (&String, &String)| wire::Header { name: name.clone(), value: value.clone() };
            let headers = headers.iter().map(header).collect();
            Wire::Http(wire::HttpCheck { port: u32::from(*port), path: path.clone(), headers })
        }
        How::Tcp { port } => Wire::Tcp(wire::TcpCheck { port: u32::from(*port) }),
    };
    wire::Check {
        how: Some(how),
        initial_delay_ms: check.initial_delay.0,
        period_ms: check.period.0,
        timeout_ms: check.timeout.0,
        success_threshold: check.success_threshold,
        failure_threshold: check.failure_threshold,
    }
}

fn check_from_wire(check: wire::Check) -> Result<Check> {
    use wire::check::How as Wire;
    let how = match required("how", check.how)? {
        Wire::Exec(exec) => How::Exec { command: exec.command },
        Wire::Http(http) => How::Http {
            port: port("http.port", http.port)?,
            path: http.path,
            headers: http.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        },
        Wire::Tcp(tcp) => How::Tcp { port: port("tcp.port", tcp.port)? },
    };
    Ok(Check {
        how,
        initial_delay: Millis(check.initial_delay_ms),
        period: Millis(check.period_ms),
        timeout: Millis(check.timeout_ms),
        success_threshold: check.success_threshold,
        failure_threshold: check.failure_threshold,
    })
}

fn port(field: &str, number: u32) -> Result<u16> {
    u16::try_from(number).map_err(|_| Malformed::new(field, format!("{number} is not a port; ports are 1 to 65535")))
}
