//! A network slot: made on a thread of its own choice, given to one container after another.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::NetError;
use super::firewall::Firewall;
use super::netlink::Netlink;
use super::rules::link_name;
use super::sysctl::Sysctls;
use crate::handle::Ipv4Subnet;
use crate::kernel::{mount, namespace};

/// Exists nowhere but in the containers' routes and neighbour tables.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const HOST_MAC: [u8; 6] = [0x02, 0xbe, 0x11, 0x00, 0x00, 0x01];
const LOOPBACK_INDEX: u32 = 1;

/// As many as a link uses if nothing is said; but then the kernel makes one for each CPU first, and waits for all CPUs, twice, before it takes them away.
const ONE_TX_QUEUE: LinkAttribute = LinkAttribute::NumTxQueues(1);
const ONE_RX_QUEUE: LinkAttribute = LinkAttribute::NumRxQueues(1);

/// Written once per namespace: no IPv6 noise, also of links to come, low ports and ping for everybody inside, who own nothing else of it.
const SYSCTLS: [(&str, &str); 3] = [
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
];

/// A container's network.
#[derive(Debug)]
pub struct Network {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its namespace.
    pub namespace: OwnedFd,
    /// `/proc/net/dev` inside: keeps telling of the namespace's links wherever it is read.
    links: File,
    /// `/sys` of this network, read-only and attached nowhere: a sysfs shows the network of whoever makes it, and making one for each container
    /// costs more than everything else of its network.
    pub sys: OwnedFd,
    /// What the links had counted when nobody had used it yet.
    fresh: Option<String>,
    /// `/proc/net/snmp`, `/proc/net/sockstat` and socket diagnosis inside.
    snmp: Inside<File>,
    sockstat: Inside<File>,
    diag: Inside<Mutex<Netlink>>,
}

/// Opened in the namespace when it is first asked for: no launch waits for it.
type Inside<T> = OnceLock<T>;

/// Held while a network is made. The kernel has one lock for all networks of the machine; whoever finds it taken spins, and a setting that is written
/// meanwhile is tried again and again. Here the second one sleeps.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes networks; holds the host's side.
#[derive(Debug)]
pub struct Networks {
    host: Mutex<Netlink>,
    home: OwnedFd,
    sysctls: Sysctls,
    firewall: Firewall,
    generation: AtomicU16,
}

impl Networks {
    /// In the calling thread's network namespace, which becomes the host of all slots; the rules are loaded before there is any.
    pub fn open(subnet: Ipv4Subnet) -> Result<Self, NetError> {
        let firewall = Firewall::open(subnet)?;
        let host = Mutex::new(Netlink::open(NETLINK_ROUTE)?);
        let home = namespace::own_network().map_err(|source| NetError::Open { protocol: NETLINK_ROUTE, source })?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = AtomicU16::new((since.as_millis() >> 4) as u16);
        Ok(Self { host, home, sysctls: Sysctls::default(), firewall, generation })
    }

    /// The host's network namespace.
    pub fn home(&self) -> BorrowedFd<'_> {
        self.home.as_fd()
    }

    /// Removes the rules. For when nothing runs any more.
    pub fn close(&self) -> Result<(), NetError> {
        self.firewall.remove()
    }

    /// Whether the container of this network may reach what lies beyond the node. Most often nothing changes.
    pub fn set_egress(&self, network: &Network, allowed: bool) -> Result<(), NetError> {
        self.firewall.set_egress(network.address, allowed)
    }

    /// Ends every connection inside, where nobody lives any more.
    pub fn clear(&self, network: &Network) -> Result<(), NetError> {
        super::sockets::clear(network, self.home())
    }

    /// Whether nothing is left of whoever lived inside. Where that cannot be told, something may be.
    pub fn is_left_alone(&self, network: &Network) -> bool {
        super::sockets::are_gone(network, self.home()).unwrap_or(false)
    }

    /// A namespace with loopback, address and routes, reachable from the host.
    pub fn make(&self, address: Ipv4Addr) -> Result<Network, NetError> {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let (namespace, Populated { inner, links, sys }) = self.namespace(address)?;
        let name = link_name(address, self.generation.fetch_add(1, Ordering::Relaxed));
        self.link(address, name.clone(), &namespace)?;
        configure_inside(address, &inner)?;
        self.route(address, &name)?;
        let mut network = Network::new(address, namespace, links, sys);
        self.set_egress(&network, false)?;
        network.begin_anew()?;
        Ok(network)
    }

    /// The network of a container that an earlier runtime started, by a descriptor of its namespace.
    pub fn adopt(&self, address: Ipv4Addr, namespace: OwnedFd) -> Result<Network, NetError> {
        let opened = namespace::inside_from(self.home.as_fd(), namespace.as_fd(), || {
            Ok((open_here(address, "dev")?, sysfs(address)?))
        });
        let (links, sys) = opened.map_err(wrap(address, "enter"))??;
        Ok(Network::new(address, namespace, links, sys))
    }

    fn namespace(&self, address: Ipv4Addr) -> Result<(OwnedFd, Populated), NetError> {
        // SAFETY: changes the network namespace of this thread only, and `inside_from` below brings it back.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| wrap(address, "unshare")(e.into()))?;
        let made = namespace::own_network();
        // Already inside: entering again is what makes the way back certain.
        let entered = made.and_then(|made| {
            let inside = namespace::inside_from(self.home.as_fd(), made.as_fd(), || populate(address, &self.sysctls))?;
            Ok((made, inside))
        });
        match entered {
            Ok((made, inside)) => inside.map(|inside| (made, inside)),
            Err(source) => {
                let home = namespace::inside_from(self.home.as_fd(), self.home.as_fd(), || ());
                home.map_err(wrap(address, "return"))?;
                Err(wrap(address, "open")(source))
            }
        }
    }

    fn link(&self, address: Ipv4Addr, name: String, namespace: &OwnedFd) -> Result<(), NetError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(mac(address)),
            LinkAttribute::NetNsFd(namespace.as_raw_fd()),
            ONE_TX_QUEUE,
            ONE_RX_QUEUE,
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name),
            LinkAttribute::Address(HOST_MAC.to_vec()),
            ONE_TX_QUEUE,
            ONE_RX_QUEUE,
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let make = (RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
        self.request(vec![make]).map_err(configure(address, "make a link"))
    }

    /// Brings the host's end up, without IPv6: nobody speaks it there, and the kernel goes through all links for each that joins its multicast groups.
    fn route(&self, address: Ipv4Addr, name: &str) -> Result<(), NetError> {
        let quiet = self.sysctls.set_if_there(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
        quiet.map_err(configure(address, "keep IPv6 off the host's end of the link"))?;
        let index = self.index(name).map_err(configure(address, "find the host's end of the link"))?;
        let messages =
            vec![up(index), route(Some((address, 32)), None, index), neighbour(address, mac(address), index)];
        self.request(messages).map_err(configure(address, "route packets from the host"))
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.index_of(name)
    }

    fn request(&self, messages: Vec<(RouteNetlinkMessage, u16)>) -> io::Result<()> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.request(messages).map(drop)
    }
}

impl Network {
    fn new(address: Ipv4Addr, namespace: OwnedFd, links: File, sys: OwnedFd) -> Self {
        let (snmp, sockstat, diag) = Default::default();
        Self { address, namespace, links, sys, fresh: None, snmp, sockstat, diag }
    }

    /// Whether no packet has passed in or out since it was made, loopback included: then nobody outside knows of it, and it can be used again at once.
    pub fn is_untouched(&self) -> bool {
        self.fresh.is_some() && self.counters().ok() == self.fresh
    }

    /// From now on [`Self::is_untouched`] compares with this moment.
    pub fn begin_anew(&mut self) -> Result<(), NetError> {
        self.fresh = Some(self.counters()?);
        Ok(())
    }

    /// All of the container's link is in it, or it says nothing.
    fn counters(&self) -> Result<String, NetError> {
        let text = super::dial::text(&self.links).and_then(|text| match text.split_once("eth0:") {
            Some((_, own)) if own.contains('\n') => Ok(text),
            _ => Err(io::ErrorKind::InvalidData.into()),
        });
        text.map_err(|source| NetError::Counters { address: self.address, source })
    }

    /// Its protocols' counters. `home` is the host's network, here and below.
    pub fn snmp(&self, home: BorrowedFd<'_>) -> Result<&File, NetError> {
        self.inside(&self.snmp, home, || open_here(self.address, "snmp"))
    }

    /// How many sockets it has.
    pub fn sockstat(&self, home: BorrowedFd<'_>) -> Result<&File, NetError> {
        self.inside(&self.sockstat, home, || open_here(self.address, "sockstat"))
    }

    /// Socket diagnosis.
    pub fn diag(&self, home: BorrowedFd<'_>) -> Result<MutexGuard<'_, Netlink>, NetError> {
        let diag = self.inside(&self.diag, home, || Netlink::open(NETLINK_SOCK_DIAG).map(Mutex::new))?;
        Ok(diag.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For when descriptors are few: what few ask for is opened again then.
    pub fn close_spare(&mut self) {
        self.sockstat.take();
        self.diag.take();
    }

    fn inside<'a, T>(
        &self,
        kept: &'a Inside<T>,
        home: BorrowedFd<'_>,
        open: impl FnOnce() -> Result<T, NetError>,
    ) -> Result<&'a T, NetError> {
        if let Some(opened) = kept.get() {
            return Ok(opened);
        }
        let opened = namespace::inside_from(home, self.namespace.as_fd(), open);
        let opened = opened.map_err(wrap(self.address, "enter"))??;
        Ok(kept.get_or_init(|| opened))
    }
}

/// Locally administered, made of the address.
fn mac(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x02, 0xbe, a, b, c, d]
}

/// What is opened in a new namespace, and stays there.
struct Populated {
    inner: Netlink,
    links: File,
    sys: OwnedFd,
}

/// Runs inside the new namespace.
fn populate(address: Ipv4Addr, sysctls: &Sysctls) -> Result<Populated, NetError> {
    sysctls.level().map_err(configure(address, "level the settings"))?;
    for (name, value) in SYSCTLS {
        // A kernel may be without IPv6.
        let refused = |source| NetError::Setting { address, name, value, source };
        sysctls.set_if_there(name, value).map_err(refused)?;
    }
    Ok(Populated { inner: Netlink::open(NETLINK_ROUTE)?, links: open_here(address, "dev")?, sys: sysfs(address)? })
}

fn sysfs(address: Ipv4Addr) -> Result<OwnedFd, NetError> {
    mount::sysfs().map_err(|source| NetError::Configure { address, what: "make /sys", source })
}

/// A file that tells of the calling thread's network, wherever it is read.
fn open_here(address: Ipv4Addr, name: &str) -> Result<File, NetError> {
    File::open(format!("/proc/thread-self/net/{name}")).map_err(|source| NetError::Counters { address, source })
}

fn configure_inside(address: Ipv4Addr, inner: &Netlink) -> Result<(), NetError> {
    let index = inner.index_of("eth0").map_err(configure(address, "find eth0"))?;
    let mut own = AddressMessage::default();
    own.header.family = AddressFamily::Inet;
    own.header.prefix_len = 32;
    own.header.index = index;
    own.attributes = vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
    let messages = vec![
        up(LOOPBACK_INDEX),
        (RouteNetlinkMessage::NewAddress(own), NLM_F_CREATE | NLM_F_EXCL),
        up(index),
        neighbour(NEXT_HOP, HOST_MAC.to_vec(), index),
        route(Some((NEXT_HOP, 32)), None, index),
        route(None, Some(NEXT_HOP), index),
    ];
    inner.request(messages).map(drop).map_err(configure(address, "configure eth0"))
}

/// Links come up without ARP: both ends know each other by permanent entries, and nothing that is said about addresses is heard.
fn up(index: u32) -> (RouteNetlinkMessage, u16) {
    let flags = if index == LOOPBACK_INDEX { LinkFlags::Up } else { LinkFlags::Up | LinkFlags::Noarp };
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = flags;
    link.header.change_mask = flags;
    (RouteNetlinkMessage::SetLink(link), 0)
}

fn neighbour(address: Ipv4Addr, mac: Vec<u8>, index: u32) -> (RouteNetlinkMessage, u16) {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Inet;
    entry.header.ifindex = index;
    entry.header.state = NeighbourState::Permanent;
    entry.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac),
    ];
    (RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | NLM_F_REPLACE)
}

/// To `destination` (all, if none), over `index`, through `gateway` or directly.
fn route(destination: Option<(Ipv4Addr, u8)>, gateway: Option<Ipv4Addr>, index: u32) -> (RouteNetlinkMessage, u16) {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if let Some((address, bits)) = destination {
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn wrap(address: Ipv4Addr, what: &'static str) -> impl Fn(io::Error) -> NetError {
    move |source| NetError::Namespace { address, what, source }
}

fn configure(address: Ipv4Addr, what: &'static str) -> impl Fn(io::Error) -> NetError {
    move |source| NetError::Configure { address, what, source }
}
