//! The agents of a `dev` cluster: each is what `bellows agent` runs, with a share of this machine.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::Poll;

use bellows_agent::ingress::IngressConfig;
use bellows_agent::{Agent, AgentConfig, Replicas};

use super::cluster::Wishes;
use super::plan::NodePlan;
use crate::execution;
use crate::failure::{Failure, chain};

/// Where the nodes' ingresses reach each other.
const LINKS: u16 = 7443;

/// Joins the cluster and adopts what an earlier start left running.
pub async fn start(plan: &NodePlan, wishes: &Wishes, controller: SocketAddr, token: &str) -> Result<Agent, Failure> {
    let config = AgentConfig {
        name: plan.name.clone(),
        state: plan.state.clone(),
        store: wishes.folders.store(),
        controllers: vec![format!("https://{controller}")],
        token: Some(token.to_owned()),
        join_patience: bellows_agent::JOIN_PATIENCE,
        labels: labels(plan),
        capacity: Some(plan.capacity),
        cgroup_parent: plan.cgroup.clone(),
        subnet: plan.subnet,
        uid_base: plan.uid_base,
        ingress: Some(ingress(plan)),
        links: Some(SocketAddr::from((link_address(plan), LINKS))),
        name_servers: None,
        launcher: execution::launcher(),
    };
    let started = Agent::start(config).await;
    started.map_err(|error| Failure::failed(format!("starting {}: {}", plan.name, chain(&error))))
}

/// Each node takes requests at an address of its own, as if it were a server: 127.0.0.1 for the first, 127.0.0.2 for the second.
fn node_address(plan: &NodePlan) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(plan.number % 250).unwrap_or(1))
}

/// Unlike the one for people, of this cluster alone: several on one machine have different ranges.
fn link_address(plan: &NodePlan) -> Ipv4Addr {
    let [_, second, third, _] = plan.subnet.first().octets();
    Ipv4Addr::new(127, second, third, 1)
}

/// A cluster for trying starts all the same where another program has the port.
fn ingress(plan: &NodePlan) -> IngressConfig {
    IngressConfig { address: node_address(plan).into(), insist: false, ..IngressConfig::default() }
}

/// So that spread and constraints can be tried: odd nodes are in zone a, even ones in zone b.
fn labels(plan: &NodePlan) -> BTreeMap<String, String> {
    let zone = if plan.number % 2 == 1 { "a" } else { "b" };
    BTreeMap::from([("zone".to_owned(), zone.to_owned())])
}

/// Ends it with all its replicas; says what could not be ended.
pub async fn end(agent: Agent) -> Result<(), String> {
    let name = agent.name().to_owned();
    agent.shutdown(Replicas::End).await.map_err(|error| format!("{name}: {}", chain(&error)))
}

/// Waits until some agent cannot go on by itself; says which and why.
pub async fn stuck(agents: &[Agent]) -> String {
    let mut waits: Vec<_> = agents.iter().map(|agent| (agent.name(), Box::pin(agent.stuck()))).collect();
    std::future::poll_fn(|context| {
        let stuck = waits.iter_mut().find_map(|(name, wait)| match wait.as_mut().poll(context) {
            Poll::Ready(why) => Some(format!("{name}: {why}")),
            Poll::Pending => None,
        });
        stuck.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
