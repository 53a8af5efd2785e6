//! How requests reach an app and share its copies.

use bellows_core::model::bounds::{is_host, is_path};
use bellows_proto::types::policy::Reading;
use bellows_proto::types::port::Protocol;
use bellows_proto::types::{AppSpec, Concurrency, Hold, Port, Route, app_spec};

use super::fields::{Fields, Found, Report};
use super::leaves::{duration, filled, list, size, truth, whole_32};
use super::ranges;
use super::shape::defaults;
use super::tree::{Value, shorten};

/// The fields about traffic, into a spec that has its ports and policies already.
pub fn traffic(fields: &mut Fields<'_>, spec: &mut AppSpec, report: &mut Report<'_>) {
    let ports = spec.ports.clone();
    let one = |found: &Found<'_>, report: &mut Report<'_>| route(found, &ports, report);
    let routes = fields.optional("routes", report, list("a list, for example `- {host: web.example.org}`", one));
    let broken = fields.has("routes") && routes.is_none(); // told already
    spec.routes = routes.unwrap_or_default();
    let said = fields.optional("concurrency", report, concurrency);
    spec.concurrency = with_target(said, spec);
    spec.hold = fields.optional("hold", report, hold);
    spec.slow_start_ms = fields.optional("slow_start", report, duration(&ranges::SLOW_START_MS)).unwrap_or(0);
    if spec.routes.is_empty() && demand_target(spec).is_some() && !broken {
        let words =
            "routes: there are none, but a policy counts requests; add for example `routes: [{host: web.example.org}]`";
        report.add(fields.place("routes").unwrap_or(fields.start()), "routes", words);
    }
    compare(fields, spec, report);
}

/// What the policies of requests say, if there are any: how many at once, if they say that.
fn demand_target(spec: &AppSpec) -> Option<Option<u32>> {
    let Some(app_spec::Scale::Elastic(elastic)) = &spec.scale else { return None };
    let mut found = None;
    for policy in &elastic.policies {
        match &policy.reading {
            Some(Reading::Concurrency(concurrency)) => return Some(Some(concurrency.target)),
            Some(Reading::RequestsPerSecond(_)) => found = Some(None),
            _ => {}
        }
    }
    found
}

/// Where nothing else is said, a copy shall be filled as far as the policy reckons with, or to its limit.
fn with_target(said: Option<Concurrency>, spec: &AppSpec) -> Option<Concurrency> {
    let by_policy = demand_target(spec).flatten();
    if said.is_none() && by_policy.is_none() && spec.routes.is_empty() {
        return None;
    }
    let Concurrency { limit, target } = said.unwrap_or_default();
    Some(Concurrency { limit, target: target.or(by_policy).or(limit).or(Some(defaults::CONCURRENCY)) })
}

fn compare(fields: &Fields<'_>, spec: &AppSpec, report: &mut Report<'_>) {
    let Some(Concurrency { limit: Some(limit), target }) = spec.concurrency else { return };
    let by_policy = demand_target(spec).flatten();
    let targets = [("policy", "policy.concurrency.target", by_policy), ("concurrency", "concurrency.target", target)];
    let above = targets.into_iter().find(|(.., target)| target.is_some_and(|target| target > limit));
    if let Some((block, field, Some(target))) = above {
        let at = fields.place(block).unwrap_or(fields.start());
        report.add(at, field, format!("{field}: {target} is more than concurrency.limit, which is {limit}"));
    }
}

fn route(found: &Found<'_>, ports: &[Port], report: &mut Report<'_>) -> Option<Route> {
    let mut block = Fields::open(found, "fields, for example {host: web.example.org, path: /api}", report)?;
    let listen = block.optional("listen", report, whole_32(&ranges::PORT)).unwrap_or(0);
    let host = block.optional("host", report, host).unwrap_or_default();
    let path = block.optional("path", report, path).unwrap_or_default();
    let to = block.optional("to", report, |found, report| port_of(found, ports, report));
    let tls = block.optional("tls", report, truth).unwrap_or(false);
    let max_body = block.optional("max_body", report, size(&ranges::MAX_BODY)).unwrap_or(0);
    let homeless = block.has("tls") && !block.has("listen");
    let said = block.has("to");
    block.finish(report);
    let port = match to {
        Some(port) => port,
        None if said => return None,
        None => match ports.first() {
            Some(first) => first,
            None => return found.refuse(report, "leads to no port: the app has none; add for example `ports: [8080]`"),
        },
    };
    if port.protocol() == Protocol::Tcp && (listen == 0 || !host.is_empty() || !path.is_empty()) {
        let words = "leads to a TCP port, where there are no hosts and paths; say `listen` and nothing else, or let the port speak http";
        return found.refuse(report, words);
    }
    if homeless {
        let words = "says `tls` without a port of its own; say `listen` too, or leave `tls` out: the ports that apps share take TLS where nodes have certificates";
        return found.refuse(report, words);
    }
    Some(Route { listen, host, path, port: port.port, tls, max_body })
}

/// A port of the app, by its name or number.
fn port_of<'p>(found: &Found<'_>, ports: &'p [Port], report: &mut Report<'_>) -> Option<&'p Port> {
    let known = |said: &str, named: bool| match ports.iter().find(|port| match named {
        true => port.name == said,
        false => port.port.to_string() == said,
    }) {
        Some(port) => Ok(port),
        None => Err(format!("{} leads to no port of this app", shorten(said))),
    };
    let looked = match &found.node.value {
        Value::Text(name) if !name.is_empty() => known(name, true),
        Value::Plain(_) => {
            let number = whole_32(&ranges::PORT)(found, report)?;
            known(&number.to_string(), false)
        }
        _ => return found.expected(report, "the name or number of one of the app's ports, for example 8080"),
    };
    match looked {
        Ok(port) => Some(port),
        Err(words) => found.refuse(report, words),
    }
}

fn host(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let said = filled(found, report)?;
    if is_host(&said) {
        return Some(said);
    }
    let words = format!(
        "\"{}\" is no host's name; expected lower-case letters, digits and dashes with dots between, for example web.example.org",
        shorten(&said)
    );
    found.refuse(report, words)
}

fn path(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let said = filled(found, report)?;
    if is_path(&said) {
        return Some(said);
    }
    let words = format!(
        "\"{}\" is no beginning of a path; expected a slash and visible letters without ?, #, % and dots alone, for example /api",
        shorten(&said)
    );
    found.refuse(report, words)
}

fn concurrency(found: &Found<'_>, report: &mut Report<'_>) -> Option<Concurrency> {
    let mut block = Fields::open(found, "fields, for example {limit: 10, target: 7}", report)?;
    let limit = block.optional("limit", report, whole_32(&ranges::CONCURRENCY));
    let target = block.optional("target", report, whole_32(&ranges::CONCURRENCY));
    block.finish(report);
    Some(Concurrency { limit, target })
}

fn hold(found: &Found<'_>, report: &mut Report<'_>) -> Option<Hold> {
    let mut block = Fields::open(found, "fields, for example {requests: 1000, bytes: 16Mi, time: 10s}", report)?;
    let hold = Hold {
        requests: block
            .optional("requests", report, whole_32(&ranges::HELD_REQUESTS))
            .unwrap_or(defaults::HELD_REQUESTS),
        bytes: block.optional("bytes", report, size(&ranges::HELD_BYTES)).unwrap_or(defaults::HELD_BYTES),
        time_ms: block.optional("time", report, duration(&ranges::HOLD_TIME_MS)).unwrap_or(defaults::HOLD_TIME_MS),
    };
    block.finish(report);
    Some(hold)
}
