//! What runtime and launcher say to each other: one packet each way, descriptors beside it. Both are the same executable, so there are no versions.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::codec::{Reader, Writer};
use super::layers::Layers;
use super::moments::Moment;
use super::root::Origin;
use crate::spec::{ContainerId, ContainerSpec, IoLimits, Limits, User};

/// A packet is one datagram of a socket whose buffer the kernel bounds; arguments and environment together must fit.
pub const PACKET_BYTES: usize = 160 << 10;
/// Nine, and one per cgroup tree.
const DESCRIPTORS: usize = 24;

/// What a launcher is asked, first in the packet.
const LAUNCH: u8 = 0;
const ENTER: u8 = 1;

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

/// Runtime to launcher. Descriptors beside it: image tree, network, its sysfs, two log files, record, with [`Layers::Detached`] the device tree (both trees
/// with owners shifted), writable layer and overlay where there are any, then the cgroup files to write or the cgroup directory to be created in.
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
    /// How the root is put together.
    pub layers: Layers,
    /// Where it comes from.
    pub root: Origin,
    /// The last descriptor is a cgroup directory for CLONE_INTO_CGROUP.
    pub into_cgroup: bool,
}

/// An [`Order`] as the launcher has it. Of the specification, tenant, root, CPU weight and egress are not told: they are not its business.
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
    /// How the root is put together.
    pub layers: Layers,
    /// Where it comes from.
    pub root: Origin,
    /// The last descriptor is a cgroup directory for CLONE_INTO_CGROUP.
    pub into_cgroup: bool,
}

/// Runtime to launcher: a process inside a container that runs. Descriptors beside it: the control socket, the container's pidfd, then standard input,
/// output and error unless it gets a terminal, then the cgroup files to write or the one cgroup directory.
#[derive(Debug)]
pub struct EnterOrder<'a> {
    /// Which program in which container, and as whom; tenant and root are not looked at.
    pub spec: &'a ContainerSpec,
    /// What it shall do there.
    pub errand: &'a Errand,
    /// The last descriptor is a cgroup directory.
    pub into_cgroup: bool,
}

/// An [`EnterOrder`] as the launcher has it.
#[derive(Debug)]
pub struct EnterRequest {
    /// Which program in which container, and as whom.
    pub spec: ContainerSpec,
    /// What it shall do there.
    pub errand: Errand,
    /// The last descriptor is a cgroup directory.
    pub into_cgroup: bool,
}

/// What somebody enters a container for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// A program with the three streams that come with the order.
    Execute,
    /// A program with a terminal of the container's own.
    ExecuteOnTerminal(Window),
    /// Read an archive from standard input, and put what is in it at this path.
    Unpack {
        /// Inside.
        path: PathBuf,
        /// The path must be a folder, which takes what comes under its own name.
        must_be_folder: bool,
    },
    /// Write what is at this path to standard output, as an archive.
    Pack(PathBuf),
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// What a launcher reads.
#[derive(Debug)]
pub enum Asked {
    /// Start a container.
    Launch(Box<Request>),
    /// Enter one.
    Enter(Box<EnterRequest>),
}

/// Whoever entered a container, to the runtime, over the control socket. When the runtime closes its end, what was begun is ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The program has been executed. With a terminal its other end is beside this.
    Started,
    /// It has not, and nothing is left of it.
    Failed(Failure),
    /// It has ended, with this wait status.
    Ended(i32),
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
    /// Somebody is on the way into the container; the control socket tells the rest. Beside it, the pidfd.
    Entered,
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
        to.byte(LAUNCH);
        write_spec(to, self.spec);
        to.word(self.address.into());
        to.word(self.first_id);
        to.list(self.nameservers, Writer::address);
        to.byte((self.layers == Layers::Attached).into());
        to.byte(self.root as u8);
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
            layers: if from.byte()? == 0 { Layers::Detached } else { Layers::Attached },
            root: match from.byte()? {
                0 => Origin::Launch,
                1 => Origin::Given,
                2 => Origin::Lent,
                3 => Origin::LentAgain,
                _ => return Reader::unknown(),
            },
            into_cgroup: from.byte()? != 0,
        })
    }
}

impl Message for EnterOrder<'_> {
    fn write(&self, to: &mut Writer) {
        to.byte(ENTER);
        write_spec(to, self.spec);
        write_errand(to, self.errand);
        to.byte(self.into_cgroup.into());
    }
}

impl Received for EnterRequest {
    fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        Ok(Self { spec: read_spec(from)?, errand: read_errand(from)?, into_cgroup: from.byte()? != 0 })
    }
}

impl Received for Asked {
    fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        match from.byte()? {
            LAUNCH => Ok(Self::Launch(Box::new(Request::read(from)?))),
            ENTER => Ok(Self::Enter(Box::new(EnterRequest::read(from)?))),
            _ => Reader::unknown(),
        }
    }
}

const EXECUTE: u8 = 0;
const EXECUTE_ON_TERMINAL: u8 = 1;
const UNPACK: u8 = 2;
const PACK: u8 = 3;

fn write_errand(to: &mut Writer, errand: &Errand) {
    match errand {
        Errand::Execute => to.byte(EXECUTE),
        Errand::ExecuteOnTerminal(window) => {
            to.byte(EXECUTE_ON_TERMINAL);
            to.word(window.columns.into());
            to.word(window.rows.into());
        }
        Errand::Unpack { path, must_be_folder } => {
            to.byte(UNPACK);
            to.bytes(path.as_os_str().as_encoded_bytes());
            to.byte((*must_be_folder).into());
        }
        Errand::Pack(path) => {
            to.byte(PACK);
            to.bytes(path.as_os_str().as_encoded_bytes());
        }
    }
}

fn read_errand(from: &mut Reader<'_>) -> io::Result<Errand> {
    match from.byte()? {
        EXECUTE => Ok(Errand::Execute),
        EXECUTE_ON_TERMINAL => {
            let (columns, rows) = (from.word()? as u16, from.word()? as u16);
            Ok(Errand::ExecuteOnTerminal(Window { columns, rows }))
        }
        UNPACK => Ok(Errand::Unpack { path: from.path()?, must_be_folder: from.byte()? != 0 }),
        PACK => Ok(Errand::Pack(from.path()?)),
        _ => Reader::unknown(),
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
    to.list(&spec.deny_calls, |to, call| to.word(*call));
    to.bytes(&spec.add_capabilities);
    to.list(&spec.add_calls, |to, call| to.word(*call));
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
            cpu_weight: 0,
            memory_bytes: from.long()?,
            processes: from.long()?,
            scratch_bytes: from.long()?,
            log_bytes: from.long()?,
            open_files: from.long()?,
            // A matter of cgroups, which the launcher does not set.
            io: IoLimits::default(),
        },
        drop_capabilities: from.bytes()?.to_vec(),
        deny_calls: from.list(Reader::word)?,
        add_capabilities: from.bytes()?.to_vec(),
        add_calls: from.list(Reader::word)?,
        egress: false,
        stop_signal: from.word()?.cast_signed(),
    })
}

const READY: u8 = 0;
const STARTED: u8 = 1;
const FAILED: u8 = 2;
const ENTERED: u8 = 3;
const ENDED: u8 = 4;

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
            Self::Entered => to.byte(ENTERED),
            Self::Failed(failure) => write_failure(to, failure),
        }
    }
}

fn write_failure(to: &mut Writer, failure: &Failure) {
    to.byte(FAILED);
    to.bytes(failure.step.as_bytes());
    to.bytes(failure.cause.as_bytes());
    to.option(failure.errno, |to, errno| to.word(errno.cast_unsigned()));
    to.option(failure.undo.as_ref(), |to, undo| to.bytes(undo.as_bytes()));
}

fn read_failure(from: &mut Reader<'_>) -> io::Result<Failure> {
    Ok(Failure {
        step: from.text()?,
        cause: from.text()?,
        errno: from.option(|from| Ok(from.word()?.cast_signed()))?,
        undo: from.option(Reader::text)?,
    })
}

impl Message for Told {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Started => to.byte(STARTED),
            Self::Failed(failure) => write_failure(to, failure),
            Self::Ended(status) => {
                to.byte(ENDED);
                to.word(status.cast_unsigned());
            }
        }
    }
}

impl Received for Told {
    fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        match from.byte()? {
            STARTED => Ok(Self::Started),
            FAILED => Ok(Self::Failed(read_failure(from)?)),
            ENDED => Ok(Self::Ended(from.word()?.cast_signed())),
            _ => Reader::unknown(),
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
            ENTERED => Ok(Self::Entered),
            FAILED => Ok(Self::Failed(read_failure(from)?)),
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
    if got.flags.contains(ReturnFlags::CTRUNC) {
        // There was no number left for one of them.
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
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
        spec.limits = Limits {
            cpu_milli: 1,
            cpu_weight: 0,
            memory_bytes: 2 << 40,
            processes: 3,
            scratch_bytes: 4,
            log_bytes: 5,
            open_files: 6,
            io: IoLimits::default(),
        };
        spec.drop_capabilities = vec![0, 31];
        spec.deny_calls = vec![101, 1 << 20];
        spec.add_capabilities = vec![19];
        spec.add_calls = vec![425];
        spec.stop_signal = 3;
        spec
    }

    fn order() -> Vec<u8> {
        let nameservers = [IpAddr::from([9, 9, 9, 9]), "2620:fe::fe".parse().expect("an address")];
        let spec = full();
        bytes(&Order {
            spec: &spec,
            address: Ipv4Addr::new(10, 1, 0, 5),
            first_id: 0x1234_0000,
            nameservers: &nameservers,
            layers: Layers::Attached,
            root: Origin::LentAgain,
            into_cgroup: true,
        })
    }

    #[test]
    fn an_order_arrives_as_it_was_given() {
        let Asked::Launch(request) = whole(&order()).expect("read") else { panic!("it is an order to launch") };
        assert_eq!(request.spec, full());
        assert_eq!((request.address, request.first_id), (Ipv4Addr::new(10, 1, 0, 5), 0x1234_0000));
        assert_eq!(request.nameservers.len(), 2);
        assert_eq!(request.nameservers[1].to_string(), "2620:fe::fe");
        assert_eq!((request.layers, request.root, request.into_cgroup), (Layers::Attached, Origin::LentAgain, true));
    }

    #[test]
    fn errands_arrive_as_they_were_given() {
        let spec = full();
        for errand in [
            Errand::Execute,
            Errand::ExecuteOnTerminal(Window { columns: 80, rows: 65_535 }),
            Errand::Unpack { path: "/srv/x".into(), must_be_folder: true },
            Errand::Pack("/srv".into()),
        ] {
            let sent = bytes(&EnterOrder { spec: &spec, errand: &errand, into_cgroup: true });
            let Asked::Enter(request) = whole(&sent).expect("read") else { panic!("it is an errand") };
            assert_eq!((request.spec, request.errand, request.into_cgroup), (full(), errand, true));
        }
        let failure = Failure { step: "do".into(), cause: "no".into(), errno: Some(2), undo: None };
        for told in [Told::Started, Told::Ended(-7), Told::Failed(failure)] {
            assert_eq!(whole::<Told>(&bytes(&told)).expect("read"), told);
        }
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
            Reply::Entered,
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
            assert!(whole::<Asked>(&packet[..length]).is_err(), "{length} of {}", packet.len());
        }
        assert!(whole::<Asked>(&[&packet[..], b"x"].concat()).is_err());
        assert!(whole::<Reply>(&[9]).is_err());
    }
}
