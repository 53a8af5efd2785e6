//! The `linux.seccomp` section as a filter program: a binary search over the call's number, then that call's conditions.
//!
//! Of several rules for one call those with conditions are asked first, in their order, then the first one without. Calls that this architecture does not
//! have are left out. What the filter's author cannot have known (numbers above all that are named) is answered with ENOSYS where the default is an
//! error, so that libraries fall back to what they did before. Calls by other tables of numbers (32 bit, x32): ENOSYS where the section names their
//! architecture, else the process is killed; both keep a program from going round the rules.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::OciError;
use crate::kernel::assembler::{Assembler, Comparison, Mark};
use crate::kernel::seccomp::{Instruction, THIS_ARCH};
use crate::kernel::syscalls::Syscalls;

/// A program and how it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The program.
    pub program: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
}

const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;
const NR: u32 = 0;
const ARCH: u32 = 4;
const X32_FROM: u32 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const OTHER_TABLES: [(u32, Arch); 1] = [(0x4000_0003, Arch::ScmpArchX86)];
#[cfg(target_arch = "aarch64")]
const OTHER_TABLES: [(u32, Arch); 1] = [(0x4000_0028, Arch::ScmpArchArm)];

/// What happens to one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdict {
    /// All conditions of one must hold.
    conditional: Vec<(Vec<Condition>, u32)>,
    /// Where none does; `None` is the default.
    otherwise: Option<u32>,
}

/// One comparison of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    argument: u32,
    operator: LinuxSeccompOperator,
    value: u64,
    second: u64,
}

/// Compiles the section, or says which member cannot be.
pub fn compile(section: &LinuxSeccomp) -> Result<Compiled, OciError> {
    refuse(section)?;
    let default = action(section.default_action(), section.default_errno_ret());
    let verdicts = verdicts(section)?;
    let mut assembler = Assembler::default();
    let native = assembler.mark();
    assembler.load(ARCH);
    assembler.branch(Comparison::Equal, THIS_ARCH, Some(native), None);
    for (audit, arch) in OTHER_TABLES {
        if names(section, arch) {
            let next = assembler.mark();
            assembler.branch(Comparison::Equal, audit, None, Some(next));
            assembler.answer(ENOSYS);
            assembler.place(next);
        }
    }
    assembler.answer(KILL_PROCESS);
    assembler.place(native);
    assembler.load(NR);
    if cfg!(target_arch = "x86_64") {
        let plain = assembler.mark();
        assembler.branch(Comparison::AtLeast, X32_FROM, None, Some(plain));
        assembler.answer(if names(section, Arch::ScmpArchX32) { ENOSYS } else { KILL_PROCESS });
        assembler.place(plain);
    }
    search(&mut assembler, &runs(&verdicts, default), default);
    let program = assembler.finish().ok_or_else(|| refused("syscalls", "more rules than the kernel's filters hold"))?;
    Ok(Compiled { program, flags: flags(section)? })
}

fn refused(member: &str, reason: impl Into<String>) -> OciError {
    OciError::refused(format!("linux.seccomp.{member}"), reason)
}

fn names(section: &LinuxSeccomp, arch: Arch) -> bool {
    section.architectures().iter().flatten().any(|named| *named == arch)
}

fn refuse(section: &LinuxSeccomp) -> Result<(), OciError> {
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    let rules = section.syscalls().iter().flatten();
    if notifies(section.default_action()) || rules.clone().any(|rule| notifies(rule.action())) {
        return Err(refused("syscalls", "this runtime does not hand system calls to a listener (SCMP_ACT_NOTIFY)"));
    }
    Ok(())
}

fn flags(section: &LinuxSeccomp) -> Result<u64, OciError> {
    section.flags().iter().flatten().try_fold(0, |all, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(all | libc::SECCOMP_FILTER_FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(all | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        // One thread loads it: there is nobody to synchronise.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(all),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
            Err(refused("flags", "this runtime does not hand system calls to a listener"))
        }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno.map(|errno| errno & 0xffff))
}

fn verdicts(section: &LinuxSeccomp) -> Result<BTreeMap<u32, Verdict>, OciError> {
    let syscalls = Syscalls::native();
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in section.syscalls().iter().flatten() {
        let answer = action(rule.action(), rule.errno_ret());
        let alternatives = alternatives(rule)?;
        for number in rule.names().iter().filter_map(|name| syscalls.number(name)) {
            let verdict = verdicts.entry(number).or_default();
            for conditions in &alternatives {
                match conditions.is_empty() {
                    true => verdict.otherwise = verdict.otherwise.or(Some(answer)),
                    false => verdict.conditional.push((conditions.clone(), answer)),
                }
            }
        }
    }
    Ok(verdicts)
}

/// All arguments must hold, unless one argument is named twice: then each comparison is a rule of its own.
fn alternatives(rule: &LinuxSyscall) -> Result<Vec<Vec<Condition>>, OciError> {
    let arguments: &[LinuxSeccompArg] = rule.args().as_deref().unwrap_or_default();
    let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let twice = (0..6).any(|index| conditions.iter().filter(|c| c.argument == index).count() > 1);
    Ok(if twice { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] })
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, OciError> {
    const ARGUMENTS: usize = 6;
    if arg.index() >= ARGUMENTS {
        return Err(refused("syscalls.args", format!("index {} is beyond a call's six arguments", arg.index())));
    }
    let second = arg.value_two().unwrap_or(0);
    Ok(Condition { argument: arg.index() as u32, operator: arg.op(), value: arg.value(), second })
}

/// Runs of numbers with one verdict, as (first number, verdict), the first at 0.
fn runs(verdicts: &BTreeMap<u32, Verdict>, default: u32) -> Vec<(u32, Verdict)> {
    let plain = |answer| Verdict { conditional: Vec::new(), otherwise: Some(answer) };
    let highest = verdicts.keys().next_back().copied().unwrap_or(0);
    let is_error = default & 0xffff_0000 == ERRNO && default != ENOSYS;
    let beyond = if is_error { plain(ENOSYS) } else { plain(default) };
    let mut runs: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=highest {
        let of = match verdicts.get(&number) {
            Some(verdict) if verdict.conditional.is_empty() => plain(verdict.otherwise.unwrap_or(default)),
            Some(verdict) => verdict.clone(),
            None => plain(default),
        };
        if runs.last().is_none_or(|(_, last)| *last != of) {
            runs.push((number, of));
        }
    }
    if runs.last().is_none_or(|(_, last)| *last != beyond) {
        runs.push((highest + 1, beyond));
    }
    runs
}

/// A binary search; each comparison either goes on below or leads to the upper half.
fn search(assembler: &mut Assembler, runs: &[(u32, Verdict)], default: u32) {
    if let [(_, verdict)] = runs {
        return judge(assembler, verdict, default);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let upper = assembler.mark();
    assembler.branch(Comparison::AtLeast, high[0].0, Some(upper), None);
    search(assembler, low, default);
    assembler.place(upper);
    search(assembler, high, default);
}

fn judge(assembler: &mut Assembler, verdict: &Verdict, default: u32) {
    for (conditions, answer) in &verdict.conditional {
        let next = assembler.mark();
        conditions.iter().for_each(|condition| test(assembler, *condition, next));
        assembler.answer(*answer);
        assembler.place(next);
    }
    assembler.answer(verdict.otherwise.unwrap_or(default));
}

/// Goes on when the condition holds, to `fails` when not. Arguments are of 64 bits, the machine loads 32.
fn test(assembler: &mut Assembler, condition: Condition, fails: Mark) {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpMaskedEq, ScmpCmpNe};
    let holds = assembler.mark();
    let word = Word { low: 16 + 8 * condition.argument, value: condition.value };
    match condition.operator {
        ScmpCmpEq => word.equal(assembler, u64::MAX, holds, fails),
        ScmpCmpNe => word.equal(assembler, u64::MAX, fails, holds),
        ScmpCmpMaskedEq => {
            Word { value: condition.second, ..word }.equal(assembler, condition.value, holds, fails);
        }
        ScmpCmpGt => word.order(assembler, Comparison::Greater, holds, fails),
        ScmpCmpLe => word.order(assembler, Comparison::Greater, fails, holds),
        ScmpCmpGe => word.order(assembler, Comparison::AtLeast, holds, fails),
        ScmpCmpLt => word.order(assembler, Comparison::AtLeast, fails, holds),
    }
    assembler.place(holds);
}

/// An argument and what it is compared with.
struct Word {
    low: u32,
    value: u64,
}

impl Word {
    fn high(&self) -> u32 {
        (self.value >> 32) as u32
    }

    fn equal(&self, assembler: &mut Assembler, mask: u64, yes: Mark, no: Mark) {
        assembler.load(self.low + 4);
        assembler.and((mask >> 32) as u32);
        assembler.branch(Comparison::Equal, self.high(), None, Some(no));
        assembler.load(self.low);
        assembler.and(mask as u32);
        assembler.branch(Comparison::Equal, self.value as u32, Some(yes), Some(no));
    }

    fn order(&self, assembler: &mut Assembler, how: Comparison, yes: Mark, no: Mark) {
        assembler.load(self.low + 4);
        assembler.branch(Comparison::Greater, self.high(), Some(yes), None);
        assembler.branch(Comparison::Equal, self.high(), None, Some(no));
        assembler.load(self.low);
        assembler.branch(how, self.value as u32, Some(yes), Some(no));
    }
}

#[cfg(test)]
mod tests;
