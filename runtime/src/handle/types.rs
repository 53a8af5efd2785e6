//! What the runtime tells about containers.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::ContainerId;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The program returned this code.
    Code(i32),
    /// A signal ended the program.
    Signal(i32),
    /// The kernel killed it for using more memory than its limit.
    OutOfMemory,
    /// It is gone and nobody could tell how (the machine was restarted, or the init itself was killed).
    Unknown,
}

/// A container that was started: its program has been executed.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub id: ContainerId,
    /// Process id of its init, in the host's numbering.
    pub pid: u32,
    /// Readable when the container has ended: then call [`crate::Runtime::reap`].
    pub pidfd: OwnedFd,
    /// Its own address.
    pub address: Ipv4Addr,
    /// When its program was executed.
    pub started_unix_ms: u64,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the time of one launch went: moments in order, nanoseconds after the call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// Name of the moment, nanoseconds since [`crate::Runtime::launch`] was called.
    pub moments_ns: Vec<(&'static str, u64)>,
}

/// A container that has ended and whose cgroups, slot and scratch are free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name.
    pub id: ContainerId,
    /// How it ended.
    pub exit: Exit,
    /// When it was started.
    pub started_unix_ms: u64,
    /// When it ended, as its init saw it; the moment of reaping where the init could not tell.
    pub ended_unix_ms: u64,
}

/// A container found at start-up that an earlier runtime with the same state folder had started.
#[derive(Debug)]
pub enum Adopted {
    /// It runs.
    Alive(Running),
    /// It ended meanwhile.
    Ended(Ended),
}

/// What one container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu_us: u64,
    /// Memory charged to it.
    pub memory_bytes: u64,
    /// Processes and threads, its init among them.
    pub processes: u64,
    /// Established TCP connections in its network namespace; one dialled from outside by [`crate::Runtime::dial`] counts at both its ends.
    pub connections: u64,
    /// Does it hold its busy mark, `/dev/bellows/busy`, open for writing?
    pub busy_mark: bool,
}

/// What one container uses, in full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// What is read more often.
    pub usage: Usage,
    /// The most memory charged to it at any time; nothing where the kernel does not tell.
    pub memory_peak_bytes: Option<u64>,
    /// From block devices, by all its processes, also those that ended.
    pub read_bytes: u64,
    /// To block devices, likewise; what was cut off before it was written does not count.
    pub written_bytes: u64,
    /// Bytes that its network has received, headers and loopback included. An earlier container of the tenant may have used that network.
    pub received_bytes: u64,
    /// Bytes that its network has sent, likewise.
    pub sent_bytes: u64,
    /// Whether all its processes are stopped in their tracks.
    pub frozen: bool,
}

/// Share of time in which some task waited, permille, averaged over 10 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu_permille: u32,
    /// Waiting for memory.
    pub memory_permille: u32,
    /// Waiting for block devices.
    pub io_permille: u32,
}

/// What the node uses and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// CPU time since the node's cgroup was made (whole machine: since boot).
    pub cpu_us: u64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Thousandths of a CPU that may be used.
    pub capacity_cpu_milli: u64,
    /// Memory that may be used.
    pub capacity_memory_bytes: u64,
    /// The machine's pressure, where the kernel offers it.
    pub pressure: Option<Pressure>,
}

/// Where a container's output is. Each line is `UNIX_MS STREAM TAG TEXT`, stream `stdout` or `stderr`, tag `F` for a whole line and `P` for a part
/// of one that continues in the next line of the same stream (longer than 4 KiB, or unfinished for a while). The first line of each file begins with
/// `#` and says where in the log it stands; `LogReader` reads both files while they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Older lines; may be empty.
    pub older: PathBuf,
    /// Newer lines.
    pub newer: PathBuf,
    /// How often the files changed roles.
    pub rotations: u64,
    /// Output that could not be written (disk full), in bytes.
    pub lost_bytes: u64,
}

/// One kernel feature, as probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub feature: String,
    /// Whether it is there, and in which form.
    pub found: Result<String, String>,
    /// What it is needed for.
    pub needed_for: String,
    /// What happens without it.
    pub without: String,
    /// How to get it, where it is required; else empty.
    pub mend: String,
    /// Whether the runtime cannot work without it.
    pub required: bool,
}
