//! What a local cluster is made of, computed before anything is made: hosts, addresses, sizes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, HostName, nearest};

/// Most agents: as many ranges of user ids as fit below 2^32 (see [`UID_STEP`]), one step left for ordinary users.
pub const MOST_AGENTS: u32 = 30;

/// Addresses of replicas, the same on every host, since they mean something on their own host only: 2,046 of them.
pub const REPLICA_SUBNET: &str = "10.96.0.0/21";

/// User ids of one agent: 65,537 for each of its 2,046 addresses.
const UID_STEP: u32 = 1 << 27;

/// The last number of the first member's address; agents follow from [`FIRST_AGENT`].
const FIRST_MEMBER: u8 = 2;
const FIRST_AGENT: u8 = 11;

/// 254 addresses, the first of which is this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range([u8; 3]);

/// Text that is no range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no range of addresses for hosts; expected a /24, for example 10.98.7.0/24")]
pub struct RangeError(String);

impl Range {
    /// Those that are tried in turn when nobody names one.
    pub fn candidates() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(|third| Self([10, 98, third]))
    }

    /// The one with this last number.
    pub fn address(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, last)
    }

    /// This machine's own.
    pub fn outside(self) -> Ipv4Addr {
        self.address(1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/24", self.address(0))
    }
}

impl FromStr for Range {
    type Err = RangeError;
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let address: Ipv4Addr = text.strip_suffix("/24").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        match address.octets() {
            [a, b, c, 0] => Ok(Self([a, b, c])),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Range {
    type Error = RangeError;
    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

/// What a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A controller.
    Member,
    /// An agent.
    Agent,
}

impl Role {
    /// The verb of the executable, which is how its process is known.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Member => "controller",
            Self::Agent => "agent",
        }
    }
}

/// What the processes of a host may use together, replicas and agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Memory.
    pub memory_bytes: u64,
}

/// An agent's host as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Unique.
    pub name: HostName,
    /// Its limits.
    pub size: Size,
    /// For constraints and spread.
    pub labels: BTreeMap<String, String>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Unique in the cluster.
    pub name: HostName,
    /// What it runs.
    pub role: Role,
    /// Its own.
    pub address: Ipv4Addr,
    /// Limits of its cgroup; members have none.
    pub size: Option<Size>,
    /// For constraints and spread.
    pub labels: BTreeMap<String, String>,
    /// First of the user ids of its replicas.
    pub uid_base: u32,
}

/// A whole local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Unique on this machine.
    pub name: ClusterName,
    /// Where its hosts' addresses are.
    pub range: Range,
    /// Members first.
    pub hosts: Vec<Host>,
}

/// Why hosts cannot be had as wished.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// None.
    #[error("no agents: without one nothing can run")]
    NoAgent,
    /// Too many.
    #[error("{asked} agents are too many, the most is {MOST_AGENTS}")]
    TooMany {
        /// How many were wished.
        asked: usize,
    },
    /// The same name twice.
    #[error("two hosts are called {0}")]
    Twice(HostName),
}

/// A host that is not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("local cluster {cluster} has no host \"{text}\"{}", hint(nearest.as_deref()))]
pub struct UnknownHost {
    cluster: ClusterName,
    text: String,
    nearest: Option<String>,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl Plan {
    /// One member and these agents. The range is settled when the addresses are taken.
    pub fn new(name: ClusterName, range: Range, wishes: &[Wish]) -> Result<Self, PlanError> {
        if wishes.is_empty() {
            return Err(PlanError::NoAgent);
        }
        if wishes.len() > MOST_AGENTS as usize {
            return Err(PlanError::TooMany { asked: wishes.len() });
        }
        let mut hosts = vec![member(range)];
        for (wish, number) in wishes.iter().zip(1..) {
            if hosts.iter().any(|host| host.name == wish.name) {
                return Err(PlanError::Twice(wish.name.clone()));
            }
            hosts.push(agent(range, wish, number));
        }
        Ok(Self { name, range, hosts })
    }

    /// The same at other addresses.
    pub fn within(mut self, range: Range) -> Self {
        for host in &mut self.hosts {
            host.address = range.address(host.address.octets()[3]);
        }
        Self { range, ..self }
    }

    /// The host of this name.
    pub fn host(&self, text: &str) -> Result<&Host, UnknownHost> {
        let names = || self.hosts.iter().map(|host| host.name.as_str());
        self.hosts.iter().find(|host| host.name.as_str() == text).ok_or_else(|| UnknownHost {
            cluster: self.name.clone(),
            text: text.to_owned(),
            nearest: nearest(text, names()).map(str::to_owned),
        })
    }

    /// Hosts that run this.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.role == role)
    }

    /// A host's own folder.
    pub fn folder(&self, host: &HostName) -> PathBuf {
        self.name.folder().join("hosts").join(host.as_str())
    }

    /// A host's cgroup, below the root of every hierarchy.
    pub fn cgroup(&self, host: &HostName) -> String {
        format!("{}/{host}", self.name.cgroup())
    }
}

fn member(range: Range) -> Host {
    let name = "m1".parse().expect("a letter and a digit are a name");
    let address = range.address(FIRST_MEMBER);
    Host { name, role: Role::Member, address, size: None, labels: BTreeMap::new(), uid_base: 0 }
}

fn agent(range: Range, wish: &Wish, number: u8) -> Host {
    Host {
        name: wish.name.clone(),
        role: Role::Agent,
        address: range.address(FIRST_AGENT + number - 1),
        size: Some(wish.size),
        labels: wish.labels.clone(),
        uid_base: u32::from(number) * UID_STEP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn wishes(count: usize) -> Vec<Wish> {
        let size = Size { cpu_milli: 1000, memory_bytes: 1 << 30 };
        let name = |number: usize| format!("n{number}").parse().expect("a name");
        (1..=count).map(|number| Wish { name: name(number), size, labels: BTreeMap::new() }).collect()
    }

    fn plan(count: usize) -> Plan {
        let range = "10.98.7.0/24".parse().expect("a range");
        Plan::new("local".parse().expect("a name"), range, &wishes(count)).expect("a good wish")
    }

    #[test]
    fn no_two_hosts_share_an_address_or_a_user() {
        let plan = plan(MOST_AGENTS as usize);
        let addresses: BTreeSet<_> = plan.hosts.iter().map(|host| host.address).collect();
        let users: BTreeSet<_> = plan.hosts.iter().map(|host| host.uid_base).collect();
        assert_eq!((addresses.len(), users.len()), (plan.hosts.len(), plan.hosts.len()));
        let last = plan.hosts.iter().map(|host| u64::from(host.uid_base)).max().expect("there are hosts");
        assert!(last + 2_046 * 65_537 <= u64::from(u32::MAX));
    }

    #[test]
    fn other_addresses_change_nothing_else() {
        let moved = plan(2).within("10.98.9.0/24".parse().expect("a range"));
        let addresses: Vec<_> = moved.hosts.iter().map(|host| host.address.to_string()).collect();
        assert_eq!(addresses, ["10.98.9.2", "10.98.9.11", "10.98.9.12"]);
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let of = |wishes: &[Wish]| Plan::new("x".parse().expect("a name"), Range([10, 98, 0]), wishes);
        assert_eq!(of(&[]), Err(PlanError::NoAgent));
        assert_eq!(of(&wishes(31)), Err(PlanError::TooMany { asked: 31 }));
        let twice = [wishes(1), wishes(1)].concat();
        assert_eq!(of(&twice), Err(PlanError::Twice("n1".parse().expect("a name"))));
    }

    #[test]
    fn an_unknown_host_is_told_the_nearest() {
        let said = plan(3).host("n33").expect_err("there is none").to_string();
        assert_eq!(said, "local cluster local has no host \"n33\"; did you mean n3?");
    }

    #[test]
    fn ranges_are_whole() {
        for bad in ["10.98.7.0", "10.98.7.1/24", "10.98.7.0/16", "x/24"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
