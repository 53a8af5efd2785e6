//! What the machine tells about itself and its processes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Error;
use super::config::Capacity;
use super::types::{NodeUsage, Pressure};
use crate::kernel::cgroup::Cgroups;
use crate::kernel::process::{Stat, ends_within, is_nobodys};
use crate::launch::INIT_NAME;

/// Milliseconds on the system-wide clock.
pub fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Names the time since the machine was started.
pub fn boot_id() -> Result<[u8; 16], Error> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(FILE).map_err(|source| Error::Machine(FILE, source))?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let mut id = [0; 16];
    hex::decode_to_slice(&digits, &mut id).map_err(|error| Error::Machine(FILE, io::Error::other(error)))?;
    Ok(id)
}

/// What tells a process from all others of this boot that had or will have its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// With [`OF_PIDFD`] the inode of its pidfds, never used twice (Linux 6.9); else when it was started, in clock ticks after boot.
    pub mark: u64,
}

const OF_PIDFD: u64 = 1 << 63;

impl Identity {
    /// The inode costs a third of a microsecond, the ticks fifteen. One that has ended and is buried already has no ticks: it is nobody's from then on.
    pub fn of(pid: u32, pidfd: BorrowedFd<'_>) -> io::Result<Self> {
        let mark = match inode(pidfd) {
            Ok(Some(inode)) => inode | OF_PIDFD,
            Ok(None) | Err(_) => start_ticks(pid)?.unwrap_or(0),
        };
        Ok(Self { pid, mark })
    }

    /// A descriptor of it, if it exists; it may have ended. Only the kernel's word says that it does not: a container that is taken for gone is ended.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            // The number is nobody's, or a thread's.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            other => other?,
        };
        let found = match self.mark & OF_PIDFD {
            0 => start_ticks(self.pid)?,
            _ => inode(pidfd.as_fd())?.map(|inode| inode | OF_PIDFD),
        };
        Ok((found == Some(self.mark)).then_some(pidfd))
    }

    /// Whether it has been executed as a container's init: known by the name that it was given, which nobody inside can change.
    pub fn is_init(self) -> io::Result<bool> {
        match fs::read(format!("/proc/{}/cmdline", self.pid)) {
            Err(error) if is_nobodys(&error) => Ok(false),
            words => Ok(words?.split(|byte| *byte == 0).next() == Some(INIT_NAME.to_bytes())),
        }
    }

    /// A descriptor of it, if it has not ended.
    pub fn alive(self) -> io::Result<Option<OwnedFd>> {
        let Some(pidfd) = self.open()? else { return Ok(None) };
        Ok(if ends_within(pidfd.as_fd(), Duration::ZERO)? { None } else { Some(pidfd) })
    }
}

/// When a process was started, by the system-wide clock as it goes now: that may have been set since, so the date of then would
/// give a wrong age.
pub fn started_unix_ms(pid: u32) -> Option<u64> {
    // Fixed at 100/s for all that /proc tells, whatever the kernel counts in.
    const MS_PER_TICK: u64 = 10;
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up_ms = up.tv_sec.cast_unsigned() * 1_000 + up.tv_nsec.cast_unsigned() / 1_000_000;
    let age_ms = up_ms.saturating_sub(start_ticks(pid).ok()?? * MS_PER_TICK);
    Some(now_unix_ms().saturating_sub(age_ms))
}

/// Unique only where pidfds have a file system of their own.
fn inode(pidfd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    static UNIQUE: OnceLock<bool> = OnceLock::new();
    let unique = match UNIQUE.get() {
        Some(unique) => *unique,
        None => {
            let unique = rustix::fs::fstatfs(pidfd)?.f_type == PID_FS_MAGIC;
            *UNIQUE.get_or_init(|| unique)
        }
    };
    Ok(if unique { Some(rustix::fs::fstat(pidfd)?.st_ino).filter(|inode| *inode != 0) } else { None })
}

/// Nothing for a process that does not exist.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    match Stat::read(pid) {
        Err(error) if is_nobodys(&error) => Ok(None),
        stat => stat?.started().map(Some),
    }
}

/// Containers whose launcher dies become children of this process. Where whoever started it had SIGCHLD ignored, no child could be waited for.
pub fn inherit_orphans() -> Result<(), Error> {
    // SAFETY: a disposition that is ignored becomes the default, which runs nothing; a handler is left alone.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut found) == 0 && found.sa_sigaction == libc::SIG_IGN {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
    }
    // SAFETY: a plain call with plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(Error::Machine("the state of this process", io::Error::last_os_error())),
    }
}

/// Takes the exit status of an ended process that has become ours, so that it is no zombie any more; nothing if it is not ours.
pub fn bury(pidfd: BorrowedFd<'_>) {
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
    match rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd), options) {
        // Most often its launcher's child, which the kernel buries by itself.
        Err(rustix::io::Errno::CHILD) | Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot collect an ended container's process"),
    }
}

/// Buries what a launcher of this process group left to this process when it died, each as it ends: containers, and the one that it was
/// about to make, whose number nobody knows.
pub fn bury_orphans(group: u32) {
    let Some(group) = rustix::process::Pid::from_raw(group.cast_signed()) else { return };
    let wait = move || loop {
        match rustix::process::waitid(
            rustix::process::WaitId::Pgid(Some(group)),
            rustix::process::WaitIdOptions::EXITED,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return,
            Err(error) => return tracing::warn!(%error, "cannot collect what a launcher left"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("orphans".to_owned()).spawn(wait) {
        tracing::warn!(%error, "cannot wait for what a launcher left: it stays a zombie until this process ends");
    }
}

/// As [`bury`], of a process that has ended.
pub fn bury_zombie(process: Identity) {
    // Else it stays a zombie until this process ends.
    if let Ok(Some(pidfd)) = process.open()
        && ends_within(pidfd.as_fd(), Duration::ZERO).unwrap_or(false)
    {
        bury(pidfd.as_fd());
    }
}

/// With a capacity: what the node's cgroup uses of it. Without: the machine.
pub fn usage(cgroups: &Cgroups, capacity: Option<Capacity>) -> Result<NodeUsage, Error> {
    let pressure = pressure();
    match capacity {
        Some(Capacity { cpu_milli, memory_bytes }) => Ok(NodeUsage {
            cpu_us: cgroups.cpu_us()?,
            memory_bytes: cgroups.memory_bytes()?,
            capacity_cpu_milli: cpu_milli,
            capacity_memory_bytes: memory_bytes,
            pressure,
        }),
        None => {
            let (total, available) = memory()?;
            Ok(NodeUsage {
                cpu_us: cpu_us()?,
                memory_bytes: total.saturating_sub(available),
                capacity_cpu_milli: std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1000,
                capacity_memory_bytes: total,
                pressure,
            })
        }
    }
}

fn memory() -> Result<(u64, u64), Error> {
    const FILE: &str = "/proc/meminfo";
    let text = fs::read_to_string(FILE).map_err(|source| Error::Machine(FILE, source))?;
    let value = |name: &str| {
        let kib = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::Machine(FILE, io::ErrorKind::InvalidData.into()))
    };
    Ok((value("MemTotal:")?, value("MemAvailable:")?))
}

/// User, nice, system, interrupt and stolen-from-us time of all CPUs; the kernel counts in hundredths of a second here.
fn cpu_us() -> Result<u64, Error> {
    const FILE: &str = "/proc/stat";
    let text = fs::read_to_string(FILE).map_err(|source| Error::Machine(FILE, source))?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<u64>();
    Ok(busy * 10_000)
}

fn pressure() -> Option<Pressure> {
    let of = |what: &str| {
        let text = fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
        let average = text.lines().next()?.split_whitespace().find_map(|part| part.strip_prefix("avg10="))?;
        permille(average)
    };
    Some(Pressure { cpu_permille: of("cpu")?, memory_permille: of("memory")?, io_permille: of("io")? })
}

/// `12.34` percent is 123 permille.
fn permille(percent: &str) -> Option<u32> {
    let (whole, part) = percent.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + part.get(..1)?.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_permille() {
        assert_eq!(permille("0.00"), Some(0));
        assert_eq!(permille("12.39"), Some(123));
        assert_eq!(permille("100.00"), Some(1000));
        assert_eq!(permille("x"), None);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let pid = std::process::id();
        let own = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).expect("a pidfd");
        let us = Identity::of(pid, pidfd.as_fd()).expect("known");
        let alive = |process: Identity| process.alive().expect("known").is_some();
        assert!(alive(us));
        let ticks = start_ticks(pid).expect("known").expect("we have a start");
        assert!(alive(Identity { pid, mark: ticks }), "as older kernels tell");
        assert!(!alive(Identity { pid, mark: ticks + 1 }));
        assert!(!alive(Identity { pid, mark: us.mark + 1 }));
        assert!(!alive(Identity::default()));
        let age_ms = now_unix_ms() - started_unix_ms(pid).expect("we have a start");
        assert!(age_ms < 3_600_000, "a test has not run for an hour: {age_ms} ms");
    }
}
