//! The block `health`: up to one check of each kind, each done in exactly one way.

use bellows_core::model::check_health::{is_header, is_path};
use bellows_proto::types::check::How;
use bellows_proto::types::{Check, ExecCheck, Header, Health, HttpCheck, TcpCheck};

use super::fields::{Fields, Found, Report};
use super::leaves::{duration, environment, list, text, whole_32};
use super::ranges;
use super::shape::defaults;
use super::tree::{Value, shorten};

/// The whole block; without a check in it, it says nothing.
pub fn health(found: &Found<'_>, report: &mut Report<'_>) -> Option<Health> {
    let mut block =
        Fields::open(found, "fields, for example `readiness: {http: {port: 8080, path: /healthz}}`", report)?;
    let startup = block.optional("startup", report, once);
    let liveness = block.optional("liveness", report, once);
    let readiness = block.optional("readiness", report, readiness);
    block.finish(report);
    if startup.is_none() && liveness.is_none() && readiness.is_none() {
        return None;
    }
    Some(Health { startup, liveness, readiness })
}

/// A check that has succeeded for good when it has succeeded once.
fn once(found: &Found<'_>, report: &mut Report<'_>) -> Option<Check> {
    check(found, false, report)
}

fn readiness(found: &Found<'_>, report: &mut Report<'_>) -> Option<Check> {
    check(found, true, report)
}

fn check(found: &Found<'_>, comes_and_goes: bool, report: &mut Report<'_>) -> Option<Check> {
    let mut block = Fields::open(found, "a check, for example {tcp: 8080, period: 5s}", report)?;
    let said = ["exec", "http", "tcp"].into_iter().filter(|how| block.has(how)).count();
    let exec = block.optional("exec", report, command).map(|command| How::Exec(ExecCheck { command }));
    let http = block.optional("http", report, http).map(How::Http);
    let tcp = block.optional("tcp", report, whole_32(&ranges::PORT)).map(|port| How::Tcp(TcpCheck { port }));
    let mut time = |name, range, default| block.optional(name, report, duration(range)).unwrap_or(default);
    let initial_delay_ms = time("initial_delay", &ranges::CHECK_DELAY_MS, defaults::CHECK_DELAY_MS);
    let period_ms = time("period", &ranges::CHECK_PERIOD_MS, defaults::CHECK_PERIOD_MS);
    let timeout_ms = time("timeout", &ranges::CHECK_TIMEOUT_MS, defaults::CHECK_TIMEOUT_MS);
    let range = if comes_and_goes { &ranges::CHECK_THRESHOLD } else { &ranges::CHECK_ONCE };
    let success_threshold = block.optional("success_threshold", report, whole_32(range));
    let failure_threshold = block.optional("failure_threshold", report, whole_32(&ranges::CHECK_THRESHOLD));
    block.finish(report);
    if said != 1 {
        return found.refuse(report, "needs exactly one of exec, http, tcp; for example {tcp: 8080}");
    }
    Some(Check {
        how: Some(exec.or(http).or(tcp)?),
        initial_delay_ms,
        period_ms,
        timeout_ms,
        success_threshold: success_threshold.unwrap_or(defaults::CHECK_SUCCESSES),
        failure_threshold: failure_threshold.unwrap_or(defaults::CHECK_FAILURES),
    })
}

fn command(found: &Found<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let words = list("a program and its arguments, for example [test, -f, /ready]", text)(found, report)?;
    match words.first().is_some_and(|program| !program.is_empty()) {
        true => Some(words),
        false => found.refuse(report, "names no program; write for example [test, -f, /ready]"),
    }
}

fn http(found: &Found<'_>, report: &mut Report<'_>) -> Option<HttpCheck> {
    let mut block = Fields::open(found, "fields, for example {port: 8080, path: /healthz}", report)?;
    let port = block.required("port", "8080", report, whole_32(&ranges::PORT));
    let path = block.optional("path", report, path);
    let headers = block.optional("headers", report, headers);
    block.finish(report);
    Some(HttpCheck { port: port?, path: path.unwrap_or_else(|| "/".to_owned()), headers: headers.unwrap_or_default() })
}

fn path(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let path = text(found, report)?;
    if is_path(&path) {
        return Some(path);
    }
    let path = shorten(&path);
    found.refuse(report, format!("\"{path}\" is no path of a request; begin it with \"/\", for example /healthz"))
}

fn headers(found: &Found<'_>, report: &mut Report<'_>) -> Option<Vec<Header>> {
    if !matches!(found.node.value, Value::Map(_)) {
        return found.expected(report, "names and values, for example {X-Probe: bellows}");
    }
    let pairs = environment(found, report)?;
    match pairs.iter().find(|(name, value)| !is_header(name, value)) {
        Some((name, _)) => found.refuse(
            report,
            format!(
                "\"{}\" cannot be sent; use names of letters, digits and dashes, values of visible ASCII",
                shorten(name)
            ),
        ),
        None => Some(pairs.into_iter().map(|(name, value)| Header { name, value }).collect()),
    }
}
