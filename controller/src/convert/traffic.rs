//! How requests reach an app: what its file says, for the log, for agents and for people.

use bellows_core::model::spec::{Hold, Route, Traffic};
use bellows_core::units::{Bytes, Millis};
use bellows_proto::types as wire;

use super::{Malformed, Result, each};

pub(crate) fn route_to_wire(route: &Route) -> wire::Route {
    wire::Route {
        listen: route.listen.map_or(0, u32::from),
        host: route.host.clone(),
        path: route.path.clone(),
        port: u32::from(route.port),
        tls: route.tls,
        max_body: route.max_body.map_or(0, |most| most.0),
    }
}

/// Nothing said is said as nothing: the digests of apps that say nothing stay as they were.
pub(crate) fn concurrency_to_wire(traffic: &Traffic) -> Option<wire::Concurrency> {
    let (limit, target) = (traffic.limit, traffic.target);
    (limit.is_some() || target.is_some()).then_some(wire::Concurrency { limit, target })
}

/// Likewise.
pub(crate) fn hold_to_wire(hold: Hold) -> Option<wire::Hold> {
    let said = wire::Hold { requests: hold.requests, bytes: hold.bytes.0, time_ms: hold.time.0 };
    (hold != Hold::default()).then_some(said)
}

pub(crate) fn traffic_from_wire(
    routes: Vec<wire::Route>,
    concurrency: Option<wire::Concurrency>,
    hold: Option<wire::Hold>,
    slow_start_ms: u64,
) -> Result<Traffic> {
    let wire::Concurrency { limit, target } = concurrency.unwrap_or_default();
    let hold = hold.map_or_else(Hold::default, |hold| Hold {
        requests: hold.requests,
        bytes: Bytes(hold.bytes),
        time: Millis(hold.time_ms),
    });
    let routes = each("routes", routes, route_from_wire)?;
    Ok(Traffic { routes, limit, target, hold, slow_start: Millis(slow_start_ms) })
}

fn route_from_wire(route: wire::Route) -> Result<Route> {
    let port = |field, number: u32| {
        u16::try_from(number)
            .map_err(|_| Malformed::new(field, format!("{number} is not a port; ports are 1 to 65535")))
    };
    Ok(Route {
        listen: Some(port("listen", route.listen)?).filter(|port| *port != 0),
        host: route.host,
        path: route.path,
        port: port("port", route.port)?,
        tls: route.tls,
        max_body: Some(Bytes(route.max_body)).filter(|most| most.0 > 0),
    })
}
