//! The network of containers: routed links, one address each, made ahead.
//!
//! A slot is a network namespace with a veth pair: its host end has no address, its inner end a /32 and a default route through a next hop that exists
//! only as a permanent neighbour entry, so there is no ARP, no bridge (1,023 ports at most) and nothing on the host's other interfaces.
//! The namespace belongs to the host's user namespace: inside, nobody can change its addresses or routes.

mod diag;
mod dial;
mod netlink;
mod slot;
mod sysctl;

pub use diag::listening;
pub use dial::{connect, snmp_established, socket_inside};
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
