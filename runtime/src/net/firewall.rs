//! Keeps the rules in the kernel: the table is loaded by one run of `nft`, once more when the first app may reach out; which addresses may is one
//! netlink message, for which the kernel waits until nobody looks at the set any more (some 15 ms): it is sent only where it changes something.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::NetError;
use super::netlink::Netlink;
use super::rules::{self, EGRESS, Reach};
use crate::handle::Ipv4Subnet;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Where distributions keep it; services often have no `sbin` in their path.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// A runtime's table in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Firewall {
    subnet: Ipv4Subnet,
    table: String,
    socket: Netlink,
    outward: Mutex<Outward>,
}

/// Who may reach out, as the kernel has it.
#[derive(Debug)]
struct Outward {
    reach: Reach,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Firewall {
    /// Loads the rules. Those of an earlier runtime that let its replicas reach out stay as wide, as these replicas may live on.
    pub fn open(subnet: Ipv4Subnet) -> Result<Self, NetError> {
        let table = rules::table(subnet);
        let socket = Netlink::open(NETLINK_NETFILTER)?;
        let before = match nft(&["list", "table", "inet", &table], "") {
            // There is none.
            Err(NetError::Rules(_)) => String::new(),
            other => other?,
        };
        let reach = if before.contains("masquerade") { Reach::Out } else { Reach::Node };
        let outward = Mutex::new(Outward { reach, addresses: elements(&before) });
        let all = Self { subnet, table, socket, outward };
        match all.load(reach) {
            Ok(()) => Ok(all),
            // Those of an earlier runtime stay: its replicas may live on.
            Err(error) if before.is_empty() => Err(all.remove().err().unwrap_or(error)),
            Err(error) => Err(error),
        }
    }

    fn load(&self, reach: Reach) -> Result<(), NetError> {
        let script = rules::script(self.subnet, &rules::links(self.subnet), reach);
        nft(&["-f", "-"], &script).map(drop)
    }

    /// Lets an address reach out, or no longer. The first time, the node begins to forward packets and to follow connections.
    pub fn set_egress(&self, address: Ipv4Addr, allowed: bool) -> Result<(), NetError> {
        let mut outward = self.outward.lock().unwrap_or_else(PoisonError::into_inner);
        if outward.addresses.contains(&address) == allowed {
            return Ok(());
        }
        if outward.reach == Reach::Node {
            self.widen()?;
            outward.reach = Reach::Out;
        }
        let done = self.socket.acknowledged(&batch(&self.table, Change::Element { address, allowed }));
        done.map_err(|source| NetError::Configure { address, what: "change the firewall's set", source })?;
        if allowed {
            outward.addresses.insert(address)
        } else {
            outward.addresses.remove(&address)
        };
        Ok(())
    }

    fn widen(&self) -> Result<(), NetError> {
        let forwards = std::fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1");
        if !forwards {
            std::fs::write(FORWARDING, "1").map_err(NetError::Forwarding)?;
            tracing::info!("this node forwards packets from now on (net.ipv4.ip_forward): an app may reach out");
        }
        self.load(Reach::Out)
    }

    /// Removes the table; one that is gone already is fine.
    pub fn remove(&self) -> Result<(), NetError> {
        match self.socket.acknowledged(&batch(&self.table, Change::Remove)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            done => done.map_err(NetError::RemoveRules),
        }
    }
}

/// The addresses in a listed table's only set.
fn elements(listed: &str) -> BTreeSet<Ipv4Addr> {
    let inside = listed.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
    let words = inside.map_or("", |(inside, _)| inside).split(|c: char| c == ',' || c.is_whitespace());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Which `nft` there is.
pub fn program() -> Result<String, NetError> {
    Ok(nft(&["--version"], "")?.trim().to_owned())
}

/// Runs `nft` and gives back what it prints.
fn nft(args: &[&str], input: &str) -> Result<String, NetError> {
    first_of(PLACES, args, input)
}

/// What it says is kept in memory, not sent through pipes: std has no word for one that breaks.
fn first_of<const N: usize>(places: [&str; N], args: &[&str], input: &str) -> Result<String, NetError> {
    let memory = || Ok(File::from(rustix::fs::memfd_create(c"nft", rustix::fs::MemfdFlags::CLOEXEC)?));
    let (said, complained) = memory().and_then(|said| Ok((said, memory()?))).map_err(NetError::StartNft)?;
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(complained.try_clone()?).spawn()
    };
    let found = places.into_iter().map(start).find(|started| !is_missing(started));
    let mut child = match found {
        Some(started) => started.map_err(NetError::StartNft)?,
        None => return Err(NetError::NoNft),
    };
    let wrote = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait().map_err(NetError::StartNft)?;
    if !status.success() {
        return Err(NetError::Rules(text(complained).map_err(NetError::StartNft)?.trim().to_owned()));
    }
    wrote.and_then(|()| text(said)).map_err(NetError::StartNft)
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_missing<T>(started: &io::Result<T>) -> bool {
    started.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Element { address: Ipv4Addr, allowed: bool },
    Remove,
}

const TABLES: u16 = 10 << 8;
const REMOVE_TABLE: u16 = TABLES | 2;
const NEW_ELEMENT: u16 = TABLES | 12;
const REMOVE_ELEMENT: u16 = TABLES | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NESTED: u16 = 0x8000;
const INET: u8 = 1;

/// A transaction of one change: begin, change (which is acknowledged), end.
fn batch(table: &str, change: Change) -> Vec<u8> {
    let name = [table.as_bytes(), b"\0"].concat();
    let (kind, flags, body) = match change {
        Change::Remove => (REMOVE_TABLE, 0, attribute(1, &name)),
        Change::Element { address, allowed } => {
            let value = attribute(1, &address.octets());
            let element = attribute(1 | NESTED, &attribute(1 | NESTED, &value));
            let set = [EGRESS.as_bytes(), b"\0"].concat();
            let body = [attribute(1, &name), attribute(2, &set), attribute(3 | NESTED, &element)].concat();
            if allowed { (NEW_ELEMENT, NLM_F_CREATE, body) } else { (REMOVE_ELEMENT, 0, body) }
        }
    };
    let boundary = |kind| message(kind, 0, 0, (10_u16).to_be_bytes(), &[]);
    [boundary(BATCH_BEGIN), message(kind, flags | NLM_F_ACK, INET, [0; 2], &body), boundary(BATCH_END)].concat()
}

/// `struct nlmsghdr`, `struct nfgenmsg`, attributes.
fn message(kind: u16, flags: u16, family: u8, resource: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len()) as u32;
    let mut all = length.to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    all.extend([1, 0, 0, 0, 0, 0, 0, 0, family, 0]);
    all.extend(resource);
    all.extend(body);
    all
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut all = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend(value);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_nft_its_package_is_named() {
        let missing = first_of(["/no/such/nft", "no-such-nft-anywhere"], &["-f", "-"], "");
        assert!(missing.is_err_and(|error| error.to_string().contains("install the package nftables")));
    }

    #[test]
    fn elements_read_as_nft_lists_them() {
        let none = "table inet x {\n\tset egress {\n\t\ttype ipv4_addr\n\t}\n\tchain c {\n\t\tip daddr { 127.0.0.0/8 } drop\n\t}\n}\n";
        assert_eq!(elements(none), BTreeSet::new());
        let two = none.replace("ipv4_addr\n", "ipv4_addr\n\t\telements = { 10.1.0.2,\n\t\t\t     10.1.0.7 }\n");
        assert_eq!(elements(&two), [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 7)].into());
    }

    #[test]
    fn what_nft_says_is_told() {
        let refused = first_of(["cat"], &["/no/such/file"], "");
        assert!(matches!(refused, Err(NetError::Rules(said)) if said.contains("/no/such/file")));
    }
}
