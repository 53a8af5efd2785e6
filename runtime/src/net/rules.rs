//! The node's firewall as text for `nft`: one table per runtime, keyed by its subnet, so that several runtimes on a machine do not disturb each other and
//! no launch changes a rule.
//!
//! A replica may answer who dials it from its own node, and that is all: not the node's ports (whatever the address), not other replicas (not even of its
//! own app: between replicas all goes through the ingress, as it must between nodes), not the world. Packets must come from the link that their source
//! address leads to. Refusals are told rather than left to time out: `ECONNREFUSED` (a TCP socket that is being connected hears no ICMP message that comes
//! back at once), `EHOSTUNREACH` for all else.
//!
//! Where an app may reach out ([`Reach::Out`]), its addresses are in the set `egress`. Only then does the table follow connections: conntrack costs every
//! packet of the node something, the ingress's too.

use std::net::Ipv4Addr;

use crate::handle::Ipv4Subnet;

/// Who may be answered and reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only those who dial a replica from its own node.
    Node,
    /// Also what lies beyond the node, for the addresses in the set `egress`.
    Out,
}

/// The set of addresses that may reach out.
pub const EGRESS: &str = "egress";

/// Everything that no replica has business with even where it may reach out: this network, loopback, link-local (where clouds keep
/// credentials), multicast, reserved.
const NOWHERE: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3";
const RESET: &str = "reject with tcp reset";
const REFUSE: &str = "reject with icmpx type admin-prohibited";

/// The name of a runtime's table.
pub fn table(subnet: Ipv4Subnet) -> String {
    let text = subnet.to_string();
    format!("bellows_{}", text.replace(['.', '/'], "_"))
}

/// The whole table, in one transaction: what stood in it before is replaced, the set's elements stay.
pub fn script(subnet: Ipv4Subnet, links: &[String], reach: Reach) -> String {
    let table = table(subnet);
    let sources: String = links.iter().map(|link| format!("  iifname \"{link}*\" jump honest\n")).collect();
    let (beyond, established, outwards, masquerade) = match reach {
        // Here already: what does not forward drops in silence.
        Reach::Node => ("  fib daddr type != local jump refuse\n", "", "", String::new()),
        Reach::Out => (
            "",
            "  ct state established,related accept\n",
            "  ip saddr @egress accept\n",
            format!(
                " chain translate {{\n  type nat hook postrouting priority srcnat; policy accept;\n  \
                 ip saddr {subnet} oifname != \"bw*\" masquerade\n }}\n"
            ),
        ),
    };
    format!(
        "add table inet {table}\nflush table inet {table}\ntable inet {table} {{
 set {EGRESS} {{ type ipv4_addr; }}
 chain arriving {{
  type filter hook prerouting priority raw; policy accept;
{sources} }}
 chain honest {{
  meta nfproto != ipv4 drop
  ip saddr != {subnet} drop
  fib saddr . iif oif missing drop
{beyond} }}
 chain refuse {{
  meta l4proto tcp {RESET}
  {REFUSE}
 }}
 chain input {{
  type filter hook input priority filter; policy accept;
  ip saddr {subnet} iifname \"bw*\" jump node
 }}
 chain node {{
  tcp flags & (syn | ack) == syn {RESET}
  meta l4proto tcp accept
  icmp type {{ echo-reply, destination-unreachable, time-exceeded }} accept
  {REFUSE}
 }}
 chain forward {{
  type filter hook forward priority filter; policy accept;
  ip saddr {subnet} iifname \"bw*\" jump outwards
  ip daddr {subnet} oifname \"bw*\" jump inwards
 }}
 chain outwards {{
{established}  oifname \"bw*\" jump refuse
  ip daddr {{ {NOWHERE} }} jump refuse
{outwards}  jump refuse
 }}
 chain inwards {{
{established}  drop
 }}
{masquerade}}}
"
    )
}

/// Beginnings of the host's link names whose addresses are in the subnet: names hold the address in hexadecimal digits, four bits each.
pub fn links(subnet: Ipv4Subnet) -> Vec<String> {
    let (first, prefix) = (u32::from(subnet.first()), u32::from(subnet.prefix()));
    let digits = prefix.div_ceil(4);
    let unit = 32 - digits * 4;
    let count = 1_u32 << (digits * 4 - prefix);
    let name = |number: u32| {
        let text = format!("{:08x}", first + (number << unit));
        format!("bw{}", text.get(..digits as usize).unwrap_or_default())
    };
    (0..count).map(name).collect()
}

/// The name of the host's end of a link, of which [`links`] are the beginnings. The address makes it unique on the machine, the generation from an earlier
/// link of the same address: that one goes some milliseconds after its namespace was let go, and nobody waits for it.
pub fn link_name(address: Ipv4Addr, generation: u16) -> String {
    format!("bw{:08x}{generation:04x}", u32::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn a_subnets_links_are_those_of_its_addresses_and_no_others() {
        for text in ["10.0.0.0/8", "10.96.0.0/12", "10.1.0.0/22", "10.200.3.32/27", "10.0.0.252/30"] {
            let all = links(subnet(text));
            let is_ours = |address: u32| {
                let name = link_name(address.into(), 7);
                all.iter().filter(|link| name.starts_with(link.as_str())).count()
            };
            let first = u32::from(subnet(text).first());
            let last = first + subnet(text).room() + 1;
            assert_eq!([is_ours(first), is_ours(first / 2 + last / 2), is_ours(last)], [1, 1, 1], "{text}: {all:?}");
            assert_eq!([is_ours(first - 1), is_ours(last + 1)], [0, 0], "{text}: {all:?}");
        }
    }

    #[test]
    fn connections_are_followed_only_where_somebody_may_reach_out() {
        let links = links(subnet("10.1.0.0/22"));
        let of = |reach| script(subnet("10.1.0.0/22"), &links, reach);
        assert!(!of(Reach::Node).contains(" ct ") && !of(Reach::Node).contains("type nat"));
        assert!(of(Reach::Out).contains("ip saddr @egress accept") && of(Reach::Out).contains("masquerade"));
    }

    #[test]
    fn every_runtime_has_a_table_of_its_own() {
        assert_eq!(table(subnet("10.1.0.0/22")), "bellows_10_1_0_0_22");
    }
}
