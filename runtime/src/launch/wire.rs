//! What runtime and launcher say to each other: one JSON text per packet, descriptors beside it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::ContainerSpec;

/// A packet is one datagram of a socket whose buffer the kernel bounds; arguments and environment together must fit.
pub const PACKET_BYTES: usize = 160 << 10;
/// Six, and one per cgroup tree.
const DESCRIPTORS: usize = 24;

/// Runtime to launcher. Descriptors beside it: image tree, device tree (both with owners shifted), network, two log files, record, then the
/// cgroup files to write or the cgroup directory to be created in.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// What to run.
    pub spec: ContainerSpec,
    /// The slot's address.
    pub address: Ipv4Addr,
    /// First host id of the slot's range.
    pub first_id: u32,
    /// For resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// The last descriptor is a cgroup directory for CLONE_INTO_CGROUP.
    pub into_cgroup: bool,
}

/// Launcher to runtime. Beside a success: the pidfd.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Once, at its start.
    Ready,
    /// The program has been executed.
    Started {
        /// Of the container's init, in the host's numbering.
        pid: u32,
        /// When, on the system-wide clock.
        started_unix_ms: u64,
        /// Moments on the monotonic clock.
        moments_ns: Vec<(String, u64)>,
    },
    /// Nothing is left of it.
    Failed(Failure),
}

/// Which step failed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, in words.
    pub step: String,
    /// The kernel's answer.
    pub cause: String,
    /// Its number, where it has one.
    pub errno: Option<i32>,
    /// What could not be undone.
    pub undo: Option<String>,
}

/// Sends one packet.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > PACKET_BYTES {
        return Err(io::Error::new(ErrorKind::InvalidInput, "arguments and environment are longer than 160 KiB"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "more descriptors than a packet holds"));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for one packet; `None` when the other side is gone.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    buffer.resize(PACKET_BYTES, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..got.bytes])?, fds)))
}
