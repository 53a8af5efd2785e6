//! What a process may do, in all five capability sets, and which system calls it may make.

use super::super::child::call;
use crate::kernel::capability;
use crate::kernel::seccomp::Instruction;

/// Needs CAP_SETPCAP, which [`capabilities`] may take away.
pub fn bounding(mask: u64) -> isize {
    for number in 0..=capability::LAST {
        if mask >> number & 1 == 0 {
            let result = call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as usize, number as usize, 0, 0, 0, 0]);
            // A kernel that does not know the number has nothing to drop.
            if result < 0 && result != -(libc::EINVAL as isize) {
                return result;
            }
        }
    }
    0
}

/// Ambient ones last: they must be permitted and inheritable.
pub fn capabilities(effective: u64, permitted: u64, inheritable: u64, ambient: u64) -> isize {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let sets = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    let set = call(libc::SYS_capset, [&raw const header as usize, &raw const sets as usize, 0, 0, 0, 0]);
    let ambience = libc::PR_CAP_AMBIENT as usize;
    let mut result = set.min(call(libc::SYS_prctl, [ambience, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0, 0]));
    for number in 0..=capability::LAST {
        if ambient >> number & 1 == 1 {
            let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
            result = result.min(call(libc::SYS_prctl, [ambience, raise, number as usize, 0, 0, 0]));
        }
    }
    result
}

/// A filter with the flags that it asks for.
pub fn filter(program: &[Instruction], flags: u64) -> isize {
    #[repr(C)]
    struct Program {
        length: u16,
        first: *const Instruction,
    }
    let program = Program { length: program.len() as u16, first: program.as_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
    call(libc::SYS_seccomp, [mode, flags as usize, &raw const program as usize, 0, 0, 0])
}
