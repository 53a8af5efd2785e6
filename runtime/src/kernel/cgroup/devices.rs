//! Which devices a container may use: lines for the v1 controller, a program for v2.
//!
//! The user namespace refuses mknod already; this holds for nodes that an image brings along.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One kind of node that may be made, read and written. All are character devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    major: u32,
    /// None: every one.
    minor: Option<u32>,
}

impl Rule {
    /// A character device, or all of a major number.
    pub fn new(major: u32, minor: Option<u32>) -> Self {
        Self { major, minor }
    }
}

const fn one(major: u32, minor: u32) -> Rule {
    Rule { major, minor: Some(minor) }
}

/// null, zero, full, random, urandom, tty, ptmx, pseudo terminals.
pub const ALLOWED: [Rule; 8] =
    [one(1, 3), one(1, 5), one(1, 7), one(1, 8), one(1, 9), one(5, 0), one(5, 2), Rule { major: 136, minor: None }];

/// As the v1 controller reads it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "c {}:{minor} rwm", self.major),
            None => write!(f, "c {}:* rwm", self.major),
        }
    }
}

/// The answer to each question of the kernel: 1 for what a rule names, else 0. Its argument points to `struct bpf_cgroup_dev_ctx`: type (low half) and
/// access (high half), major, minor, of 32 bits each.
fn program(rules: &[Rule]) -> Vec<u64> {
    const ARGUMENT: u8 = 1;
    const KIND: u8 = 2;
    const MAJOR: u8 = 3;
    const MINOR: u8 = 4;
    const CHARACTER: u32 = 2;
    let mut code = vec![
        load(KIND, ARGUMENT, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        load(MAJOR, ARGUMENT, 4),
        load(MINOR, ARGUMENT, 8),
        unless(KIND, CHARACTER, rules.iter().map(length).sum()),
    ];
    for rule in rules {
        let rest = length(rule);
        code.push(unless(MAJOR, rule.major, rest - 1));
        code.extend(rule.minor.map(|minor| unless(MINOR, minor, ANSWER)));
        code.extend(answer(1));
    }
    code.extend(answer(0));
    code
}

/// Instructions of an answer.
const ANSWER: i16 = 2;

/// Instructions of a rule.
fn length(rule: &Rule) -> i16 {
    1 + i16::from(rule.minor.is_some()) + ANSWER
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const MOVE: u8 = 0xb7;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

fn load(to: u8, from: u8, offset: i16) -> u64 {
    instruction(LOAD_WORD, to, from, offset, 0)
}

/// Passes over the next `over` instructions unless the register has that value.
fn unless(register: u8, value: u32, over: i16) -> u64 {
    instruction(JUMP_IF_NOT, register, 0, over, value)
}

fn answer(value: u32) -> [u64; 2] {
    [instruction(MOVE, 0, 0, 0, value), instruction(EXIT, 0, 0, 0, 0)]
}

/// `struct bpf_insn`: code, two registers of 4 bits, offset, immediate value.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> u64 {
    u64::from_ne_bytes({
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        [code, registers(to, from), o0, o1, v0, v1, v2, v3]
    })
}

/// In the order of the machine's bit fields.
fn registers(to: u8, from: u8) -> u8 {
    if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from }
}

/// The rules as the kernel has them, to be attached to any number of groups.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// `union bpf_attr`, as BPF_PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// As BPF_PROG_ATTACH reads it.
#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

impl Program {
    /// Loads [`ALLOWED`].
    pub fn load() -> io::Result<Self> {
        Self::load_with(&[])
    }

    /// Loads [`ALLOWED`] and more.
    pub fn load_with(more: &[Rule]) -> io::Result<Self> {
        let code = program(&[&ALLOWED, more].concat());
        let load = Load {
            kind: BPF_PROG_TYPE_CGROUP_DEVICE,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            name: *b"bellows_devices\0",
            ..Load::default()
        };
        let fd = bpf(BPF_PROG_LOAD, &load)?;
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// To a group, by a descriptor of its directory, in place of one that was attached so before. It stays as long as the group.
    pub fn attach(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().cast_unsigned();
        let attach =
            Attach { group: number(group), program: number(self.0.as_fd()), kind: BPF_CGROUP_DEVICE, flags: 0 };
        bpf(BPF_PROG_ATTACH, &attach).map(drop)
    }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes have the size that is given, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARACTER: u32 = 2;
    const BLOCK: u32 = 1;

    /// What the kernel would answer, by the meaning of the five instructions that are used.
    fn asked(kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let (code, context) = (program(&ALLOWED), [access << 16 | kind, major, minor]);
        let (mut registers, mut at) = ([0_u32; 11], 0);
        loop {
            let [op, pair, o0, o1, v0, v1, v2, v3] = code[at].to_ne_bytes();
            let (to, offset, value) =
                (usize::from(pair & 15), i16::from_ne_bytes([o0, o1]), u32::from_ne_bytes([v0, v1, v2, v3]));
            at += 1;
            match op {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                AND => registers[to] &= value,
                MOVE => registers[to] = value,
                JUMP_IF_NOT if registers[to] != value => at += offset as usize,
                JUMP_IF_NOT => {}
                EXIT => return registers[0],
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            for access in 1..8 {
                assert_eq!(asked(CHARACTER, access, major, minor), 1, "{major}:{minor}");
                assert_eq!(asked(BLOCK, access, major, minor), 0, "a block device {major}:{minor}");
            }
        }
        for (major, minor) in
            [(1, 1), (1, 2), (1, 4), (1, 11), (5, 1), (10, 229), (8, 0), (137, 3), (0, 0), (u32::MAX, 3)]
        {
            assert_eq!(asked(CHARACTER, 2, major, minor), 0, "{major}:{minor}");
        }
    }

    #[test]
    fn the_v1_controller_reads_lines() {
        assert_eq!(ALLOWED[0].to_string(), "c 1:3 rwm");
        assert_eq!(ALLOWED[7].to_string(), "c 136:* rwm");
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can load programs into the kernel");
            return;
        }
        match Program::load() {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => println!("skipped: this kernel has no bpf(2)"),
            Err(error) => panic!("{error}"),
        }
    }
}
