// What a program without any library needs: entry, system calls, the memory functions the compiler calls.
// Included by the init and by the payload of the tests; each uses a part of it.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call entry",
    "ud2"
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x0, sp",
    "bl entry",
    "brk #1"
);

#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const MMAP: usize = 9;
    pub const PWRITE64: usize = 18;
    pub const KILL: usize = 62;
    pub const WAIT4: usize = 61;
    pub const CLONE: usize = 56;
    pub const FTRUNCATE: usize = 77;
    pub const PRCTL: usize = 157;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const PPOLL: usize = 271;
    pub const SIGNALFD4: usize = 289;
    pub const NANOSLEEP: usize = 35;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const ACCEPT: usize = 43;
    pub const OPENAT: usize = 257;
    pub const DUP3: usize = 292;
}
#[cfg(target_arch = "aarch64")]
#[allow(dead_code)]
mod nr {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const MMAP: usize = 222;
    pub const PWRITE64: usize = 68;
    pub const KILL: usize = 129;
    pub const WAIT4: usize = 260;
    pub const CLONE: usize = 220;
    pub const FTRUNCATE: usize = 46;
    pub const PRCTL: usize = 167;
    pub const CLOCK_GETTIME: usize = 113;
    pub const EXIT_GROUP: usize = 94;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const NANOSLEEP: usize = 101;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const ACCEPT: usize = 202;
    pub const OPENAT: usize = 56;
    pub const DUP3: usize = 24;
}

/// One system call; a negative result is minus the error number.
///
/// # Safety
/// Pointers among the arguments must be valid for what the call does with them.
#[allow(dead_code)]
unsafe fn syscall(nr: usize, args: [usize; 6]) -> isize {
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
        asm!("svc 0", in("x8") nr, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}

#[allow(dead_code)]
fn call(nr: usize, a: usize, b: usize, c: usize) -> isize {
    // SAFETY: every caller passes numbers or pointers to statics and locals that outlive the call.
    unsafe { syscall(nr, [a, b, c, 0, 0, 0]) }
}

fn exit(code: usize) -> ! {
    loop {
        call(nr::EXIT_GROUP, code, 0, 0);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(250)
}

/// Named by the precompiled core; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// # Safety
/// As strlen in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller's text ends with a zero byte; volatile, or the compiler would make this a call to strlen.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

/// # Safety
/// As memcpy in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    let mut i = 0;
    while i < n {
        // SAFETY: inside the n bytes that the caller answers for; volatile, or the compiler would make this a call to memcpy.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
    to
}

/// # Safety
/// As memset in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    let mut i = 0;
    while i < n {
        // SAFETY: inside the n bytes that the caller answers for; volatile as above.
        unsafe { to.add(i).write_volatile(byte as u8) };
        i += 1;
    }
    to
}

/// The words after the program's name.
///
/// # Safety
/// `stack` is the stack pointer the kernel started this program with.
#[allow(dead_code)]
unsafe fn argument(stack: *const usize, number: usize) -> Option<&'static [u8]> {
    // SAFETY: the kernel puts argc, then argc pointers to C strings that stay for the program's life.
    unsafe {
        if number >= *stack {
            return None;
        }
        let text = *stack.add(1 + number) as *const u8;
        let mut length = 0;
        while *text.add(length) != 0 {
            length += 1;
        }
        Some(core::slice::from_raw_parts(text, length))
    }
}

#[allow(dead_code)]
fn decimal(text: &[u8]) -> usize {
    let mut value = 0_usize;
    for byte in text {
        value = value.wrapping_mul(10).wrapping_add((byte.wrapping_sub(b'0')) as usize);
    }
    value
}
