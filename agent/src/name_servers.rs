//! Which name servers copies with egress are told: the node's own, as far as they can be reached from a network of one's own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

const OWN: &str = "/etc/resolv.conf";
/// What systemd-resolved asks, which stands as 127.0.0.53 in the file above.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// C libraries read no more.
const MOST: usize = 3;

/// Read anew at each start. None, said in the log, where there are none that copies could ask.
pub(crate) fn of_this_node() -> Vec<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let found = usable(&read(OWN), &read(BEHIND_STUB));
    if found.is_empty() {
        tracing::warn!(
            "{OWN} names no server that copies could reach: those with egress have none, unless --name-server says some"
        );
    }
    found
}

/// The first file's; where all of them are the node's own loopback, the second one's.
fn usable(own: &str, behind_stub: &str) -> Vec<IpAddr> {
    [own, behind_stub].into_iter().map(servers).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Copies speak IPv4, and reach neither the node's loopback nor its link.
fn servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.split_whitespace().next()?.parse::<Ipv4Addr>().ok());
    let reachable = addresses.filter(|it| !it.is_loopback() && !it.is_unspecified() && !it.is_link_local());
    reachable.map(IpAddr::V4).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_but_for_its_loopback() {
        let v4 = |last| IpAddr::from([9, 9, 9, last]);
        let stub = "# made by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n";
        let behind = "nameserver 9.9.9.1\nnameserver 2620:fe::fe\nnameserver 9.9.9.2\n";
        assert_eq!(usable(stub, behind), [v4(1), v4(2)]);
        assert_eq!(usable("nameserver 9.9.9.9\n", behind), [v4(9)]);
        assert_eq!(usable("nameserver 127.0.0.1\n\tnameserver\t9.9.9.8 \n", behind), [v4(8)]);
        assert!(usable("nameserver ::1\nnameserver fe80::1%eth0\nnameserver 169.254.169.253\n", "").is_empty());
        let many = "nameserver 9.9.9.1\n".repeat(5);
        assert_eq!(usable(&many, "").len(), MOST);
    }
}
