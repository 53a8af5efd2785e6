//! The system call filter: an interval tree over the call's number, many times faster to load than a chain of comparisons.
//!
//! What is allowed is Docker's default list (moby/profiles, seccomp/default.json, as of June 2026) for its default capabilities. The differences, all of them:
//! - Docker lets 32-bit x86 programs run, and x32 numbers be used. Here the first are killed (SIGSYS) and the second refused: two more tables of calls,
//!   with their own history of holes, for programs that nobody builds images of.
//! - A number above all known ones is answered with ENOSYS, not EPERM, so that libraries of later kernels fall back.
//! - clone with the bit 0x80 is refused, which is no signal's number there, and asks for a time namespace where clone3 takes it.
//! - What Docker adds for capabilities beyond its default set (mount, bpf, setns, perf_event_open, ...) is not there, as no container gets them; [`MORE`] is what
//!   whoever answers for a node may add.
//!
//! In common with it and often asked: clone3 gets ENOSYS, as its flags lie behind a pointer; user namespaces are refused; io_uring, userfaultfd and keyrings
//! are not allowed; `chroot` is, to whoever kept the capability; of sockets all families are but AF_ALG and AF_VSOCK.

#[path = "seccomp_list.rs"]
mod list;

use std::collections::BTreeMap;

/// One instruction of the kernel's classic filter machine (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    /// Code, jumps when true and when false, value.
    pub fn new(code: u16, [if_true, if_false]: [u8; 2], value: u32) -> Self {
        Self { code, if_true, if_false, value }
    }

    /// The same, taken apart.
    #[cfg(test)]
    pub fn parts(&self) -> (u16, [u8; 2], u32) {
        (self.code, [self.if_true, self.if_false], self.value)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Allow,
    Refuse(u32),
    /// Allowed when none of these bits of the first argument is set.
    Without(u32),
    /// Allowed when the first argument is none of these.
    NoneOf(&'static [u32]),
    /// Allowed when the first argument is one of these.
    OneOf(&'static [u32]),
}

const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;
const NR: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
#[cfg(target_arch = "x86_64")]
pub const THIS_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const THIS_ARCH: u32 = 0xc000_00b7;
/// Every CLONE_NEW* flag.
const NAMESPACES: u32 = 0x7e02_0080;
/// The kernel's cryptography, and what speaks with the hypervisor.
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
/// The last number of Linux 6.18's tables is below this; x32 numbers are far above.
const UNKNOWN_FROM: u32 = 480;
const X32_FROM: u32 = 0x4000_0000;

/// What a container may be allowed beyond the default by whoever answers for its node, and nothing else ever: not what mounts, loads, starts another
/// kernel or program of it, opens files past every path, or makes namespaces.
pub const MORE: [(&str, libc::c_long); 15] = [
    ("add_key", libc::SYS_add_key),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("get_mempolicy", libc::SYS_get_mempolicy),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("keyctl", libc::SYS_keyctl),
    ("mbind", libc::SYS_mbind),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("move_pages", libc::SYS_move_pages),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("request_key", libc::SYS_request_key),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// What nobody may be denied: the init and whoever becomes it would never end, or go round for ever, and a launcher would wait for them.
pub const NEEDED: [(&str, libc::c_long); 9] = [
    ("dup3", libc::SYS_dup3),
    ("execveat", libc::SYS_execveat),
    ("exit", libc::SYS_exit),
    ("exit_group", libc::SYS_exit_group),
    ("fcntl", libc::SYS_fcntl),
    ("ppoll", libc::SYS_ppoll),
    ("pwrite64", libc::SYS_pwrite64),
    ("signalfd4", libc::SYS_signalfd4),
    ("wait4", libc::SYS_wait4),
];

/// Docker's default filter, without the first and with the second of these calls.
pub fn filter(denied: &[u32], added: &[u32]) -> Vec<Instruction> {
    let mut rules = default_rules();
    rules.extend(added.iter().map(|nr| (*nr, Rule::Allow)));
    rules.retain(|nr, _| !denied.contains(nr));
    compile(&rules)
}

/// Calls that the default allows to whoever asks rightly: name and number.
pub fn allowed() -> impl Iterator<Item = (&'static str, u32)> {
    let conditional =
        [("clone", libc::SYS_clone), ("socket", libc::SYS_socket), ("personality", libc::SYS_personality)];
    let listed = list::COMMON.iter().chain(list::LEGACY).map(|(name, nr)| (name.trim_start_matches("SYS_"), *nr));
    listed.chain(conditional).map(|(name, nr)| (name, nr as u32)).chain(UNNAMED.iter().copied())
}

/// In Docker's list, not yet named by the libc crate. From 424 on all architectures share their numbers.
const UNNAMED: &[(&str, u32)] = &[
    ("io_pgetevents", if cfg!(target_arch = "x86_64") { 333 } else { 292 }),
    ("cachestat", 451),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    // What the kernel puts behind a function that somebody traces from outside; refused, the traced program would die of it.
    #[cfg(target_arch = "x86_64")]
    ("uretprobe", 335),
];

fn default_rules() -> BTreeMap<u32, Rule> {
    let mut rules: BTreeMap<u32, Rule> =
        list::COMMON.iter().chain(list::LEGACY).map(|(_, nr)| (*nr as u32, Rule::Allow)).collect();
    rules.extend(UNNAMED.iter().map(|(_, nr)| (*nr, Rule::Allow)));
    rules.insert(libc::SYS_clone as u32, Rule::Without(NAMESPACES));
    // Its flags are behind a pointer that a filter cannot follow; libraries fall back to clone.
    rules.insert(libc::SYS_clone3 as u32, Rule::Refuse(libc::ENOSYS as u32));
    rules.insert(libc::SYS_socket as u32, Rule::NoneOf(&[AF_ALG, AF_VSOCK]));
    rules.insert(libc::SYS_personality as u32, Rule::OneOf(&[0, 8, 0x20000, 0x20008, 0xffff_ffff]));
    rules
}

/// Runs of numbers with one rule, as (first number, rule), the first at 0.
fn intervals(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, Rule)> {
    let eperm = Rule::Refuse(libc::EPERM as u32);
    let of = |nr: u32| match rules.get(&nr) {
        Some(rule) => *rule,
        None if (UNKNOWN_FROM..X32_FROM).contains(&nr) => Rule::Refuse(libc::ENOSYS as u32),
        None => eperm,
    };
    let mut runs: Vec<(u32, Rule)> = Vec::new();
    for nr in (0..=UNKNOWN_FROM).chain([X32_FROM]) {
        if runs.last().is_none_or(|(_, rule)| *rule != of(nr)) {
            runs.push((nr, of(nr)));
        }
    }
    runs
}

/// A run of numbers with one rule, but for one number in it at most.
#[derive(Debug)]
struct Leaf {
    from: u32,
    rule: Rule,
    but: Option<(u32, Rule)>,
}

/// As few as can be had by going through the runs once.
fn leaves(runs: &[(u32, Rule)]) -> Vec<Leaf> {
    let is_single = |at: usize| runs.get(at + 1).is_some_and(|next| next.0 == runs[at].0 + 1);
    let mut leaves = Vec::new();
    let mut at = 0;
    while let Some(&(from, rule)) = runs.get(at) {
        let (leaf, length) = match (runs.get(at + 1), runs.get(at + 2)) {
            (Some(but), Some((_, again))) if is_single(at + 1) && *again == rule => {
                (Leaf { from, rule, but: Some(*but) }, 3)
            }
            (Some(but), _) if is_single(at + 1) && !is_single(at) => (Leaf { from, rule, but: Some(*but) }, 2),
            (Some((_, next)), _) if is_single(at) => (Leaf { from, rule: *next, but: Some((from, rule)) }, 2),
            _ => (Leaf { from, rule, but: None }, 1),
        };
        leaves.push(leaf);
        at += length;
    }
    leaves
}

/// Where to part them, which reach up to `end`, so that both sides have about as many numbers.
fn middle(leaves: &[Leaf], end: u32) -> usize {
    let off = |at: &usize| (2 * leaves[*at].from.min(end)).abs_diff(leaves[0].from + end);
    (1..leaves.len()).min_by_key(off).unwrap_or(1)
}

/// Short is quick: for each container the kernel compiles the program to machine code, several times over, and tries it with every number there is. So
/// one instruction per comparison, answers that all share, and the less to compare the more numbers come that way.
fn compile(rules: &BTreeMap<u32, Rule>) -> Vec<Instruction> {
    let mut draft = Draft::default();
    let killed = draft.answer(KILL);
    draft.load(ARCH);
    draft.branch(IF_EQUAL, THIS_ARCH, To::Next, killed);
    draft.load(NR);
    match &leaves(&intervals(rules))[..] {
        [Leaf { rule, but: None, .. }] => draft.block(*rule),
        leaves => draft.tree(leaves, UNKNOWN_FROM),
    }
    draft.finish()
}

/// Where a comparison leads.
#[derive(Debug, Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// A place that is known when all is written.
    Mark(usize),
}

/// A program whose jumps are not yet counted out.
#[derive(Debug, Default)]
struct Draft {
    steps: Vec<(u16, u32, To, To)>,
    /// Mark to place.
    marks: Vec<usize>,
    /// Answer to mark.
    answers: BTreeMap<u32, usize>,
    /// Rules that look at an argument, to be written behind the tree.
    blocks: Vec<(usize, Rule)>,
}

impl Draft {
    fn load(&mut self, offset: u32) {
        self.steps.push((LOAD, offset, To::Next, To::Next));
    }

    fn branch(&mut self, code: u16, value: u32, yes: To, no: To) {
        self.steps.push((code, value, yes, no));
    }

    fn mark(&mut self) -> usize {
        self.marks.push(0);
        self.marks.len() - 1
    }

    fn here(&mut self, mark: usize) {
        self.marks[mark] = self.steps.len();
    }

    fn answer(&mut self, answer: u32) -> To {
        if let Some(mark) = self.answers.get(&answer) {
            return To::Mark(*mark);
        }
        let mark = self.mark();
        self.answers.insert(answer, mark);
        To::Mark(mark)
    }

    fn rule(&mut self, rule: Rule) -> To {
        match rule {
            Rule::Allow => self.answer(ALLOW),
            Rule::Refuse(errno) => self.answer(ERRNO | errno),
            _ => {
                let mark = self.mark();
                self.blocks.push((mark, rule));
                To::Mark(mark)
            }
        }
    }

    /// A binary search among several that reach up to `end`, below the middle of which it goes on here; or a look for the one number.
    fn tree(&mut self, leaves: &[Leaf], end: u32) {
        if let [Leaf { rule, but, .. }] = leaves {
            let rest = self.rule(*rule);
            if let Some((number, other)) = but {
                let other = self.rule(*other);
                self.branch(IF_EQUAL, *number, other, rest);
            }
            return;
        }
        let (left, right) = leaves.split_at(middle(leaves, end));
        let low = self.answer_of(left).unwrap_or(To::Next);
        let inner = self.mark();
        let high = self.answer_of(right).unwrap_or(To::Mark(inner));
        self.branch(IF_AT_LEAST, right[0].from, high, low);
        self.tree(left, right[0].from);
        self.here(inner);
        self.tree(right, end);
    }

    /// Where there is nothing more to compare.
    fn answer_of(&mut self, leaves: &[Leaf]) -> Option<To> {
        match leaves {
            [Leaf { rule, but: None, .. }] => Some(self.rule(*rule)),
            _ => None,
        }
    }

    fn block(&mut self, rule: Rule) {
        let (allow, refuse) = (self.answer(ALLOW), self.answer(ERRNO | libc::EPERM as u32));
        self.load(FIRST_ARGUMENT);
        match rule {
            Rule::Allow => self.branch(IF_AT_LEAST, 0, allow, allow),
            Rule::Refuse(errno) => {
                let refuse = self.answer(ERRNO | errno);
                self.branch(IF_AT_LEAST, 0, refuse, refuse);
            }
            Rule::Without(bits) => self.branch(IF_ANY_BIT, bits, refuse, allow),
            Rule::NoneOf(values) => {
                for value in values {
                    self.branch(IF_EQUAL, *value, refuse, To::Next);
                }
                self.branch(IF_AT_LEAST, 0, allow, allow);
            }
            Rule::OneOf(values) => {
                for value in values {
                    self.branch(IF_EQUAL, *value, allow, To::Next);
                }
                self.branch(IF_AT_LEAST, 0, refuse, refuse);
            }
        }
    }

    /// Jumps of one byte where that is enough, as it is for the default.
    fn finish(mut self) -> Vec<Instruction> {
        for (mark, rule) in std::mem::take(&mut self.blocks) {
            self.here(mark);
            self.block(rule);
        }
        for (answer, mark) in std::mem::take(&mut self.answers) {
            self.here(mark);
            self.steps.push((RETURN, answer, To::Next, To::Next));
        }
        self.short().unwrap_or_else(|| self.long())
    }

    fn short(&self) -> Option<Vec<Instruction>> {
        let jump = |from: usize, to: To| match to {
            To::Next => Some(0),
            To::Mark(mark) => u8::try_from(self.marks[mark] - from - 1).ok(),
        };
        let step = |(at, (code, value, yes, no)): (usize, &(u16, u32, To, To))| {
            Some(Instruction { code: *code, if_true: jump(at, *yes)?, if_false: jump(at, *no)?, value: *value })
        };
        self.steps.iter().enumerate().map(step).collect()
    }

    /// Each comparison followed by two jumps of any length.
    fn long(&self) -> Vec<Instruction> {
        let is_plain = |code: u16| code == LOAD || code == RETURN;
        let mut starts = Vec::with_capacity(self.steps.len());
        let mut length = 0;
        for (code, ..) in &self.steps {
            starts.push(length);
            length += if is_plain(*code) { 1 } else { 3 };
        }
        let mut all = Vec::with_capacity(length);
        for (at, (code, value, yes, no)) in self.steps.iter().enumerate() {
            let plain = is_plain(*code);
            all.push(Instruction { code: *code, if_true: 0, if_false: u8::from(!plain), value: *value });
            for (place, to) in [yes, no].into_iter().enumerate().take(if plain { 0 } else { 2 }) {
                let target = match to {
                    To::Next => starts[at + 1],
                    To::Mark(mark) => starts[self.marks[*mark]],
                };
                let far = (target - (starts[at] + place + 2)) as u32;
                all.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value: far });
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interpreter of the filter machine that knows nothing of how the program was made.
    fn run(program: &[Instruction], arch: u32, nr: u32, first: u32) -> u32 {
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let i = program[at];
            at += 1;
            let branch = |yes: bool| usize::from(if yes { i.if_true } else { i.if_false });
            match i.code {
                0x20 => {
                    accumulator = match i.value {
                        0 => nr,
                        4 => arch,
                        16 => first,
                        20 => 0,
                        offset => panic!("loads offset {offset}"),
                    }
                }
                0x54 => accumulator &= i.value,
                0x25 => at += branch(accumulator > i.value),
                0x05 => at += i.value as usize,
                0x15 => at += branch(accumulator == i.value),
                0x35 => at += branch(accumulator >= i.value),
                0x45 => at += branch(accumulator & i.value != 0),
                0x06 => return i.value,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    fn expected(nr: u32, first: u32) -> u32 {
        let refuse = |errno: i32| 0x0005_0000 | errno as u32;
        let yes = |b: bool| if b { 0x7fff_0000 } else { refuse(libc::EPERM) };
        let number = libc::c_long::from(nr);
        match number {
            libc::SYS_clone => yes(first & 0x7e02_0080 == 0),
            libc::SYS_clone3 => refuse(libc::ENOSYS),
            libc::SYS_socket => yes(first != 38 && first != 40),
            libc::SYS_personality => yes([0, 8, 0x20000, 0x20008, 0xffff_ffff].contains(&first)),
            _ if list::COMMON.iter().chain(list::LEGACY).any(|(_, nr)| *nr == number) => yes(true),
            _ if UNNAMED.iter().any(|(_, known)| *known == nr) => yes(true),
            480..0x4000_0000 => refuse(libc::ENOSYS),
            _ => refuse(libc::EPERM),
        }
    }

    #[test]
    fn every_number_gets_what_the_list_says() {
        let program = filter(&[], &[]);
        let firsts = [0, 1, 2, 8, 16, 40, 41, 0x11, 0x80, 0x1_0000, 0x2_0000, 0x1000_0000, 0x2_0008, 0xffff_ffff];
        for nr in (0..2048).chain([0x3fff_ffff, 0x4000_0000, 0x4000_003b, 0xffff_ffff]) {
            for first in firsts {
                assert_eq!(run(&program, THIS_ARCH, nr, first), expected(nr, first), "call {nr} with {first:#x}");
            }
        }
    }

    #[test]
    fn what_is_denied_is_refused_and_nothing_else_changes() {
        let every_second: Vec<u32> = allowed().map(|(_, nr)| nr).step_by(2).collect();
        for denied in [vec![libc::SYS_ptrace as u32, libc::SYS_socket as u32], every_second] {
            let (program, default) = (filter(&denied, &[]), filter(&[], &[]));
            for nr in 0..600 {
                let expected =
                    if denied.contains(&nr) { ERRNO | libc::EPERM as u32 } else { run(&default, THIS_ARCH, nr, 0) };
                assert_eq!(run(&program, THIS_ARCH, nr, 0), expected, "call {nr}");
            }
            assert_eq!(run(&program, 0x4000_0003, 0, 0), KILL);
        }
    }

    /// The same rules, compiled by a crate that shares no code with this one.
    fn by_seccompiler() -> Vec<Instruction> {
        use seccompiler::{
            BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        };
        let when = |how, value: u32| {
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, how, value.into()).expect("a condition")
        };
        let rule = |conditions| SeccompRule::new(conditions).expect("a rule");
        let of = |rule_here: Rule| match rule_here {
            Rule::Allow | Rule::Refuse(_) => Vec::new(),
            Rule::Without(bits) => vec![rule(vec![when(SeccompCmpOp::MaskedEq(bits.into()), 0)])],
            Rule::NoneOf(values) => vec![rule(values.iter().map(|v| when(SeccompCmpOp::Ne, *v)).collect())],
            Rule::OneOf(values) => values.iter().map(|v| rule(vec![when(SeccompCmpOp::Eq, *v)])).collect(),
        };
        let rules = default_rules().into_iter().filter(|(_, rule)| !matches!(rule, Rule::Refuse(_)));
        let rules = rules.map(|(nr, rule)| (i64::from(nr), of(rule))).collect();
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let arch = std::env::consts::ARCH.try_into().expect("an architecture it knows");
        let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).expect("a filter");
        let program: BpfProgram = filter.try_into().expect("a program");
        let same =
            |i: seccompiler::sock_filter| Instruction { code: i.code, if_true: i.jt, if_false: i.jf, value: i.k };
        program.into_iter().map(same).collect()
    }

    #[test]
    fn another_compiler_makes_the_same_of_the_rules() {
        let (ours, theirs) = (filter(&[], &[]), by_seccompiler());
        let firsts = [0, 1, 2, 8, 16, 37, 38, 39, 40, 41, 0x11, 0x80, 0x1000_0000, 0x2_0000, 0x2_0008, 0xffff_ffff];
        for nr in (0..UNKNOWN_FROM).filter(|nr| *nr != libc::SYS_clone3 as u32) {
            for first in firsts {
                let (own, other) = (run(&ours, THIS_ARCH, nr, first), run(&theirs, THIS_ARCH, nr, first));
                assert_eq!(own, other, "call {nr} with {first:#x}");
            }
        }
        assert_eq!(run(&theirs, 0x4000_0003, 0, 0), run(&ours, 0x4000_0003, 0, 0));
        assert!(theirs.len() > 3 * ours.len(), "{} and {} instructions", theirs.len(), ours.len());
    }

    /// Of the names in default.json (moby/profiles cd3bed8, June 2026) whose rules hold for amd64 and the default capabilities, ask for no argument, and
    /// have a number on x86-64; with clone, socket and personality, sorted, one a line. Whoever brings the list up to date changes this, and the
    /// differences at the top of this file.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_names_are_dockers() {
        use sha2::{Digest, Sha256};
        let mut names: Vec<&str> = allowed().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let digest: String = Sha256::digest(names.join("\n")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            (names.len(), digest.as_str()),
            (309, "d2a4be43e97c32bf8bd1613eaa99d6a59807cecb75a141d8db5658b96a1c5885")
        );
    }

    #[test]
    fn names_are_the_kernels() {
        assert!(allowed().any(|call| call == ("ptrace", libc::SYS_ptrace as u32)));
        assert!(
            allowed().all(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    #[test]
    fn another_architecture_is_killed() {
        assert_eq!(run(&filter(&[], &[]), 0x4000_0003, 0, 0), KILL);
    }

    #[test]
    fn what_escapes_use_is_refused() {
        let program = filter(&[], &[]);
        for nr in [
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_open_by_handle_at,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_pivot_root,
            libc::SYS_move_mount,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
        ] {
            assert_eq!(run(&program, THIS_ARCH, nr as u32, 0), ERRNO | libc::EPERM as u32, "call {nr}");
        }
    }

    #[test]
    fn the_tree_is_shallow() {
        assert!(filter(&[], &[]).len() < 80, "{} instructions", filter(&[], &[]).len());
    }
}
