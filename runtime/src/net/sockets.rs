//! What a container's connections leave behind: sockets that wait out their time keep a port taken from whoever binds it next without asking
//! to share it. The next container in a network finds none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::netlink::Netlink;
use super::{NetError, Network};
use crate::kernel::namespace;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_sockid` in an answer, behind family, state, timer and retransmissions.
const ID: std::ops::Range<usize> = HEADER + 4..HEADER + 4 + 48;
/// Sockets of the machine's own family in the calling thread's network, and what says that a network has none of any.
const LIST: &str = "/proc/thread-self/net/unix";
const NONE: &str = "sockets: used 0";

/// Ends every TCP socket inside. Nobody lives there; `home` is the host's network.
pub fn clear(network: &Network, home: BorrowedFd<'_>) -> Result<(), NetError> {
    let wrong = |source| NetError::Configure { address: network.address, what: "end old connections", source };
    let counted = counted(network, home)?;
    if counted.lines().next() == Some(NONE) && count(&counted) == Some(0) {
        return Ok(());
    }
    let diag = network.diag(home)?;
    // A socket of the newer kind that speaks with an older one counts as one of the newer.
    for family in [libc::AF_INET, libc::AF_INET6] {
        destroy_all(&diag, family as u8).map_err(wrong)?;
    }
    match left(network, home)? {
        0 => Ok(()),
        count => Err(wrong(io::Error::other(format!("the kernel keeps {count} of them")))),
    }
}

/// Whether nothing outlives those who have lived inside. A socket of the machine's own family that was sent through itself does, until the kernel finds it,
/// with all that was sent along: descriptors of files and other sockets, and names that others see. All of that family are listed, unless there are no
/// sockets at all; none of them is this process's, which makes others in there, to connect to what listens.
pub fn are_gone(network: &Network, home: BorrowedFd<'_>) -> Result<bool, NetError> {
    let wrong = |source| NetError::Counters { address: network.address, source };
    let counted = counted(network, home)?;
    // Some are counted for a while after their end, such as those that were asked about links.
    if counted.lines().next() == Some(NONE) {
        return Ok(true);
    }
    let listed = namespace::inside_from(home, network.namespace.as_fd(), || std::fs::read_to_string(LIST));
    let listed = listed.and_then(|read| read).map_err(wrong)?;
    // One line says what the columns are.
    Ok(listed.lines().count() == 1)
}

/// TCP sockets inside, as the kernel counts them. Costs no look at each.
fn left(network: &Network, home: BorrowedFd<'_>) -> Result<u64, NetError> {
    let wrong = |source| NetError::Counters { address: network.address, source };
    count(&counted(network, home)?).ok_or_else(|| wrong(io::ErrorKind::InvalidData.into()))
}

/// `/proc/net/sockstat` inside.
fn counted(network: &Network, home: BorrowedFd<'_>) -> Result<String, NetError> {
    let file = network.sockstat(home)?;
    super::dial::text(file).map_err(|source| NetError::Counters { address: network.address, source })
}

/// `TCP: inuse 0 orphan 0 tw 3 alloc 1 mem 207`: those in use and those that wait out their time are of this network, the others of the machine.
fn count(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_whitespace().collect();
    let value = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)?.parse().ok());
    Some(value("inuse")? + value("tw").unwrap_or(0u64))
}

fn destroy_all(diag: &Netlink, family: u8) -> io::Result<()> {
    let question = message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, &[]);
    let found = match diag.dump(&question) {
        Ok(found) => found,
        // A kernel without this family has no such sockets.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    for socket in found.iter().filter_map(|answer| answer.get(ID)) {
        let packet = message(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, family, socket);
        match diag.acknowledged(&packet) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: TCP, in any state.
fn message(kind: u16, flags: u16, family: u8, id: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = libc::IPPROTO_TCP as u8;
    bytes[20..24].fill(0xff);
    bytes[24..24 + id.len()].copy_from_slice(id);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_the_network_are_counted() {
        let text = "sockets: used 9\nTCP: inuse 2 orphan 7 tw 3 alloc 11 mem 207\nUDP: inuse 0 mem 0\n";
        assert_eq!(count(text), Some(5));
        assert_eq!(count("TCP: orphan 7\n"), None);
    }
}
