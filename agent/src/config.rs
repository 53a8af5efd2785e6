//! What an agent is told once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::ingress::IngressConfig;
use bellows_runtime::handle::{Capacity, Ipv4Subnet, LauncherCommand};

/// The usual `join_patience`: a cluster that starts beside this agent is there in seconds.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// What an agent is told once.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Unique in the cluster; how people call this node.
    pub name: String,
    /// Folder of what must outlive the process: identity, journal, logs. One agent at a time.
    pub state: PathBuf,
    /// Folder of the image store; agents of one machine may share it.
    pub store: PathBuf,
    /// Addresses of controllers, `https://HOST:PORT`; any of them, the leader is found from there.
    pub controllers: Vec<String>,
    /// Needed until this node has joined once.
    pub token: Option<String>,
    /// How long to look for a controller that lets this node join, before giving up with words.
    pub join_patience: Duration,
    /// For constraints and spread.
    pub labels: BTreeMap<String, String>,
    /// What replicas may use together; the whole machine when absent.
    pub capacity: Option<Capacity>,
    /// Name of the cgroup made under every hierarchy, such as `bellows/node-1`.
    pub cgroup_parent: String,
    /// Addresses for replicas, node-local.
    pub subnet: Ipv4Subnet,
    /// First host user id of the ranges given to replicas, 65,536 each and one between them.
    pub uid_base: u32,
    /// Where it takes requests for apps; nowhere when absent.
    pub ingress: Option<IngressConfig>,
    /// Where ingresses of other nodes reach this one's; they do not when absent.
    pub links: Option<SocketAddr>,
    /// What `/etc/resolv.conf` of copies with egress names; the node's own when absent.
    pub name_servers: Option<Vec<IpAddr>>,
    /// How to start a launcher: a program and arguments that call `bellows_runtime::launch::launcher_main`.
    pub launcher: LauncherCommand,
}

/// What becomes of the replicas when the agent is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// They end, and nothing of them is left.
    End,
    /// They run on; the next agent with this state folder adopts them.
    Leave,
}
