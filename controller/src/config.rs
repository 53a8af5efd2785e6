//! What a controller is told once.

use std::net::SocketAddr;
use std::path::PathBuf;

pub use bellows_core::limits::Planted;
use bellows_core::model::spec::AppSpec;

/// Where a controller lives and what it listens on.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Its own folder: raft's log, the authority's key, the administrator's credential. Only its owner may read it.
    pub state: PathBuf,
    /// gRPC over mutual TLS: operators, nodes, members, health and reflection on one port. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The web page, its live updates, `/metrics` and `/health`, over plain HTTP, read-only. Meant for loopback.
    pub dashboard: SocketAddr,
    /// Images: blobs in `<store>/blobs/sha256/<hex>`. May be shared with an agent on the same machine.
    pub store: PathBuf,
    /// The cluster's name; taken at the founding, ignored afterwards.
    pub cluster: String,
    /// Host names and addresses by which others reach this controller; they go into its certificate. The first one is in
    /// the credential file. Empty: the address of `listen`, or 127.0.0.1 when that is all addresses.
    pub advertise: Vec<String>,
    /// What apps may ask for beyond what copies have; most often nothing.
    pub allowed: Allowed,
    /// Spreads election timeouts and breaks ties of placement.
    pub seed: u64,
    /// Another rule than ours on purpose, for measurements. `Planted::None` in production.
    pub planted: Planted,
}

/// What apps may ask for beyond what copies have: names, each for one tenant or for all.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Capabilities.
    pub capabilities: Vec<Allowance>,
    /// System calls.
    pub calls: Vec<Allowance>,
}

/// One name, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Every one when absent.
    pub tenant: Option<String>,
    /// Of a capability or a system call.
    pub name: String,
}

impl Allowed {
    /// The first thing that an app asks for and may not have: the field, and its name.
    pub(crate) fn refused(&self, spec: &AppSpec) -> Option<(&'static str, &'static str, String)> {
        let isolation = &spec.isolation;
        let lists = [
            ("add_capabilities", "--allow-capability", &self.capabilities, &isolation.add_capabilities),
            ("add_calls", "--allow-call", &self.calls, &isolation.add_calls),
        ];
        lists.into_iter().find_map(|(field, flag, allowed, asked)| {
            let may = |name: &String| {
                let is_for = |one: &Allowance| one.tenant.as_ref().is_none_or(|tenant| *tenant == spec.tenant);
                allowed.iter().any(|one| one.name == *name && is_for(one))
            };
            asked.iter().find(|name| !may(name)).map(|name| (field, flag, name.clone()))
        })
    }
}

impl ControllerConfig {
    /// The host that others are told, without a port.
    pub(crate) fn advertised_host(&self) -> String {
        match self.advertise.first() {
            Some(host) => host.clone(),
            None if self.listen.ip().is_unspecified() => "127.0.0.1".to_owned(),
            None => self.listen.ip().to_string(),
        }
    }
}

/// As it stands in a URL: an IPv6 address in brackets.
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
