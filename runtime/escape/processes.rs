//! Other processes, and more than one's share as a process.

use crate::numbers as nr;
use crate::tools::{NOTHING, READ, Try, WRITE, Words, ask, at, considered, open};

const EFAULT: isize = 14;

pub const TRIES: &[Try] = &[
    (c"kill", |words| ask(nr::KILL, [words.number(2), words.number(3), 0, 0, 0, 0])),
    (c"pidfd", |words| ask(nr::PIDFD_OPEN, [words.number(2), 0, 0, 0, 0, 0])),
    (c"trace", trace),
    (c"read_memory", read_memory),
    (c"see_processes", |_| crate::paths::list(at(c"/proc"), is_foreign)),
    (c"nice", |_| ask(nr::SETPRIORITY, [0, 0, -20_isize as usize, 0, 0, 0])),
    (c"realtime", |_| {
        let priority = 1_i32;
        ask(nr::SCHED_SETSCHEDULER, [0, 1, &raw const priority as usize, 0, 0, 0])
    }),
    (c"more_files", |words| {
        let both = [words.number(2), words.number(2)];
        ask(nr::PRLIMIT64, [0, 7, &raw const both as usize, 0, 0, 0])
    }),
    (c"oom_score", oom_score),
    (c"setuid_outside", |_| ask(nr::SETRESUID, [70_000, 70_000, 70_000, 0, 0, 0])),
    (c"all_capabilities", all_capabilities),
    (c"ambient_capability", ambient_capability),
    (c"setuid_program", setuid_program),
    (c"overwrite_executable", overwrite_executable),
    (c"am_i_root", |_| if ask(nr::GETEUID, [0; 6]) == 0 { 0 } else { NOTHING }),
];

/// Seizes, which does not stop it; the kernel lets go when this program ends.
fn trace(words: &Words) -> isize {
    const SEIZE: usize = 0x4206;
    ask(nr::PTRACE, [SEIZE, words.number(2), 0, 0, 0, 0])
}

/// One byte of its program.
fn read_memory(words: &Words) -> isize {
    let mut byte = 0_u8;
    let local = [&raw mut byte as usize, 1];
    let remote = [0x40_0000_usize, 1];
    let (from, to) = (&raw const remote as usize, &raw const local as usize);
    considered(ask(nr::PROCESS_VM_READV, [words.number(2), to, 1, from, 1, 0]), EFAULT)
}

/// Neither the init nor this program: of a container's own there are no more when this runs as its only program.
fn is_foreign(name: &[u8]) -> bool {
    let pid = crate::decimal(name);
    name.iter().all(u8::is_ascii_digit) && pid != 1 && pid as isize != ask(nr::GETPID, [0; 6])
}

fn oom_score(_: &Words) -> isize {
    let file = open(at(c"/proc/self/oom_score_adj"), WRITE);
    if file < 0 { file } else { ask(nr::WRITE, [file as usize, at(c"-1000"), 5, 0, 0, 0]) }
}

fn all_capabilities(_: &Words) -> isize {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let sets = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
    ask(nr::CAPSET, [&raw const header as usize, &raw const sets as usize, 0, 0, 0, 0])
}

/// Executes a program that belongs to root and would run as root; it tells whether it does.
/// CAP_SYS_ADMIN for every program that is executed: it must be permitted and inheritable, and the second is asked for first.
fn ambient_capability(_: &Words) -> isize {
    const VERSION_3: u32 = 0x2008_0522;
    const ADMIN: usize = 21;
    let header = [VERSION_3, 0];
    let mut sets = [0_u32; 6];
    let header = &raw const header as usize;
    let got = ask(nr::CAPGET, [header, &raw mut sets as usize, 0, 0, 0, 0]);
    if got < 0 {
        return got;
    }
    sets[2] |= 1 << ADMIN;
    // Refused where it is not to be had; then so is what follows.
    ask(nr::CAPSET, [header, &raw const sets as usize, 0, 0, 0, 0]);
    ask(nr::PRCTL, [47, 2, ADMIN, 0, 0, 0])
}

/// Waits for a third process whose executable can be read, and asks to write to that (CVE-2019-5736). While it runs it cannot be written; that is told
/// only to whoever may.
fn overwrite_executable(_: &Words) -> isize {
    const ETXTBSY: isize = 26;
    const DIGIT: usize = 6;
    let mut path = *b"/proc/3/exe\0";
    ask(nr::WRITE, [1, at(c"here\n"), 5, 0, 0, 0]);
    loop {
        let readable = open(path.as_ptr() as usize, READ);
        if readable >= 0 {
            return considered(open(at(c"/proc/self/fd/3"), WRITE), ETXTBSY);
        }
        path[DIGIT] = if path[DIGIT] == b'9' { b'3' } else { path[DIGIT] + 1 };
    }
}

fn setuid_program(words: &Words) -> isize {
    let args = [words.path(2), at(c"am_i_root"), 0];
    let none = [0_usize];
    ask(nr::EXECVE, [words.path(2), &raw const args as usize, &raw const none as usize, 0, 0, 0])
}
