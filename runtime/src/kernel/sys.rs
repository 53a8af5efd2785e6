//! System calls without a library around them: for code that shares its memory with the launcher after clone, where neither allocation nor
//! `errno` (which lives in the launcher's thread) may be touched.

use std::arch::asm;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// In [`CloneArgs::flags`]: created in the group of [`CloneArgs::cgroup`].
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// One system call; a negative result is minus the error number.
///
/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[inline(always)]
pub unsafe fn raw(nr: libc::c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel keeps everything but rax, rcx and r11; the caller answers for the pointers.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel keeps everything but x0; the caller answers for the pointers.
    unsafe {
        asm!("svc 0", in("x8") nr as usize, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
             in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// Ends this process by a fault, which no filter keeps it from.
pub fn trap() -> ! {
    // SAFETY: never returns, and touches nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("brk #1", options(noreturn, nomem, nostack))
    }
}

/// `struct clone_args` of clone3.
#[repr(C)]
#[derive(Debug, Default)]
pub struct CloneArgs {
    /// CLONE_*.
    pub flags: u64,
    /// Where the kernel puts the pidfd.
    pub pidfd: u64,
    /// For CLONE_CHILD_CLEARTID: zeroed, and woken as a futex, when the child lets go of the memory.
    pub child_tid: u64,
    /// Unused here.
    pub parent_tid: u64,
    /// The parent's signal.
    pub exit_signal: u64,
    /// Lowest address of the child's stack.
    pub stack: u64,
    /// Its size.
    pub stack_size: u64,
    /// Unused here.
    pub tls: u64,
    /// Unused here.
    pub set_tid: u64,
    /// Unused here.
    pub set_tid_size: u64,
    /// For CLONE_INTO_CGROUP.
    pub cgroup: u64,
}

/// Creates a process with these CLONE_* flags, in a v2 group if one is given, that ends at once, and waits for that: a try.
pub fn clone_and_end(flags: u64, group: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork; the child only makes the system call below.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid == 0 {
        loop {
            // SAFETY: ends the child.
            unsafe { raw(libc::SYS_exit_group, [0; 6]) };
        }
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the pid is our own child; it may have been waited for already, where somebody waits for all.
    unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    Ok(())
}

/// With all signals of this thread blocked. What is cloned by `work` begins so: no handler of this process runs there, on a stack that has no room for it.
pub fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let before = block_signals(u64::MAX);
    let done = work();
    block_signals(before);
    done
}

/// Blocks these and no others; gives those that were blocked.
fn block_signals(set: u64) -> u64 {
    let mut before = 0_u64;
    let (set, told) = (&raw const set as usize, &raw mut before as usize);
    // SAFETY: both are of this frame, and of the length that is told.
    unsafe { raw(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, set, told, size_of::<u64>(), 0, 0]) };
    before
}

/// What a child on a stack of its own runs. It never returns.
pub type Body = unsafe extern "C" fn(usize) -> !;

/// clone3 with a stack of its own, on which `body(argument)` runs in the child.
///
/// # Safety
/// `args` must name a stack that nobody else uses until the child has executed a program or ended, and `body` must be fit to run beside this
/// thread in the same memory: raw system calls only, no allocation, no thread-local data.
#[inline(never)]
pub unsafe fn clone3_on_stack(args: &CloneArgs, body: Body, argument: usize) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: in the parent this is an ordinary system call; in the child rsp is the new stack's top and nothing of this frame is used.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(), in("r12") argument, in("r13") body,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above, with sp.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3 as usize,
            inlateout("x0") args as *const CloneArgs as isize => result, in("x1") size_of::<CloneArgs>(),
            in("x20") argument, in("x21") body,
        );
    }
    result
}

/// clone with a stack of its own, on which `body(argument)` runs in the child. The older call, which system call filters let through.
///
/// # Safety
/// As [`clone3_on_stack`]; `top` is the stack's upper end, a multiple of 16. `cleared` is what CLONE_CHILD_CLEARTID clears.
#[inline(never)]
pub unsafe fn clone_on_stack(flags: usize, top: usize, cleared: usize, body: Body, argument: usize) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: in the parent this is an ordinary system call; in the child rsp is `top` and nothing of this frame is used.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags, in("rsi") top, in("rdx") 0_usize, in("r10") cleared, in("r8") 0_usize,
            in("r12") argument, in("r13") body, lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above, with sp.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone as usize,
            inlateout("x0") flags as isize => result, in("x1") top, in("x2") 0_usize, in("x3") 0_usize, in("x4") cleared,
            in("x20") argument, in("x21") body,
        );
    }
    result
}
