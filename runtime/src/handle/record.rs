//! The record of a container: one small file that runtime and init write at fixed places, so that whoever comes later knows what became of it.
//!
//! ```text
//!  0 magic  7 version  8 pid  12 slot  16 identity  24 started, ms   runtime
//! 32 ended? 36 wait status  40 ended, ms                        init, or who was to become it, as its last act
//! 48 log rotations  56 lost log bytes                           init
//! 64 boot id  80 out-of-memory kills before  88 kind 92 value   runtime; kind and value at reaping
//! 96 container id, padded with zeros                            runtime
//! ```
//!
//! The version is that of all that a container's init and later runtimes agree upon: this file, the log files, the signals that the init understands,
//! which ids belong to which slot.
//! An init keeps to the one it was started with, so a runtime that raises it must go on reading the older ones, or refuse them as it does newer ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::machine::Identity;
use super::types::{Ended, Exit};
use crate::spec::ContainerId;

const MAGIC: &[u8; 7] = b"bellows";
/// Behind the magic as a digit: so it was written before it was read.
pub const VERSION: u8 = 3;
const BYTES: usize = 160;
const AT_PID: usize = 8;
const AT_KIND: usize = 88;
const AT_ID: usize = 96;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub id: ContainerId,
    pub slot: u32,
    /// Of its init; `pid` 0 until it has one.
    pub process: Identity,
    pub started_unix_ms: u64,
    /// Wait status and time, if the init could tell.
    pub end: Option<(i32, u64)>,
    pub rotations: u64,
    pub lost_bytes: u64,
    pub boot: [u8; 16],
    pub oom_kills_before: u64,
    /// How it ended, once reaped.
    pub exit: Option<Exit>,
}

impl Record {
    /// Of a container about to be launched.
    pub fn new(id: ContainerId, slot: u32, boot: [u8; 16], oom_kills_before: u64) -> Self {
        Self {
            id,
            slot,
            process: Identity::default(),
            started_unix_ms: 0,
            end: None,
            rotations: 0,
            lost_bytes: 0,
            boot,
            oom_kills_before,
            exit: None,
        }
    }

    /// Writes it whole, over whatever was there.
    pub fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes(), 0)
    }

    /// Makes it nobody's.
    pub fn blank(file: &File) -> io::Result<()> {
        file.write_all_at(&[0; 8], 0)
    }

    /// Reads a record; `None` when the file is none: nobody's, or torn by a crash of the machine.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Self::parse(&bytes)),
        }
    }

    /// Of which version the record is, whatever else it says; `None` for nobody's.
    pub fn version(file: &File) -> io::Result<Option<u8>> {
        let mut bytes = [0; 8];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(bytes.starts_with(MAGIC).then(|| bytes[7].wrapping_sub(b'0'))),
        }
    }

    /// Adds which process it became. Touches none of the init's places.
    pub fn set_process(file: &File, process: Identity, slot: u32, started_unix_ms: u64) -> io::Result<()> {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&process.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&slot.to_ne_bytes());
        bytes[8..16].copy_from_slice(&process.mark.to_ne_bytes());
        bytes[16..].copy_from_slice(&started_unix_ms.to_ne_bytes());
        file.write_all_at(&bytes, AT_PID as u64)
    }

    /// Adds how it ended, and when.
    pub fn set_exit(file: &File, exit: Exit, ended_unix_ms: u64) -> io::Result<()> {
        let (kind, value) = match exit {
            Exit::Code(code) => (1_u32, code),
            Exit::Signal(signal) => (2, signal),
            Exit::OutOfMemory => (3, 0),
            Exit::Unknown => (4, 0),
        };
        file.write_all_at(&ended_unix_ms.to_ne_bytes(), 40)?;
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        file.write_all_at(&bytes, AT_KIND as u64)
    }

    /// The outside view of a reaped container.
    pub fn ended(&self, exit: Exit, now_unix_ms: u64) -> Ended {
        let ended_unix_ms = self.end.map_or(now_unix_ms, |(_, at)| at);
        Ended { id: self.id.clone(), exit, started_unix_ms: self.started_unix_ms, ended_unix_ms }
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..7].copy_from_slice(MAGIC);
        bytes[7] = b'0' + VERSION;
        bytes[12..16].copy_from_slice(&self.slot.to_ne_bytes());
        bytes[64..80].copy_from_slice(&self.boot);
        bytes[80..88].copy_from_slice(&self.oom_kills_before.to_ne_bytes());
        let id = self.id.as_str().as_bytes();
        bytes[AT_ID..AT_ID + id.len()].copy_from_slice(id);
        bytes
    }

    fn parse(bytes: &[u8; BYTES]) -> Option<Self> {
        let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let small = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        if !bytes.starts_with(MAGIC) || bytes[7] != b'0' + VERSION {
            return None;
        }
        let value = small(92).cast_signed();
        let exit = match small(88) {
            1 => Some(Exit::Code(value)),
            2 => Some(Exit::Signal(value)),
            3 => Some(Exit::OutOfMemory),
            4 => Some(Exit::Unknown),
            _ => None,
        };
        let ended_unix_ms = number(40);
        // A reaper that stood in for the init wrote a time only.
        let end = (small(32) == 1 || exit.is_some()).then(|| (small(36).cast_signed(), ended_unix_ms));
        let id = bytes[AT_ID..].split(|byte| *byte == 0).next().and_then(|id| std::str::from_utf8(id).ok())?;
        Some(Self {
            id: ContainerId::new(id).ok()?,
            slot: small(12),
            process: Identity { pid: small(8), mark: number(16) },
            started_unix_ms: number(24),
            end,
            rotations: number(48),
            lost_bytes: number(56),
            boot: std::array::from_fn(|i| bytes[64 + i]),
            oom_kills_before: number(80),
            exit,
        })
    }
}

/// How a wait status reads, with what the cgroup knows: a program killed by signal 9 while the kernel killed for memory was killed for memory.
pub fn exit_of(status: Option<i32>, oom_killed: bool) -> Exit {
    match status {
        Some(status) if status & 0x7f == 0 => Exit::Code(status >> 8 & 0xff),
        Some(status) if status & 0x7f == libc::SIGKILL && oom_killed => Exit::OutOfMemory,
        Some(status) => Exit::Signal(status & 0x7f),
        None if oom_killed => Exit::OutOfMemory,
        None => Exit::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_and_init_write_beside_each_other() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(Record::read(&file).expect("read"), None);
        let id = ContainerId::new("a".repeat(64)).expect("the longest id");
        Record::new(id.clone(), 7, [3; 16], 2).write(&file).expect("a record");
        // As the init does, before the runtime has noted the process.
        file.write_all_at(&[1_u32.to_ne_bytes(), 0x700_u32.to_ne_bytes()].concat(), 32).expect("written");
        file.write_all_at(&99_u64.to_ne_bytes(), 40).expect("written");
        let process = Identity { pid: 1234, mark: 55 };
        Record::set_process(&file, process, 7, 90).expect("written");
        let read = Record::read(&file).expect("read").expect("a record");
        assert_eq!((&read.id, read.process, read.slot, read.started_unix_ms), (&id, process, 7, 90));
        assert_eq!((read.end, read.oom_kills_before, read.boot, read.exit), (Some((0x700, 99)), 2, [3; 16], None));
        assert_eq!(Record::version(&file).expect("read"), Some(VERSION));
        Record::set_exit(&file, Exit::Code(7), 99).expect("written");
        assert_eq!(Record::read(&file).expect("read").and_then(|r| r.exit), Some(Exit::Code(7)));
    }

    #[test]
    fn a_record_of_another_version_says_so_and_nothing_else() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(Record::version(&file).expect("read"), None);
        Record::new(ContainerId::new("web").expect("an id"), 7, [3; 16], 2).write(&file).expect("a record");
        file.write_all_at(b"9", 7).expect("written");
        assert_eq!(Record::version(&file).expect("read"), Some(9));
        assert_eq!(Record::read(&file).expect("read"), None);
        Record::blank(&file).expect("written");
        assert_eq!(Record::version(&file).expect("read"), None);
    }

    #[test]
    fn statuses_read_as_waitpid_means_them() {
        assert_eq!(exit_of(Some(0), true), Exit::Code(0));
        assert_eq!(exit_of(Some(137 << 8), true), Exit::Code(137));
        assert_eq!(exit_of(Some(9), true), Exit::OutOfMemory);
        assert_eq!(exit_of(Some(9), false), Exit::Signal(9));
        assert_eq!(exit_of(Some(0x86), true), Exit::Signal(6));
        assert_eq!(exit_of(None, true), Exit::OutOfMemory);
        assert_eq!(exit_of(None, false), Exit::Unknown);
    }
}
