//! Whether something listens: one exact question to the kernel's socket tables, about a microsecond.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::Netlink;
use super::{NetError, Network};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const REQUEST_BYTES: usize = 72;

/// Whether a TCP socket inside listens on `port` of the container's address (or of all addresses). `home` is the host's network.
pub fn listening(network: &Network, home: BorrowedFd<'_>, port: u16) -> Result<bool, NetError> {
    let diag = network.diag(home)?;
    let found = diag.exchange(&question(network.address, port)).and_then(|answer| read(&answer));
    found.map_err(|source| NetError::Configure { address: network.address, what: "look up a listening socket", source })
}

/// The same of an address of the calling thread's own network.
pub fn listens_here(address: Ipv4Addr, port: u16) -> io::Result<bool> {
    let diag = Netlink::open(NETLINK_SOCK_DIAG).map_err(io::Error::other)?;
    diag.exchange(&question(address, port)).and_then(|answer| read(&answer))
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: the one TCP socket with this local address, in any state, with any cookie.
fn question(address: Ipv4Addr, port: u16) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&netlink_packet_core::NLM_F_REQUEST.to_ne_bytes());
    bytes[16] = libc::AF_INET as u8;
    bytes[17] = libc::IPPROTO_TCP as u8;
    bytes[20..24].fill(0xff);
    bytes[24..26].copy_from_slice(&port.to_be_bytes());
    bytes[28..32].copy_from_slice(&address.octets());
    bytes[64..72].fill(0xff);
    bytes
}

/// A socket, or the error that says there is none.
fn read(answer: &[u8]) -> io::Result<bool> {
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let code = answer.get(16..20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (kind, code) {
        (Some(SOCK_DIAG_BY_FAMILY), _) => Ok(true),
        (Some(NLMSG_ERROR), Some(code)) if code == -libc::ENOENT => Ok(false),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let error = |code: i32| {
            let mut bytes = [0; 36];
            bytes[4] = 2;
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        let mut socket = [0; 80];
        socket[4] = 20;
        assert!(read(&socket).is_ok_and(|found| found));
        assert!(read(&error(-2)).is_ok_and(|found| !found));
        assert_eq!(read(&error(-1)).map_err(|e| e.raw_os_error()), Err(Some(1)));
        assert!(read(&[]).is_err());
    }
}
