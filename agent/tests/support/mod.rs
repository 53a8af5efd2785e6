//! A controller and a runtime of memory, as far as an agent can tell them from real ones.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod containers;
pub mod controller;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent::{Agent, AgentConfig, StartError};
use bellows_proto::node::{Order, OrderBatch, Spec, Start, Stop, ToAgent, order, to_agent};
use bellows_proto::types::{AppSpec, Fence, Port, ReplicaId, Resources};
use bellows_runtime::handle::LauncherCommand;

use containers::MemoryContainers;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn config(folder: &Path, controllers: Vec<String>, token: Option<String>) -> AgentConfig {
    AgentConfig {
        name: "n1".to_owned(),
        state: folder.join("state"),
        store: folder.join("store"),
        controllers,
        token,
        join_patience: bellows_agent::JOIN_PATIENCE,
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        capacity: None,
        cgroup_parent: "bellows-test".to_owned(),
        subnet: "10.251.0.0/24".parse().expect("a subnet"),
        uid_base: 0x1000_0000,
        ingress: None,
        links: None,
        name_servers: None,
        launcher: LauncherCommand { program: "/proc/self/exe".into(), args: Vec::new() },
    }
}

pub async fn start(config: AgentConfig, containers: &Arc<MemoryContainers>) -> Result<Agent, StartError> {
    Agent::start_on(config, containers.clone()).await
}

pub const FENCE: Fence = Fence { incarnation: 1, term: 2 };

pub fn replica(counter: u64) -> ReplicaId {
    ReplicaId { fence: Some(FENCE), counter }
}

/// An app of the image with this digest, whose program says how it behaves (see `MemoryContainers`).
pub fn app(image: &str, program: &str, port: Option<u32>) -> AppSpec {
    AppSpec {
        name: "web".to_owned(),
        tenant: "default".to_owned(),
        image_digest: image.to_owned(),
        command: vec![program.to_owned()],
        resources: Some(Resources { cpu_milli: 100, memory_bytes: 16 << 20 }),
        ports: port.map(|port| Port { port, ..Port::default() }).into_iter().collect(),
        stop_grace_ms: 200,
        ..AppSpec::default()
    }
}

/// Orders in sequence from `first`; the spec goes with them.
pub fn orders(session: u64, first: u64, spec: AppSpec, actions: Vec<(u64, order::Action)>) -> ToAgent {
    let one = |(place, (counter, action)): (u64, (u64, order::Action))| Order {
        sequence: place,
        replica: Some(replica(counter)),
        action: Some(action),
        ..Order::default()
    };
    let batch = OrderBatch {
        fence: Some(FENCE),
        session,
        specs: vec![Spec { digest: vec![7; 32], spec: Some(spec) }],
        orders: (first..).zip(actions).map(one).collect(),
    };
    ToAgent { body: Some(to_agent::Body::Orders(batch)) }
}

pub fn start_order() -> order::Action {
    order::Action::Start(Start { app: 1, revision: 1, spec_digest: vec![7; 32] })
}

pub fn stop_order(only_if_idle: bool) -> order::Action {
    order::Action::Stop(Stop { only_if_idle, grace_ms: 200 })
}
