//! Between the driver and the data plane: what the leader says of routes goes down, what the data plane counts goes up.

use std::pin::Pin;
use std::time::Duration;

use bellows_agent_core::traffic::entrance::{Protocol, Route};
use bellows_agent_core::traffic::hold::Hold;
use bellows_agent_core::traffic::{Demand, Entrance, HereCopy, Owner, Terms, ToldCopy, Update};
use bellows_agent_core::{
    Allowance, AppId, Asked, Bytes, Fence, Millis, ReplicaId, RevisionNumber, SessionId, SpecDigest,
};
use bellows_proto::{node as wire, types};

use crate::convert::{self, Misunderstood};

/// Demand that has changed, whenever it is there.
pub(crate) type Changed<'a> = Pin<Box<dyn Future<Output = Vec<(AppId, Demand)>> + Send + 'a>>;

/// What the driver tells the data plane of this node, and asks of it. Nothing here waits but `changed`.
pub(crate) trait DataPlane: Send + Sync {
    /// Where requests come in; with `whole`, what is not named is gone.
    fn entrances(&self, whole: bool, changed: Vec<Entrance>, gone: &[AppId]);
    /// These nodes left for good: their certificates are worth nothing.
    fn removed_nodes(&self, nodes: &[u32]);
    /// The leader's word on an app's copies.
    fn routes(&self, app: AppId, update: Update);
    /// What is known of an app's copies elsewhere gets old from now on.
    fn forget(&self, app: AppId);
    /// This agent's own word on a copy here. From its return on nobody is let in to one that is parked.
    fn here(&self, app: AppId, copy: HereCopy);
    /// A copy here has ended.
    fn here_no_more(&self, replica: ReplicaId);
    /// Requests in a copy here, now and exactly.
    fn in_flight(&self, replica: ReplicaId) -> u32;
    /// The data plane's own connections to a copy here.
    fn connections(&self, replica: ReplicaId) -> u32;
    /// Takes nothing new, and waits at most this long until what is under way has ended. Blocks.
    fn finish(&self, within: Duration);
    /// Waits for demand that has changed.
    fn changed(&self) -> Changed<'_>;
}

/// Of a node that takes no requests.
pub(crate) struct NoIngress;

impl DataPlane for NoIngress {
    fn entrances(&self, _: bool, _: Vec<Entrance>, _: &[AppId]) {}
    fn removed_nodes(&self, _: &[u32]) {}
    fn routes(&self, _: AppId, _: Update) {}
    fn forget(&self, _: AppId) {}
    fn here(&self, _: AppId, _: HereCopy) {}
    fn here_no_more(&self, _: ReplicaId) {}
    fn in_flight(&self, _: ReplicaId) -> u32 {
        0
    }
    fn connections(&self, _: ReplicaId) -> u32 {
        0
    }
    fn finish(&self, _: Duration) {}
    fn changed(&self) -> Changed<'_> {
        Box::pin(std::future::pending())
    }
}

/// A push of ways in.
pub(crate) struct EntrancePush {
    pub(crate) fence: Fence,
    pub(crate) session: SessionId,
    pub(crate) whole: bool,
    pub(crate) changed: Vec<wire::Entrance>,
    pub(crate) gone: Vec<AppId>,
    /// Nodes that left for good.
    pub(crate) removed: Vec<u32>,
}

/// A push of copies, by app.
pub(crate) struct RoutePush {
    pub(crate) fence: Fence,
    pub(crate) session: SessionId,
    pub(crate) apps: Vec<wire::AppRoutes>,
}

/// What may be started here.
pub(crate) struct AllowancePush {
    pub(crate) fence: Fence,
    pub(crate) session: SessionId,
    pub(crate) version: u64,
    pub(crate) specs: Vec<(SpecDigest, types::AppSpec)>,
    pub(crate) allowances: Vec<Allowance>,
}

pub(crate) fn entrance_push(push: wire::Entrances) -> Result<EntrancePush, Misunderstood> {
    Ok(EntrancePush {
        fence: convert::fence(push.fence)?,
        session: SessionId(push.session),
        whole: push.whole,
        changed: push.apps,
        gone: push.gone.into_iter().map(AppId).collect(),
        removed: push.removed_nodes,
    })
}

pub(crate) fn route_push(push: wire::Routes) -> Result<RoutePush, Misunderstood> {
    Ok(RoutePush { fence: convert::fence(push.fence)?, session: SessionId(push.session), apps: push.apps })
}

pub(crate) fn allowance_push(push: wire::Allowances) -> Result<AllowancePush, Misunderstood> {
    Ok(AllowancePush {
        fence: convert::fence(push.fence)?,
        session: SessionId(push.session),
        version: push.version,
        specs: convert::specs(push.specs)?,
        allowances: push.allowances.into_iter().map(allowance).collect::<Result<_, _>>()?,
    })
}

fn allowance(allowance: wire::Allowance) -> Result<Allowance, Misunderstood> {
    Ok(Allowance {
        id: convert::replica(allowance.id)?,
        app: AppId(allowance.app),
        revision: RevisionNumber(allowance.revision),
        digest: convert::digest(&allowance.spec_digest)?,
    })
}

pub(crate) fn wire_allowance(allowance: &Allowance) -> wire::Allowance {
    wire::Allowance {
        id: Some(convert::wire_replica(allowance.id)),
        app: allowance.app.0,
        revision: allowance.revision.0,
        spec_digest: allowance.digest.0.to_vec(),
    }
}

/// `shared` are the ports that stand for "those that all apps share".
pub(crate) fn entrance(entrance: wire::Entrance, shared: &[u16]) -> Result<Entrance, Misunderstood> {
    let mut routes = Vec::new();
    for route in entrance.routes {
        let spoken = entrance.ports.iter().find(|port| port.port == route.port).map(types::Port::protocol);
        let protocol = match spoken {
            Some(types::port::Protocol::Tcp) => Protocol::Tcp,
            Some(types::port::Protocol::Http2) => Protocol::Http2,
            _ => Protocol::Http,
        };
        let listens = match port(route.listen)? {
            0 => shared.to_vec(),
            own => vec![own],
        };
        let (host, path, to) = (route.host, route.path.trim_end_matches('/').to_owned(), port(route.port)?);
        let max_body = Some(Bytes(route.max_body)).filter(|most| most.0 > 0);
        let way = |listen| Route {
            listen,
            host: host.clone(),
            path: path.clone(),
            port: to,
            protocol,
            tls: route.tls,
            max_body,
        };
        routes.extend(listens.into_iter().map(way));
    }
    Ok(Entrance { app: AppId(entrance.app), name: entrance.name, routes, elastic: entrance.elastic })
}

fn port(number: u32) -> Result<u16, Misunderstood> {
    u16::try_from(number).map_err(|_| Misunderstood { what: "a route with an impossible port" })
}

/// The leader's word on an app, for the ingress of this node.
pub(crate) fn update(app: wire::AppRoutes, own: u32) -> Result<Update, Misunderstood> {
    let types::Concurrency { limit, target } = app.concurrency.unwrap_or_default();
    let hold = app.hold.map_or_else(Hold::default, |hold| Hold {
        requests: hold.requests,
        bytes: Bytes(hold.bytes),
        time: Millis(hold.time_ms),
    });
    let told = |copy: wire::RouteReplica| {
        let reached = copy.node == own || !copy.owner.is_empty();
        let owner = if copy.node == own { Owner::Here } else { Owner::At(copy.owner) };
        let (ready, parked) = (copy.ready && reached, copy.parked);
        Ok(ToldCopy { replica: convert::replica(copy.id)?, owner, ready, parked })
    };
    let terms = Terms { limit, target, hold, slow_start: Millis(app.slow_start_ms) };
    let gone = app.gone.into_iter().map(|id| convert::replica(Some(id))).collect::<Result<_, _>>()?;
    let copies = app.replicas.into_iter().map(told).collect::<Result<_, _>>()?;
    Ok(Update { version: app.version, whole: app.whole, terms, copies, gone, waiting: app.waiting })
}

pub(crate) fn wire_traffic(
    session: SessionId,
    apps: Vec<(AppId, Asked)>,
    replicas: Vec<(ReplicaId, u32)>,
) -> wire::Traffic {
    let app = |(app, asked): (AppId, Asked)| wire::AppTraffic {
        app: app.0,
        held: asked.held,
        arrivals: asked.arrivals,
        oldest_held_ms: asked.oldest_held.0,
        refused: asked.refused,
        last_refused: asked.last_refusal.map(|(why, ago)| wire::RefusedRequest { why, ago_ms: ago.0 }),
    };
    let copy = |(id, in_flight)| wire::ReplicaTraffic { id: Some(convert::wire_replica(id)), in_flight };
    wire::Traffic {
        session: session.0,
        apps: apps.into_iter().map(app).collect(),
        replicas: replicas.into_iter().map(copy).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_entrance(listen: u32, protocol: types::port::Protocol) -> wire::Entrance {
        let route = types::Route {
            listen,
            host: "a.example".to_owned(),
            path: "/api/".to_owned(),
            port: 80,
            ..types::Route::default()
        };
        let port = types::Port { name: String::new(), port: 80, protocol: protocol.into() };
        wire::Entrance { app: 3, routes: vec![route], ports: vec![port], ..wire::Entrance::default() }
    }

    #[test]
    fn a_route_without_a_port_is_open_on_all_shared_ones() {
        let told = entrance(wire_entrance(0, types::port::Protocol::Http), &[8080, 8443]).expect("it can be meant");
        let ways: Vec<_> =
            told.routes.iter().map(|route| (route.listen, route.path.as_str(), route.protocol)).collect();
        assert_eq!(ways, [(8080, "/api", Protocol::Http), (8443, "/api", Protocol::Http)]);
    }

    #[test]
    fn a_route_speaks_what_its_port_speaks() {
        let told = entrance(wire_entrance(5432, types::port::Protocol::Tcp), &[8080]).expect("it can be meant");
        assert_eq!((told.routes[0].listen, told.routes[0].protocol), (5432, Protocol::Tcp));
        assert!(entrance(wire_entrance(70_000, types::port::Protocol::Http), &[]).is_err());
    }

    #[test]
    fn a_copy_whose_owner_cannot_be_reached_takes_nothing() {
        let copy = |node, owner: &str| {
            let id = wire::RouteReplica::default().id.or(Some(convert::wire_replica(ReplicaId::default())));
            wire::RouteReplica { id, node, owner: owner.to_owned(), ready: true, ..wire::RouteReplica::default() }
        };
        let replicas = vec![copy(1, ""), copy(2, ""), copy(3, "n3:7071")];
        let told = update(wire::AppRoutes { replicas, ..wire::AppRoutes::default() }, 1).expect("it can be meant");
        let ready: Vec<bool> = told.copies.iter().map(|copy| copy.ready).collect();
        assert_eq!(ready, [true, false, true]);
        assert_eq!(told.copies[0].owner, Owner::Here);
    }
}
