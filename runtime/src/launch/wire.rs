//! What runtime and launcher say to each other: one packet each way, descriptors beside it. Both are the same executable, so there are no versions.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::codec::{Reader, Writer};
use super::moments::Moment;
use crate::spec::{ContainerId, ContainerSpec, Limits, User};

/// A packet is one datagram of a socket whose buffer the kernel bounds; arguments and environment together must fit.
pub const PACKET_BYTES: usize = 160 << 10;
/// Seven, and one per cgroup tree.
const DESCRIPTORS: usize = 24;

/// Something that fits into a packet.
pub trait Message: Sized {
    /// Adds its bytes.
    fn write(&self, to: &mut Writer);
}

/// Something that comes out of one.
pub trait Received: Sized {
    /// Takes its bytes.
    fn read(from: &mut Reader<'_>) -> io::Result<Self>;
}

/// Runtime to launcher. Descriptors beside it: image tree, device tree (both with owners shifted), network, its sysfs, two log files, record, then the
/// cgroup files to write or the cgroup directory to be created in.
#[derive(Debug)]
pub struct Order<'a> {
    /// What to run.
    pub spec: &'a ContainerSpec,
    /// The slot's address.
    pub address: Ipv4Addr,
    /// First host id of the slot's range.
    pub first_id: u32,
    /// For resolv.conf.
    pub nameservers: &'a [IpAddr],
    /// The last descriptor is a cgroup directory for CLONE_INTO_CGROUP.
    pub into_cgroup: bool,
}

/// An [`Order`] as the launcher has it. Of the specification, tenant and root are empty: they are not its business.
#[derive(Debug)]
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
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Once, at its start.
    Ready,
    /// The program has been executed.
    Started {
        /// Of the container's init, in the host's numbering.
        pid: u32,
        /// When, on the system-wide clock.
        started_unix_ms: u64,
        /// On the monotonic clock.
        moments_ns: Vec<(Moment, u64)>,
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

impl Message for Order<'_> {
    fn write(&self, to: &mut Writer) {
        write_spec(to, self.spec);
        to.word(self.address.into());
        to.word(self.first_id);
        to.list(self.nameservers, Writer::address);
        to.byte(self.into_cgroup.into());
    }
}

impl Received for Request {
    fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok(Self {
            spec: read_spec(from)?,
            address: from.word()?.into(),
            first_id: from.word()?,
            nameservers: from.list(Reader::address)?,
            into_cgroup: from.byte()? != 0,
        })
    }
}

fn write_spec(to: &mut Writer, spec: &ContainerSpec) {
    let text = |to: &mut Writer, text: &String| to.bytes(text.as_bytes());
    to.bytes(spec.id.as_str().as_bytes());
    text(to, &spec.hostname);
    to.list(&spec.args, text);
    to.list(&spec.env, text);
    to.bytes(spec.working_dir.as_os_str().as_encoded_bytes());
    to.word(spec.user.uid);
    to.word(spec.user.gid);
    to.list(&spec.user.groups, |to, group| to.word(*group));
    let l = &spec.limits;
    for limit in [l.cpu_milli, l.memory_bytes, l.processes, l.scratch_bytes, l.log_bytes, l.open_files] {
        to.long(limit);
    }
    to.bytes(&spec.drop_capabilities);
    to.word(spec.stop_signal.cast_unsigned());
}

fn read_spec(from: &mut Reader<'_>) -> io::Result<ContainerSpec> {
    Ok(ContainerSpec {
        id: ContainerId::new(from.text()?).map_err(io::Error::other)?,
        tenant: String::new(),
        hostname: from.text()?,
        root: std::path::PathBuf::new(),
        args: from.list(Reader::text)?,
        env: from.list(Reader::text)?,
        working_dir: from.path()?,
        user: User { uid: from.word()?, gid: from.word()?, groups: from.list(Reader::word)? },
        limits: Limits {
            cpu_milli: from.long()?,
            memory_bytes: from.long()?,
            processes: from.long()?,
            scratch_bytes: from.long()?,
            log_bytes: from.long()?,
            open_files: from.long()?,
        },
        drop_capabilities: from.bytes()?.to_vec(),
        stop_signal: from.word()?.cast_signed(),
    })
}

const READY: u8 = 0;
const STARTED: u8 = 1;
const FAILED: u8 = 2;

impl Message for Reply {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Ready => to.byte(READY),
            Self::Started { pid, started_unix_ms, moments_ns } => {
                to.byte(STARTED);
                to.word(*pid);
                to.long(*started_unix_ms);
                to.list(moments_ns, |to, (moment, at)| {
                    to.byte(*moment as u8);
                    to.long(*at);
                });
            }
            Self::Failed(failure) => {
                to.byte(FAILED);
                to.bytes(failure.step.as_bytes());
                to.bytes(failure.cause.as_bytes());
                to.option(failure.errno, |to, errno| to.word(errno.cast_unsigned()));
                to.option(failure.undo.as_ref(), |to, undo| to.bytes(undo.as_bytes()));
            }
        }
    }
}

impl Received for Reply {
    fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        match from.byte()? {
            READY => Ok(Self::Ready),
            STARTED => Ok(Self::Started {
                pid: from.word()?,
                started_unix_ms: from.long()?,
                moments_ns: from.list(|from| Ok((read_moment(from)?, from.long()?)))?,
            }),
            FAILED => Ok(Self::Failed(Failure {
                step: from.text()?,
                cause: from.text()?,
                errno: from.option(|from| Ok(from.word()?.cast_signed()))?,
                undo: from.option(Reader::text)?,
            })),
            _ => Reader::unknown(),
        }
    }
}

fn read_moment(from: &mut Reader<'_>) -> io::Result<Moment> {
    Moment::try_from(from.byte()?).or_else(|_| Reader::unknown())
}

/// Sends one packet.
pub fn send<T: Message>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut packet = Writer::default();
    message.write(&mut packet);
    if packet.0.len() > PACKET_BYTES {
        return Err(io::Error::new(ErrorKind::InvalidInput, "arguments and environment are longer than 160 KiB"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "more descriptors than a packet holds"));
    }
    sendmsg(socket, &[IoSlice::new(&packet.0)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for one packet; `None` when the other side is gone.
pub fn receive<T: Received>(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
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
    Ok(Some((whole(&buffer[..got.bytes])?, fds)))
}

fn whole<T: Received>(bytes: &[u8]) -> io::Result<T> {
    let mut reader = Reader(bytes);
    let message = T::read(&mut reader)?;
    reader.end()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &impl Message) -> Vec<u8> {
        let mut packet = Writer::default();
        message.write(&mut packet);
        packet.0
    }

    /// Every field says something else than its default.
    fn full() -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerId::new("web-1.2").expect("an id"), "", &["app", "-x", ""]);
        spec.hostname = "web".into();
        spec.env = vec!["A=1".into(), "B=\u{fc}".into()];
        spec.working_dir = "/srv".into();
        spec.user = User { uid: 33, gid: 44, groups: vec![5, 6] };
        spec.limits =
            Limits { cpu_milli: 1, memory_bytes: 2 << 40, processes: 3, scratch_bytes: 4, log_bytes: 5, open_files: 6 };
        spec.drop_capabilities = vec![0, 31];
        spec.stop_signal = 3;
        spec
    }

    fn order() -> Vec<u8> {
        let nameservers = [IpAddr::from([9, 9, 9, 9]), "2620:fe::fe".parse().expect("an address")];
        let spec = full();
        let address = Ipv4Addr::new(10, 1, 0, 5);
        bytes(&Order { spec: &spec, address, first_id: 0x1234_0000, nameservers: &nameservers, into_cgroup: true })
    }

    #[test]
    fn an_order_arrives_as_it_was_given() {
        let request: Request = whole(&order()).expect("read");
        assert_eq!(request.spec, full());
        assert_eq!((request.address, request.first_id), (Ipv4Addr::new(10, 1, 0, 5), 0x1234_0000));
        assert_eq!(request.nameservers.len(), 2);
        assert_eq!(request.nameservers[1].to_string(), "2620:fe::fe");
        assert!(request.into_cgroup);
    }

    #[test]
    fn replies_arrive_as_they_were_given() {
        let failure = |errno, undo| Failure {
            step: "do".into(),
            cause: "no".into(),
            errno,
            undo: Option::map(undo, str::to_owned),
        };
        let replies = [
            Reply::Ready,
            Reply::Started {
                pid: 7,
                started_unix_ms: 8,
                moments_ns: vec![(Moment::Planned, 1), (Moment::Executed, 2)],
            },
            Reply::Failed(failure(Some(-2), Some("never"))),
            Reply::Failed(failure(None, None)),
        ];
        for reply in replies {
            assert_eq!(whole::<Reply>(&bytes(&reply)).expect("read"), reply);
        }
    }

    #[test]
    fn a_packet_cut_short_or_too_long_is_refused() {
        let packet = order();
        for length in 0..packet.len() {
            assert!(whole::<Request>(&packet[..length]).is_err(), "{length} of {}", packet.len());
        }
        assert!(whole::<Request>(&[&packet[..], b"x"].concat()).is_err());
        assert!(whole::<Reply>(&[9]).is_err());
    }
}
