//! The network of containers: routed links, one address each, made ahead.
//!
//! A slot is a network namespace with a veth pair: its host end has no address, its inner end a /32 and a default route through a next hop that exists
//! only as a permanent neighbour entry, so there is no ARP, no bridge (1,023 ports at most) and nothing on the host's other interfaces.
//! The namespace belongs to the host's user namespace: inside, nobody can change its addresses or routes. What may pass between links is said once, in
//! `rules`.

mod diag;
mod dial;
mod firewall;
mod netlink;
mod rules;
mod slot;
mod sockets;
mod sysctl;

pub use diag::{listening, listens_here};
pub use dial::{acknowledged, connect, established, snmp_value, socket_inside};
pub use firewall::program as nft_program;
pub use netlink::Netlink;
pub use slot::{Network, Networks};

use std::io;
use std::net::Ipv4Addr;

/// What went wrong with the network of which address.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A netlink socket could not be opened.
    #[error("cannot open a netlink socket (protocol {protocol})")]
    Open {
        /// Which netlink.
        protocol: isize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The namespace could not be made or entered.
    #[error("cannot make a network namespace for {address}: {what}")]
    Namespace {
        /// Whose.
        address: Ipv4Addr,
        /// Doing what.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A setting of the namespace was refused.
    #[error("cannot write {value:?} to /proc/sys/net/{name} in the network of {address}")]
    Setting {
        /// Whose.
        address: Ipv4Addr,
        /// Which.
        name: &'static str,
        /// What.
        value: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A link, address, route or neighbour was refused.
    #[error("cannot {what} for {address}")]
    Configure {
        /// Whose.
        address: Ipv4Addr,
        /// Doing what.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program that loads rules is not installed.
    #[error("cannot find `nft`, which keeps replicas apart in the network: install the package nftables")]
    NoNft,
    /// It could not be run.
    #[error("cannot run `nft`")]
    StartNft(#[source] io::Error),
    /// It refused the rules: a kernel without what they need.
    #[error(
        "`nft` does not take the rules that keep replicas apart; nf_tables with inet, fib, reject, and for egress conntrack and masquerade is needed: {0}"
    )]
    Rules(String),
    /// The kernel does not let go of them.
    #[error("cannot remove the firewall's table")]
    RemoveRules(#[source] io::Error),
    /// The node does not forward packets, and cannot be made to.
    #[error("cannot switch on net.ipv4.ip_forward, without which no app reaches out")]
    Forwarding(#[source] io::Error),
    /// A file of the namespace could not be read.
    #[error("cannot read the network counters of {address}")]
    Counters {
        /// Whose.
        address: Ipv4Addr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A connection was not made.
    #[error("cannot connect to {address}:{port}")]
    Connect {
        /// To whom.
        address: Ipv4Addr,
        /// Which port.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}
