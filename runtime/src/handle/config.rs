//! What a runtime is told once, at its start.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A range of addresses, `10.1.0.0/22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    first: Ipv4Addr,
    prefix: u8,
}

/// Text that is no subnet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no IPv4 subnet such as 10.1.0.0/22 (prefix 8 to 30)")]
pub struct SubnetError(String);

impl Ipv4Subnet {
    /// The subnet of `prefix` bits that holds `address`.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(8..=30).contains(&prefix) {
            return Err(SubnetError(format!("{address}/{prefix}")));
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { first: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }

    /// The subnet's own address, which no container has.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// How many bits all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many containers can have an address: all but the first and the last of the range.
    pub fn room(self) -> u32 {
        (1 << (32 - u32::from(self.prefix))) - 2
    }

    /// The address with this number, counted from 0.
    pub fn address(self, number: u32) -> Option<Ipv4Addr> {
        (number < self.room()).then(|| Ipv4Addr::from(u32::from(self.first) + 1 + number))
    }
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, prefix.parse().map_err(|_| wrong())?)
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

/// How to start a launcher process: a program that calls `launch::launcher_main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherCommand {
    /// The executable, most often the running one.
    pub program: PathBuf,
    /// Arguments that make it call `launcher_main`.
    pub args: Vec<OsString>,
}

/// What the node may use, all containers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Memory.
    pub memory_bytes: u64,
}

/// How many slots (address, cgroups, id range) are made ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSizes {
    /// Made ahead and refilled in the background.
    pub ready: usize,
    /// Kept for the next launch after use. Of more, those go that no launch has needed for a spell.
    pub keep: usize,
    /// How long a spell is.
    pub spell: Duration,
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self { ready: 32, keep: 32, spell: Duration::from_secs(30) }
    }
}

/// What a runtime is told once.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Folder for what must outlive this process: logs, exit records, what runs.
    pub state: PathBuf,
    /// Name of the cgroup made under every hierarchy, such as `bellows/node-1`.
    pub cgroup_parent: String,
    /// Limits of that cgroup itself; none where the machine is the limit.
    pub capacity: Option<Capacity>,
    /// Addresses for containers.
    pub subnet: Ipv4Subnet,
    /// First host id of the ranges given to containers, 65,536 each and one between them.
    pub uid_base: u32,
    /// How to start launchers.
    pub launcher: LauncherCommand,
    /// How many launchers; one per CPU pays off, more does not.
    pub launchers: usize,
    /// What is made ahead.
    pub pool: PoolSizes,
    /// For `/etc/resolv.conf` of those with egress; the file is empty where there are none, and for all others.
    pub nameservers: Vec<IpAddr>,
}

impl RuntimeConfig {
    /// A configuration with defaults for everything that has a sensible one.
    pub fn new(state: PathBuf, cgroup_parent: String, subnet: Ipv4Subnet, launcher: LauncherCommand) -> Self {
        Self {
            state,
            cgroup_parent,
            capacity: None,
            subnet,
            uid_base: 0x1000_0000,
            launcher,
            launchers: std::thread::available_parallelism().map_or(1, usize::from).min(4),
            pool: PoolSizes::default(),
            nameservers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_count_their_addresses() {
        let s: Ipv4Subnet = "10.9.8.7/30".parse().expect("a subnet");
        assert_eq!(s.to_string(), "10.9.8.4/30");
        assert_eq!(s.room(), 2);
        assert_eq!(s.address(0), Some(Ipv4Addr::new(10, 9, 8, 5)));
        assert_eq!(s.address(1), Some(Ipv4Addr::new(10, 9, 8, 6)));
        assert_eq!(s.address(2), None);
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for bad in ["10.0.0.0", "10.0.0.0/31", "10.0.0.0/7", "x/24", "10.0.0.0/x", "::/64"] {
            assert_eq!(bad.parse::<Ipv4Subnet>(), Err(SubnetError(bad.to_owned())), "{bad}");
        }
    }
}
