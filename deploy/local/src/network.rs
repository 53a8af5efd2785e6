//! Links: a bridge on the wire, a veth to every host, one to this machine; and how a link becomes slow.
//!
//! Each function runs its requests on a thread inside the namespace that it changes. A host's end of a link is made in the host's
//! namespace at once: moving it there would take 15 ms.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio_stream::StreamExt;

use crate::enter::{self, inside, own_namespace};
use crate::names::{ClusterName, HostName, OUTSIDE, WIRE};
use crate::plan::{Host, Range};

/// What a host calls its link.
const ETH0: &str = "eth0";

/// What went wrong with which link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Into a namespace.
    #[error(transparent)]
    Enter(#[from] enter::Error),
    /// No socket, or no thread to wait at it.
    #[error("cannot talk to the kernel about links")]
    Socket(#[source] io::Error),
    /// A request was refused.
    #[error("cannot {what} {link}")]
    Refused {
        /// Doing what.
        what: &'static str,
        /// With which.
        link: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// No addresses are left.
    #[error(
        "no addresses for hosts are free: every /24 of 10.98.0.0/16 has a route on this machine; name another with --range"
    )]
    NoRange,
    /// The wished addresses are in use.
    #[error("the addresses {0} have a route on this machine already; name others with --range, or none")]
    RangeTaken(Range),
}

/// The bridge, and the link to this machine. Takes the range, or the first that is free, and says which.
pub fn lay_wire(cluster: &ClusterName, wish: Option<Range>) -> Result<Range, Error> {
    let wire = enter::namespace(cluster, &HostName::wire())?;
    let here = own_namespace()?;
    within(&wire, async |netlink| {
        let bridge = LinkBridge::new(WIRE).up().build();
        netlink.link().add(bridge).execute().await.map_err(refused("make the bridge", WIRE))?;
        plug_in(&netlink, OUTSIDE, &cluster.uplink(), &here).await
    })?;
    within(&here, async |netlink| claim(&netlink, &cluster.uplink(), wish).await)
}

/// A link from the wire to a host, with the host's address.
pub fn attach(cluster: &ClusterName, host: &Host) -> Result<(), Error> {
    let wire = enter::namespace(cluster, &HostName::wire())?;
    let there = enter::namespace(cluster, &host.name)?;
    within(&wire, async |netlink| plug_in(&netlink, host.name.as_str(), ETH0, &there).await)?;
    within(&there, async |netlink| {
        up(&netlink, "lo").await?;
        let index = up(&netlink, ETH0).await?;
        let address = netlink.address().add(index, IpAddr::V4(host.address), 24);
        address.execute().await.map_err(refused("give an address to", ETH0))
    })
}

/// How fast a host's link is, in both directions; as fast as it can be, when no rate is given.
pub fn pace(cluster: &ClusterName, host: &HostName, rate_bits: Option<u64>) -> Result<(), Error> {
    let wire = enter::namespace(cluster, &HostName::wire())?;
    let there = enter::namespace(cluster, host)?;
    within(&wire, async |netlink| bound(&netlink, host.as_str(), rate_bits).await)?;
    within(&there, async |netlink| bound(&netlink, ETH0, rate_bits).await)
}

/// Removes the link to this machine, if there is one. Was there?
pub fn remove_uplink(cluster: &ClusterName) -> Result<bool, Error> {
    let name = cluster.uplink();
    within(&own_namespace()?, async |netlink| match index(&netlink, &name).await {
        Ok(index) => match netlink.link().del(index).execute().await {
            Err(error) if !is(&error, nix::libc::ENODEV) => Err(refused("remove", &name)(error)),
            _ => Ok(true),
        },
        Err(Error::Refused { source, .. }) if is(&source, nix::libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    })
}

/// Does `work` with a netlink socket that was born in this namespace.
fn within<T: Send>(namespace: &File, work: impl AsyncFnOnce(Handle) -> Result<T, Error> + Send) -> Result<T, Error> {
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Socket)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
            tokio::spawn(connection);
            work(handle).await
        })
    })?
}

/// A veth pair: one end here on the bridge, one in the other namespace.
async fn plug_in(netlink: &Handle, near: &str, far: &str, there: &File) -> Result<(), Error> {
    let bridge = index(netlink, WIRE).await?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(far.to_owned()).setns_by_fd(there.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new(near, far).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    let pair = pair.controller(bridge).up().build();
    netlink.link().add(pair).execute().await.map_err(refused("make the link", far))
}

/// A route is refused if there is one to the same range: so the range is nobody else's.
async fn claim(netlink: &Handle, uplink: &str, wish: Option<Range>) -> Result<Range, Error> {
    let index = up(netlink, uplink).await?;
    let candidates: Vec<Range> = wish.map_or_else(|| Range::candidates().collect(), |range| vec![range]);
    for range in candidates {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(range.address(0), 24);
        let route = route.output_interface(index).scope(netlink_packet_route::route::RouteScope::Link);
        match netlink.route().add(route.build()).execute().await {
            Ok(()) => {
                let address = netlink.address().add(index, IpAddr::V4(range.outside()), 32);
                address.execute().await.map_err(refused("give an address to", uplink))?;
                return Ok(range);
            }
            Err(error) if is(&error, nix::libc::EEXIST) => {}
            Err(error) => return Err(refused("route to hosts over", uplink)(error)),
        }
    }
    Err(wish.map_or(Error::NoRange, Error::RangeTaken))
}

async fn up(netlink: &Handle, link: &str) -> Result<u32, Error> {
    let index = index(netlink, link).await?;
    let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    netlink.link().set(message).execute().await.map_err(refused("set up", link))?;
    Ok(index)
}

async fn index(netlink: &Handle, link: &str) -> Result<u32, Error> {
    let mut found = std::pin::pin!(netlink.link().get().match_name(link.to_owned()).execute());
    match found.next().await {
        Some(Ok(message)) => Ok(message.header.index),
        Some(Err(source)) => Err(refused("find", link)(source)),
        None => Err(refused("find", link)(rtnetlink::Error::RequestFailed)),
    }
}

/// A token bucket at the root of the link, or none. rtnetlink has no builder for it.
async fn bound(netlink: &Handle, link: &str, rate_bits: Option<u64>) -> Result<(), Error> {
    let index = index(netlink, link).await?.cast_signed();
    let Some(rate_bits) = rate_bits else {
        return match netlink.qdisc().del(index).execute().await {
            // There was none.
            Err(error) if !is(&error, nix::libc::ENOENT) && !is(&error, nix::libc::EINVAL) => {
                Err(refused("make fast again", link)(error))
            }
            _ => Ok(()),
        };
    };
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(bucket(rate_bits))];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = netlink.clone().request(request).map_err(refused("slow down", link))?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(refused("slow down", link)(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

/// `struct tc_tbf_qopt` and TCA_TBF_BURST: this rate, bursts of 10 ms (ten packets at least), a queue of 400 ms. With a link layer named the
/// kernel needs no rate table.
fn bucket(rate_bits: u64) -> Vec<TcOption> {
    const PARAMETERS: u16 = 1;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    let rate = u32::try_from(rate_bits / 8).unwrap_or(u32::MAX).max(1);
    let burst = (rate / 100).max(10 * 1_514);
    let queue = (rate / 10).saturating_mul(4).saturating_add(burst);
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(rate.to_ne_bytes());
    parameters.extend([0; 12]);
    parameters.extend(queue.to_ne_bytes());
    parameters.extend([0; 8]);
    let nla = |kind, value: Vec<u8>| TcOption::Other(DefaultNla::new(kind, value));
    vec![nla(PARAMETERS, parameters), nla(BURST, burst.to_ne_bytes().to_vec())]
}

fn refused(what: &'static str, link: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let link = link.to_owned();
    move |source| Error::Refused { what, link, source }
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Nla;

    #[test]
    fn a_bucket_is_as_the_kernel_reads_it() {
        let options = bucket(8_000_000);
        let mut parameters = vec![0; options[0].value_len()];
        options[0].emit_value(&mut parameters);
        assert_eq!(parameters.len(), 36, "struct tc_tbf_qopt");
        assert_eq!(parameters[8..12], 1_000_000_u32.to_ne_bytes());
        assert_eq!(parameters[24..28], 415_140_u32.to_ne_bytes());
    }
}
