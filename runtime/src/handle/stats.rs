//! What a container uses, read from its cgroups and its processes.
//!
//! Input and output are summed over processes and not read from a controller: the kernel adds those of a child that ended to whoever waited for it, in
//! the end the container's init, and that holds with either shape of cgroups.

use std::fs;
use std::path::Path;

use super::Error;
use super::slots::Slot;
use super::types::{Stats, Usage};

pub fn read(slot: &Slot, usage: Usage) -> Result<Stats, Error> {
    let pids = slot.group.pids()?;
    let (read_bytes, written_bytes) = pids.iter().map(|pid| input_output(*pid)).fold((0, 0), sum);
    let (received_bytes, sent_bytes) = pids.first().map_or((0, 0), |pid| traffic(*pid));
    Ok(Stats {
        usage,
        memory_peak_bytes: slot.group.memory_peak_bytes(),
        read_bytes,
        written_bytes,
        received_bytes,
        sent_bytes,
        frozen: slot.group.is_frozen()?,
    })
}

fn sum(all: (u64, u64), one: (u64, u64)) -> (u64, u64) {
    (all.0 + one.0, all.1 + one.1)
}

/// Of one process; nothing of one that has ended meanwhile.
fn input_output(pid: u32) -> (u64, u64) {
    let text = text(&format!("/proc/{pid}/io"));
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
    let written: u64 = value("write_bytes:");
    (value("read_bytes:"), written.saturating_sub(value("cancelled_write_bytes:")))
}

/// In and out of the network namespace of this process.
fn traffic(pid: u32) -> (u64, u64) {
    octets(&text(&format!("/proc/{pid}/net/netstat")))
}

fn octets(netstat: &str) -> (u64, u64) {
    let value = |name| crate::net::snmp_value(netstat, "IpExt:", name).unwrap_or(0);
    (value("InOctets"), value("OutOctets"))
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 1200 34\n";
        assert_eq!(octets(text), (1_200, 34));
        assert_eq!(octets(""), (0, 0));
    }

    #[test]
    fn our_own_input_and_output_is_read() {
        let (read, written) = input_output(std::process::id());
        assert!(read < 1 << 50 && written < 1 << 50, "{read} {written}");
        assert_eq!(input_output(u32::MAX), (0, 0));
    }
}
