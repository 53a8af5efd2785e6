//! Is what an app says of its traffic possible, and does it keep out of other apps' ways? One request leads to one app.

use super::Model;
use super::bounds::{self, is_host, is_path};
use super::check::{Faults, plain};
use super::spec::{AppSpec, Elastic, Policy, Port, Protocol, Rate, Route, Scale};
use crate::ids::AppId;
use crate::units::{Bytes, Millis};

impl Route {
    /// The same path, whichever way it was written: `/api` and `/api/` take the same requests.
    pub fn prefix(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// What it speaks, by the app's port.
    pub fn protocol(&self, ports: &[Port]) -> Option<Protocol> {
        ports.iter().find(|port| port.port == self.port).map(|port| port.protocol)
    }

    /// Where it takes requests, for people.
    pub fn place(&self) -> String {
        let host = if self.host.is_empty() { "every host" } else { &self.host };
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match self.listen {
            Some(port) => format!("port {port}, {host}, path {path}"),
            None => format!("{host}, path {path}"),
        }
    }
}

/// May both be open at one time? Raw TCP needs its port for itself; HTTP shares one by hosts and paths, all in TLS or none.
fn collide((one, ours): (&Route, Option<Protocol>), (other, theirs): (&Route, Option<Protocol>)) -> bool {
    if one.listen != other.listen {
        return false;
    }
    let raw = ours == Some(Protocol::Tcp) || theirs == Some(Protocol::Tcp);
    let differ = one.listen.is_some() && one.tls != other.tls;
    raw || differ || (&one.host, one.prefix()) == (&other.host, other.prefix())
}

impl Model {
    /// Another app takes the same requests: the refusal in words, with the field's name.
    pub fn ways_taken(&self, spec: &AppSpec) -> Option<String> {
        let (at, theirs, route) = taken(self, spec)?;
        Some(taken_text(at, &spec.traffic.routes[at], theirs, route))
    }
}

/// The route of another app that takes the same requests: which of ours, whose, and which of theirs.
fn taken<'m>(model: &'m Model, spec: &AppSpec) -> Option<(usize, &'m AppSpec, &'m Route)> {
    if spec.traffic.routes.is_empty() {
        return None;
    }
    let own: Option<AppId> = model.app_names.get(&(spec.tenant.clone(), spec.name.clone())).copied();
    let others = model.apps.values().filter(|app| Some(app.id) != own).map(|app| app.current.spec.as_ref());
    others.flat_map(|other| other.traffic.routes.iter().map(move |route| (other, route))).find_map(|(other, route)| {
        let theirs = (route, route.protocol(&other.ports));
        let same = |ours: &Route| collide((ours, ours.protocol(&spec.ports)), theirs);
        let at = spec.traffic.routes.iter().position(same)?;
        Some((at, other, route))
    })
}

fn taken_text(at: usize, ours: &Route, theirs: &AppSpec, route: &Route) -> String {
    let whose = format!("{} of tenant {}", theirs.name, theirs.tenant);
    format!(
        "routes[{at}]: {} is taken: {} leads to app {whose}; choose another host, path or port, or remove it there first",
        ours.place(),
        route.place()
    )
}

impl AppSpec {
    pub(super) fn check_traffic(&self, faults: &mut Faults) {
        for at in 0..self.traffic.routes.len() {
            self.check_route(faults, at);
        }
        let traffic = &self.traffic;
        for (field, value) in [("concurrency.limit", traffic.limit), ("concurrency.target", traffic.target)] {
            if let Some(value) = value {
                faults.within(bounds::CONCURRENCY, field, value.into(), plain);
            }
        }
        self.check_target(faults, "concurrency.target", traffic.target);
        faults.within(bounds::HELD_REQUESTS, "hold.requests", traffic.hold.requests.into(), plain);
        faults.within(bounds::HELD_BYTES, "hold.bytes", traffic.hold.bytes.0, Bytes);
        faults.within(bounds::HOLD_TIME_MS, "hold.time", traffic.hold.time.0, Millis);
        faults.within(bounds::SLOW_START_MS, "slow_start", traffic.slow_start.0, Millis);
        if let Scale::Policies(elastic) = &self.scale {
            self.check_demand(faults, elastic);
        }
    }

    fn check_route(&self, faults: &mut Faults, at: usize) {
        let route = &self.traffic.routes[at];
        let field = format!("routes[{at}]");
        let protocol = route.protocol(&self.ports);
        faults.unless(
            protocol.is_some(),
            &field,
            format!("port {} is none of the app's", route.port),
            "name it under `ports` too, or lead to one that is there",
        );
        if let Some(listen) = route.listen {
            faults.within(bounds::PORT, &field, listen.into(), plain);
        }
        faults.unless(
            route.host.is_empty() || is_host(&route.host),
            &field,
            format!("\"{}\" cannot be a host's name", route.host),
            "use names of a-z, 0-9 and \"-\" with dots between, for example web.example.org",
        );
        faults.unless(
            route.path.is_empty() || is_path(&route.path),
            &field,
            format!("\"{}\" cannot be the beginning of a path", route.path),
            "begin with \"/\", and use visible letters without \"?\", \"#\", \"%\", empty segments and dots alone",
        );
        let raw = protocol == Some(Protocol::Tcp);
        let bare = route.host.is_empty() && route.prefix().is_empty();
        faults.unless(
            !raw || (bare && route.listen.is_some()),
            &field,
            "leads to a TCP port, where there are no hosts and paths",
            "name the nodes' port with `listen`, and nothing else; or let the app's port speak http",
        );
        if let Some(most) = route.max_body {
            faults.within(bounds::MAX_BODY, &field, most.0, Bytes);
        }
        faults.unless(
            !route.tls || route.listen.is_some(),
            &field,
            "says `tls`, which belongs to a port of its own",
            "name the nodes' port with `listen`, or leave `tls` out: where nodes have certificates the shared ports take TLS too",
        );
        let earlier = &self.traffic.routes[..at];
        let twice = earlier.iter().any(|other| collide((route, protocol), (other, other.protocol(&self.ports))));
        faults.unless(!twice, &field, format!("{} is there twice", route.place()), "name each way once");
    }

    /// A copy that may not have as many requests as it shall have never reaches its target.
    fn check_target(&self, faults: &mut Faults, field: &str, target: Option<u32>) {
        if let (Some(limit), Some(target)) = (self.traffic.limit, target) {
            faults.unless(
                target <= limit,
                field,
                format!("target {target} is above concurrency.limit, which is {limit}"),
                "lower the target or raise the limit",
            );
        }
    }

    fn check_demand(&self, faults: &mut Faults, elastic: &Elastic) {
        for policy in &elastic.policies {
            match policy {
                Policy::Concurrency { target } => {
                    faults.within(bounds::CONCURRENCY, "policy.concurrency.target", (*target).into(), plain);
                    self.check_target(faults, "policy.concurrency.target", Some(*target));
                }
                Policy::RequestsPerSecond { target } => {
                    faults.within(bounds::REQUEST_RATE, "policy.requests_per_second.target", (*target).into(), plain);
                }
                Policy::Cpu { .. } | Policy::Memory { .. } => {}
            }
        }
        let by_requests = elastic.policies.iter().any(Policy::by_requests);
        faults.unless(
            !by_requests || !self.traffic.routes.is_empty(),
            "routes",
            "there are none, but a policy counts requests",
            "name a way to the app, for example `- {host: web.example.org}`",
        );
        check_rate(faults, "policy.up", elastic.up);
        check_rate(faults, "policy.down", elastic.down);
    }
}

fn check_rate(faults: &mut Faults, field: &str, rate: Option<Rate>) {
    if let Some(Rate { copies, per }) = rate {
        faults.within(bounds::MOST_COPIES, &format!("{field}.copies"), copies.into(), plain);
        faults.within(bounds::RATE_PER_MS, &format!("{field}.per"), per.0, Millis);
    }
}
