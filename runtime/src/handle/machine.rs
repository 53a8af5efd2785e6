//! What the machine tells about itself and its processes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Error;
use super::config::Capacity;
use super::types::{NodeUsage, Pressure};
use crate::kernel::cgroup::Cgroups;

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

/// When a process was started, in clock ticks after boot: with its number, its identity.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let (_, ticks) = stat(pid)?;
    Some(ticks)
}

/// Whether the process with this identity exists and has not ended.
pub fn is_alive(pid: u32, ticks: u64) -> bool {
    stat(pid).is_some_and(|(state, started)| started == ticks && !matches!(state, 'Z' | 'X'))
}

fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Containers whose launcher dies become children of this process.
pub fn inherit_orphans() -> Result<(), Error> {
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

/// As [`bury`], of a process that is a zombie with this identity.
pub fn bury_zombie(pid: u32, ticks: u64) {
    if stat(pid).is_some_and(|(state, started)| started == ticks && state == 'Z')
        && let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed())
        && let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
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
    fn this_process_is_alive() {
        let pid = std::process::id();
        let ticks = start_ticks(pid).expect("we have a start");
        assert!(is_alive(pid, ticks));
        assert!(!is_alive(pid, ticks + 1));
    }
}
