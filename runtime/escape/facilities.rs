//! Parts of the kernel that a container has no business with.

use crate::numbers as nr;
#[cfg(not(target_arch = "x86_64"))]
use crate::tools::NOTHING;
use crate::tools::{HERE, READ, Try, Words, ask, at, considered, open};

const NEW_USER: usize = 0x1000_0000;
const ENOENT: isize = 2;
const EBADF: isize = 9;
const ENODEV: isize = 19;
const EINVAL: isize = 22;
const EAFNOSUPPORT: isize = 97;
const ENOKEY: isize = 126;

pub const TRIES: &[Try] = &[
    (c"keyctl", |_| ask(nr::KEYCTL, [1, 0, 0, 0, 0, 0])),
    (c"add_key", |_| ask(nr::ADD_KEY, [at(c"user"), at(c"escape"), at(c"x"), 1, -2_isize as usize, 0])),
    (c"request_key", |_| {
        considered(ask(nr::REQUEST_KEY, [at(c"user"), at(c"no-such-key"), 0, -2_isize as usize, 0, 0]), ENOKEY)
    }),
    (c"bpf", bpf),
    (c"userfaultfd", |_| ask(nr::USERFAULTFD, [1, 0, 0, 0, 0, 0])),
    (c"perf_event", perf_event),
    (c"io_uring", |_| {
        let parameters = [0_u64; 15];
        ask(nr::IO_URING_SETUP, [1, &raw const parameters as usize, 0, 0, 0, 0])
    }),
    (c"unshare_user", |_| ask(nr::UNSHARE, [NEW_USER, 0, 0, 0, 0, 0])),
    (c"clone_user", |_| child(ask(nr::CLONE, [NEW_USER | 17, 0, 0, 0, 0, 0]))),
    (c"clone3_user", |_| {
        let arguments = [NEW_USER, 0, 0, 0, 17, 0, 0, 0];
        child(ask(nr::CLONE3, [&raw const arguments as usize, size_of_val(&arguments), 0, 0, 0, 0]))
    }),
    (c"setns", |_| {
        let own = open(at(c"/proc/self/ns/uts"), READ);
        if own < 0 { own } else { ask(nr::SETNS, [own as usize, 0, 0, 0, 0, 0]) }
    }),
    (c"mount_tmpfs", |_| ask(nr::MOUNT, [at(c"none"), at(c"/dev/shm"), at(c"tmpfs"), 0, 0, 0])),
    (c"mount_cgroup", |words| ask(nr::MOUNT, [at(c"none"), at(c"/dev/shm"), at(c"cgroup"), 0, words.path(2), 0])),
    (c"mount_binfmt", |_| considered(ask(nr::MOUNT, [at(c"none"), at(c"/dev/shm"), at(c"binfmt_misc"), 0, 0, 0]), ENODEV)),
    (c"mount_cgroup2", |_| ask(nr::MOUNT, [at(c"none"), at(c"/dev/shm"), at(c"cgroup2"), 0, 0, 0])),
    (c"unmount", |words| ask(nr::UMOUNT2, [words.path(2), 0, 0, 0, 0, 0])),
    (c"make_writable", make_writable),
    (c"fsopen", |_| ask(nr::FSOPEN, [at(c"tmpfs"), 0, 0, 0, 0, 0])),
    (c"open_tree", |_| ask(nr::OPEN_TREE, [HERE, at(c"/"), 1, 0, 0, 0])),
    (c"move_mount", |words| ask(nr::MOVE_MOUNT, [HERE, words.path(2), HERE, at(c"/dev/shm"), 0, 0])),
    (c"pivot_root", |_| considered(ask(nr::PIVOT_ROOT, [at(c"/"), at(c"/"), 0, 0, 0, 0]), EINVAL)),
    // Without segments: unloads a kernel that nobody has loaded.
    (c"kexec", |_| ask(nr::KEXEC_LOAD, [0; 6])),
    (c"load_module", |_| considered(ask(nr::FINIT_MODULE, [usize::MAX, at(c""), 0, 0, 0, 0]), EBADF)),
    (c"unload_module", |_| considered(ask(nr::DELETE_MODULE, [at(c"no_such_module"), 0o4000, 0, 0, 0, 0]), ENOENT)),
    // Ctrl-Alt-Del is to send a signal to the first process: a namespace of processes, asked by who may ask, has no such thing.
    (c"reboot", |_| considered(ask(nr::REBOOT, [0xfee1_dead, 672_274_793, 0, 0, 0, 0]), EINVAL)),
    (c"swapon", |_| considered(ask(nr::SWAPON, [at(c"/no-such-file"), 0, 0, 0, 0, 0]), ENOENT)),
    (c"set_clock", set_clock),
    (c"sethostname", |_| ask(nr::SETHOSTNAME, [at(c"escaped"), 7, 0, 0, 0, 0])),
    (c"accounting", |_| ask(nr::ACCT, [0; 6])),
    (c"kernel_log", |_| ask(nr::SYSLOG, [10, 0, 0, 0, 0, 0])),
    (c"vhangup", |_| ask(nr::VHANGUP, [0; 6])),
    (c"kcmp", |_| {
        let own = ask(nr::GETPID, [0; 6]) as usize;
        ask(nr::KCMP, [own, own, 0, 1, 2, 0])
    }),
    (c"steal_descriptor", |words| {
        let of = ask(nr::PIDFD_OPEN, [words.number(2), 0, 0, 0, 0, 0]);
        if of < 0 { of } else { ask(nr::PIDFD_GETFD, [of as usize, words.number(3), 0, 0, 0, 0]) }
    }),
    (c"fanotify", |_| ask(nr::FANOTIFY_INIT, [0x200, 0, 0, 0, 0, 0])),
    (c"personality", |_| ask(nr::PERSONALITY, [0x40_0000, 0, 0, 0, 0, 0])),
    (c"vsock", |_| considered(ask(nr::SOCKET, [40, 1, 0, 0, 0, 0]), EAFNOSUPPORT)),
    (c"kernel_cryptography", |_| considered(ask(nr::SOCKET, [38, 5, 0, 0, 0, 0]), EAFNOSUPPORT)),
    (c"ports", ports),
    (c"other_architecture", other_architecture),
    (c"other_numbers", other_numbers),
];

fn child(pid: isize) -> isize {
    if pid == 0 {
        crate::exit(0);
    }
    pid
}

/// A map, the least that can be asked for.
fn bpf(_: &Words) -> isize {
    const ARRAY: u32 = 2;
    let mut attributes = [0_u32; 18];
    attributes[..4].copy_from_slice(&[ARRAY, 4, 4, 1]);
    ask(nr::BPF, [0, &raw const attributes as usize, size_of_val(&attributes), 0, 0, 0])
}

/// The clock of this very process, user mode only: what an ordinary user may have.
fn perf_event(_: &Words) -> isize {
    const SOFTWARE: u64 = 1;
    const TASK_CLOCK: u64 = 1;
    const USER_ONLY: u64 = 1 << 5 | 1 << 6;
    let attributes = [SOFTWARE | 112 << 32, TASK_CLOCK, 0, 0, 0, USER_ONLY, 0, 0, 0, 0, 0, 0, 0, 0];
    let (any, none) = (-1_isize as usize, -1_isize as usize);
    ask(nr::PERF_EVENT_OPEN, [&raw const attributes as usize, 0, any, none, 0, 0])
}

/// `struct mount_attr`: clear "read-only".
fn make_writable(words: &Words) -> isize {
    let attributes = [0_u64, 1, 0, 0];
    ask(nr::MOUNT_SETATTR, [HERE, words.path(2), 0, &raw const attributes as usize, size_of_val(&attributes), 0])
}

/// Sets the length of a tick to what it is.
fn set_clock(_: &Words) -> isize {
    const TICK: u64 = 0x4000;
    let mut timex = [0_u64; 26];
    let read = ask(nr::ADJTIMEX, [&raw mut timex as usize, 0, 0, 0, 0, 0]);
    if read < 0 {
        return read;
    }
    timex[0] = TICK;
    ask(nr::ADJTIMEX, [&raw mut timex as usize, 0, 0, 0, 0, 0])
}

#[cfg(target_arch = "x86_64")]
fn ports(_: &Words) -> isize {
    const IOPL: usize = 172;
    ask(IOPL, [3, 0, 0, 0, 0, 0])
}

/// getpid as a 32-bit program asks for it: a filter that knows one table of numbers only would let calls of another pass.
#[cfg(target_arch = "x86_64")]
fn other_architecture(_: &Words) -> isize {
    let answer: isize;
    // SAFETY: the kernel keeps all registers but rax and r8 to r11.
    unsafe {
        core::arch::asm!("int 0x80", inlateout("rax") 20_isize => answer, out("r8") _, out("r9") _, out("r10") _,
                         out("r11") _, options(nostack));
    }
    answer
}

/// getpid by its x32 number.
#[cfg(target_arch = "x86_64")]
fn other_numbers(_: &Words) -> isize {
    const ENOSYS: isize = 38;
    considered(ask(0x4000_0000 | nr::GETPID, [0; 6]), ENOSYS)
}

#[cfg(not(target_arch = "x86_64"))]
fn ports(_: &Words) -> isize {
    NOTHING
}

#[cfg(not(target_arch = "x86_64"))]
fn other_architecture(_: &Words) -> isize {
    NOTHING
}

#[cfg(not(target_arch = "x86_64"))]
fn other_numbers(_: &Words) -> isize {
    NOTHING
}
