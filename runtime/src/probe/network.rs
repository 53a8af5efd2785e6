//! The network: links, the firewall, looking at sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Tried, required, yes};
use crate::net::{self, Netlink};

pub fn rows() -> Vec<Tried> {
    vec![
        (
            required(
                "virtual links (veth)",
                "an address that is reached from the host",
                "modprobe veth; a kernel built with CONFIG_VETH",
            ),
            in_a_network_of_its_own(veth),
        ),
        (
            required(
                "looking sockets up (sock_diag)",
                "knowing when a container listens",
                "modprobe tcp_diag; a kernel built with CONFIG_INET_TCP_DIAG",
            ),
            listening(),
        ),
        (
            required(
                "nf_tables",
                "keeping replicas apart in the network",
                "modprobe nf_tables; a kernel built with CONFIG_NF_TABLES_INET and CONFIG_NFT_FIB_INET",
            ),
            in_a_network_of_its_own(nf_tables),
        ),
        (
            required("the program nft", "loading the firewall's rules", "install nftables"),
            net::nft_program().map_err(io::Error::other),
        ),
    ]
}

/// On a thread that ends with the namespace.
fn in_a_network_of_its_own(attempt: fn() -> io::Result<String>) -> io::Result<String> {
    let inside = move || {
        // SAFETY: changes the network namespace of this thread only, which does nothing else.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        attempt()
    };
    let ended = std::thread::spawn(inside).join();
    ended.unwrap_or_else(|_| Err(io::Error::other("the try itself failed")))
}

fn veth() -> io::Result<String> {
    let netlink = Netlink::open(NETLINK_ROUTE).map_err(io::Error::other)?;
    let mut link = LinkMessage::default();
    link.attributes =
        vec![LinkAttribute::IfName("try0".to_owned()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])];
    yes(netlink.request(vec![(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)]))
}

/// Asks for the number of the present set of rules (NFT_MSG_GETGEN): `struct nlmsghdr` and `struct nfgenmsg`.
fn nf_tables() -> io::Result<String> {
    const BYTES: usize = 20;
    const GET_GENERATION: u16 = 10 << 8 | 16;
    const NEW_GENERATION: u16 = 10 << 8 | 15;
    let mut question = [0_u8; BYTES];
    question[0..4].copy_from_slice(&(BYTES as u32).to_ne_bytes());
    question[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    question[6..8].copy_from_slice(&netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    let answer = Netlink::open(NETLINK_NETFILTER).map_err(io::Error::other)?.exchange(&question)?;
    match answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]])) {
        Some(NEW_GENERATION) => Ok("yes".to_owned()),
        _ => Err(io::Error::other("the kernel does not answer for it")),
    }
}

/// A listener of our own is found, as a container's would be.
fn listening() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let IpAddr::V4(host) = address.ip() else { return Err(io::ErrorKind::InvalidData.into()) };
    match net::listens_here(host, address.port())? {
        true => Ok("yes".to_owned()),
        false => Err(io::Error::other("a socket that listens is not found")),
    }
}
