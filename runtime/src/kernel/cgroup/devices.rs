//! Which devices a container may use: lines for the v1 controller, a program for v2.
//!
//! The user namespace refuses mknod already; this holds for nodes that an image brings along.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Making a node, as bits of the kernel's question.
pub const MAKE: u32 = 1;
/// Reading one.
pub const READ: u32 = 2;
/// Writing one.
pub const WRITE: u32 = 4;
const ANY: u32 = MAKE | READ | WRITE;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block = 1,
    /// A character device.
    Character = 2,
}

/// Some accesses to some nodes, allowed or denied. Of several rules the last that speaks of an access counts; what none speaks of is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Or denied.
    pub allow: bool,
    /// None: both.
    pub kind: Option<Kind>,
    /// None: every one.
    pub major: Option<u32>,
    /// None: every one.
    pub minor: Option<u32>,
    /// [`MAKE`], [`READ`], [`WRITE`].
    pub access: u32,
}

impl Rule {
    const fn of(allow: bool, kind: Option<Kind>, major: Option<u32>, minor: Option<u32>, access: u32) -> Self {
        Self { allow, kind, major, minor, access }
    }

    /// Every access to every node.
    pub const fn all(allow: bool) -> Self {
        Self::of(allow, None, None, None, ANY)
    }

    /// Nodes of any number may be made.
    pub const fn make(kind: Kind) -> Self {
        Self::of(true, Some(kind), None, None, MAKE)
    }
}

const fn one(major: u32, minor: u32) -> Rule {
    Rule::of(true, Some(Kind::Character), Some(major), Some(minor), ANY)
}

/// null, zero, full, random, urandom, tty, ptmx, pseudo terminals.
pub const ALLOWED: [Rule; 8] = [
    one(1, 3),
    one(1, 5),
    one(1, 7),
    one(1, 8),
    one(1, 9),
    one(5, 0),
    one(5, 2),
    Rule::of(true, Some(Kind::Character), Some(136), None, ANY),
];

/// As the v1 controller reads it, in its file for what is allowed, or the one for what is denied.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => return f.write_str("a"),
            Some(Kind::Block) => 'b',
            Some(Kind::Character) => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = [(READ, "r"), (WRITE, "w"), (MAKE, "m")];
        letters.iter().filter(|(bit, _)| self.access & bit != 0).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

const ANSWER: u8 = 0;
const ARGUMENT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The answer to each question of the kernel: 1 for yes, else 0. Its argument points to `struct bpf_cgroup_dev_ctx`: type (low half) and
/// access (high half), major, minor, of 32 bits each.
fn program(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        load(KIND, ARGUMENT, 0),
        copy(ACCESS, KIND),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        load(MAJOR, ARGUMENT, 4),
        load(MINOR, ARGUMENT, 8),
    ];
    // What stands before a rule for everything is never reached: the kernel refuses such code.
    let last = rules.iter().rposition(|rule| *rule == Rule::all(rule.allow));
    rules[last.unwrap_or(0)..].iter().rev().for_each(|rule| code.extend(matching(rule)));
    if last.is_none() {
        code.extend(answer(true));
    }
    code
}

/// Answers where the rule speaks of the access, else goes on behind it.
fn matching(rule: &Rule) -> Vec<u64> {
    let mut code = answer(rule.allow).to_vec();
    // Each is put before those that it passes over.
    let mut first = |check: &dyn Fn(i16) -> Vec<u64>| {
        let over = code.len() as i16;
        code.splice(0..0, check(over));
    };
    for (register, wanted) in [(MINOR, rule.minor), (MAJOR, rule.major), (KIND, rule.kind.map(|kind| kind as u32))] {
        if let Some(wanted) = wanted {
            first(&|over| vec![instruction(JUMP_IF_NOT, register, 0, over, wanted)]);
        }
    }
    // Nothing is asked that is not allowed; something is asked that is denied.
    let (looked_at, passed_over) = if rule.allow { (ANY & !rule.access, JUMP_IF_NOT) } else { (rule.access, JUMP_IF) };
    if rule.access != ANY {
        first(&|over| {
            vec![
                copy(ANSWER, ACCESS),
                instruction(AND, ANSWER, 0, 0, looked_at),
                instruction(passed_over, ANSWER, 0, over, 0),
            ]
        });
    }
    code
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbc;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

fn load(to: u8, from: u8, offset: i16) -> u64 {
    instruction(LOAD_WORD, to, from, offset, 0)
}

fn copy(to: u8, from: u8) -> u64 {
    instruction(COPY, to, from, 0, 0)
}

fn answer(yes: bool) -> [u64; 2] {
    [instruction(MOVE, ANSWER, 0, 0, u32::from(yes)), instruction(EXIT, 0, 0, 0, 0)]
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
    /// Loads [`ALLOWED`], and nothing else.
    pub fn load() -> io::Result<Self> {
        Self::load_rules(&[&[Rule::all(false)], &ALLOWED[..]].concat())
    }

    /// Loads these, in their order.
    pub fn load_rules(rules: &[Rule]) -> io::Result<Self> {
        let code = program(rules);
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

    const CHARACTER: u32 = Kind::Character as u32;
    const BLOCK: u32 = Kind::Block as u32;

    /// What the kernel would answer, by the meaning of the instructions that are used.
    fn asked(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let (code, context) = (program(rules), [access << 16 | kind, major, minor]);
        let (mut registers, mut at) = ([0_u32; 11], 0);
        loop {
            let [op, pair, o0, o1, v0, v1, v2, v3] = code[at].to_ne_bytes();
            let (to, from, offset, value) = (
                usize::from(pair & 15),
                usize::from(pair >> 4),
                i16::from_ne_bytes([o0, o1]),
                u32::from_ne_bytes([v0, v1, v2, v3]),
            );
            at += 1;
            match op {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                MOVE => registers[to] = value,
                COPY => registers[to] = registers[from],
                JUMP_IF_NOT if registers[to] != value => at += offset as usize,
                JUMP_IF if registers[to] == value => at += offset as usize,
                JUMP_IF_NOT | JUMP_IF => {}
                EXIT => return registers[0],
                other => panic!("no instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        let rules = [&[Rule::all(false)], &ALLOWED[..]].concat();
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            for access in 1..8 {
                assert_eq!(asked(&rules, CHARACTER, access, major, minor), 1, "{major}:{minor}");
                assert_eq!(asked(&rules, BLOCK, access, major, minor), 0, "a block device {major}:{minor}");
            }
        }
        for (major, minor) in
            [(1, 1), (1, 2), (1, 4), (1, 11), (5, 1), (10, 229), (8, 0), (137, 3), (0, 0), (u32::MAX, 3)]
        {
            assert_eq!(asked(&rules, CHARACTER, 2, major, minor), 0, "{major}:{minor}");
        }
    }

    /// A second opinion: the rules from the last to the first, in so many words.
    fn by_hand(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let speaks = |rule: &&Rule| {
            let asks = if rule.allow { access & !rule.access == 0 } else { access & rule.access != 0 };
            let is = |wanted: Option<u32>, given| wanted.is_none_or(|wanted| wanted == given);
            asks && is(rule.kind.map(|kind| kind as u32), kind) && is(rule.major, major) && is(rule.minor, minor)
        };
        rules.iter().rev().find(speaks).map_or(1, |rule| u32::from(rule.allow))
    }

    proptest::proptest! {
        #[test]
        fn the_last_rule_that_speaks_of_an_access_counts(
            drawn in proptest::collection::vec(
                (proptest::bool::ANY, 0_u32..3, proptest::option::of(0_u32..3), proptest::option::of(0_u32..3), 1_u32..8), 0..6),
            (kind, access, major, minor) in (1_u32..3, 1_u32..8, 0_u32..3, 0_u32..3),
        ) {
            let kinds = [None, Some(Kind::Block), Some(Kind::Character)];
            let rules: Vec<Rule> = drawn
                .into_iter()
                .map(|(allow, kind, major, minor, access)| Rule::of(allow, kinds[kind as usize], major, minor, access))
                .collect();
            let wanted = by_hand(&rules, kind, access, major, minor);
            proptest::prop_assert_eq!(asked(&rules, kind, access, major, minor), wanted, "{:?}", rules);
        }
    }

    #[test]
    fn the_v1_controller_reads_lines() {
        assert_eq!(ALLOWED[0].to_string(), "c 1:3 rwm");
        assert_eq!(ALLOWED[7].to_string(), "c 136:* rwm");
        assert_eq!(Rule::make(Kind::Block).to_string(), "b *:* m");
        assert_eq!(Rule::all(false).to_string(), "a");
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can load programs into the kernel");
            return;
        }
        let no_writes = Rule::of(false, None, Some(8), None, WRITE);
        match Program::load().and_then(|_| Program::load_rules(&[no_writes, Rule::make(Kind::Block), Rule::all(true)]))
        {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => println!("skipped: this kernel has no bpf(2)"),
            Err(error) => panic!("{error}"),
        }
    }
}
