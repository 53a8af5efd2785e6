//! What a `dev` cluster is made of, computed before anything is done: folders, names, and each node's share of the machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use bellows_runtime::handle::{Capacity, Ipv4Subnet, SubnetError};
use sha2::{Digest, Sha256};

/// Most nodes: as many /20 as a /16 has, and as many id ranges as fit below 2^32 (see [`UID_STEP`]), whichever is less.
pub const MOST_NODES: u32 = 14;

/// Bits of a node's subnet: 4,094 addresses.
const NODE_PREFIX: u8 = 20;

/// Host ids of one node: 65,537 for each of its 4,094 addresses. The first range begins one step up, beyond any ordinary user.
const UID_STEP: u32 = 1 << 28;

/// One agent and what is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// From 1.
    pub number: u32,
    /// `node-1`, ...
    pub name: String,
    /// Its own folder.
    pub state: PathBuf,
    /// Its cgroup in every hierarchy, directly below the root, so that nothing is left above it.
    pub cgroup: String,
    /// Limits of that cgroup.
    pub capacity: Capacity,
    /// Addresses of its replicas.
    pub subnet: Ipv4Subnet,
    /// First of its host ids.
    pub uid_base: u32,
}

/// Folders of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// All of it.
    pub root: PathBuf,
}

impl Folders {
    /// The controller's own folder.
    pub fn controller(&self) -> PathBuf {
        self.root.join("controller")
    }

    /// Images, shared by all.
    pub fn store(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Agents' own folders.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// Where the command line looks for a credential.
    pub fn credential(&self) -> PathBuf {
        self.root.join("credential.json")
    }

    /// Held while a `dev` uses the folder; its text is the process's id.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Distinguishes what this cluster makes outside its folder from what another `dev` makes.
    pub fn tag(&self) -> String {
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        hex::encode(&digest[..4])
    }
}

/// One node of the cluster, by its number from 1.
pub fn node(folders: &Folders, number: u32, capacity: Capacity, range: Ipv4Subnet) -> NodePlan {
    let name = format!("node-{number}");
    NodePlan {
        number,
        state: folders.nodes().join(&name),
        cgroup: format!("bellows-{}-{name}", folders.tag()),
        capacity,
        subnet: subnet(range, number),
        uid_base: number.min(MOST_NODES) * UID_STEP,
        name,
    }
}

/// `10.97.<number * 16>.0/20` of `10.97.0.0/16`. The first /20 is nobody's: routers tend to live there.
fn subnet(range: Ipv4Subnet, number: u32) -> Ipv4Subnet {
    let first = u32::from(range.address(0).expect("a /16 has addresses")) & 0xFFFF_0000;
    let step = 1 << (32 - u32::from(NODE_PREFIX));
    Ipv4Subnet::new(Ipv4Addr::from(first + number.min(15) * step), NODE_PREFIX).expect("20 is between 8 and 30")
}

/// A subnet that can be divided among the nodes.
pub fn range(text: &str) -> Result<Ipv4Subnet, String> {
    let subnet: Ipv4Subnet = text.parse().map_err(|error: SubnetError| error.to_string())?;
    if subnet.room() == (1 << 16) - 2 {
        Ok(subnet)
    } else {
        Err(format!("{text} is not a /16, for example 10.97.0.0/16"))
    }
}

/// The numbers of all nodes whose folders are there, also of an earlier start with more of them.
pub fn known_nodes(folders: &Folders) -> std::io::Result<Vec<u32>> {
    let entries = match std::fs::read_dir(folders.nodes()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(node_number(Path::new(&entry?.file_name())));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn node_number(name: &Path) -> Option<u32> {
    let number = name.to_str()?.strip_prefix("node-")?.parse().ok()?;
    (1..=MOST_NODES).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn plans(count: u32) -> Vec<NodePlan> {
        let folders = Folders { root: "/state".into() };
        let capacity = Capacity { cpu_milli: 1000, memory_bytes: 1 << 30 };
        (1..=count).map(|n| node(&folders, n, capacity, range("10.97.0.0/16").expect("a /16"))).collect()
    }

    #[test]
    fn no_two_nodes_share_anything() {
        let plans = plans(MOST_NODES);
        let different = |of: fn(&NodePlan) -> String| plans.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(different(|p| p.state.display().to_string()), plans.len());
        assert_eq!(different(|p| p.cgroup.clone()), plans.len());
        assert_eq!(different(|p| p.subnet.to_string()), plans.len());
        assert_eq!(different(|p| p.uid_base.to_string()), plans.len());
    }

    #[test]
    fn id_ranges_end_below_the_last_id() {
        for plan in plans(MOST_NODES) {
            let last = u64::from(plan.uid_base) + u64::from(plan.subnet.room()) * 65_537;
            assert!(last <= u64::from(u32::MAX), "{plan:?}");
        }
    }

    #[test]
    fn two_folders_are_two_clusters() {
        let tag = |root: &str| Folders { root: root.into() }.tag();
        assert_ne!(tag("/a"), tag("/b"));
        assert_eq!(plans(1)[0].subnet.to_string(), "10.97.16.0/20");
    }

    #[test]
    fn only_a_subnet_with_room_for_all_is_taken() {
        assert!(range("10.97.0.0/20").is_err() && range("10.97.0.0/8").is_err() && range("ten").is_err());
    }

    #[test]
    fn nodes_of_earlier_starts_are_found() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders { root: root.path().to_owned() };
        assert_eq!(known_nodes(&folders).expect("no folder is no node"), [0; 0]);
        for name in ["node-12", "node-3", "node-0", "node-99", "else"] {
            std::fs::create_dir_all(folders.nodes().join(name)).expect("writable");
        }
        assert_eq!(known_nodes(&folders).expect("readable"), [3, 12]);
    }
}
