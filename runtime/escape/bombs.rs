//! Taking as much as there is. Those that hold say `full` and keep what they have, so that others can be looked at.

use crate::numbers as nr;
use crate::tools::{CREATE, HERE, READ_WRITE, Try, WRITE, Words, ask, at, close, fork, hold, open, tell};

pub const TRIES: &[Try] = &[
    (c"forks", forks),
    (c"memory", memory),
    (c"shared_memory", shared_memory),
    (c"disk", disk),
    (c"files", files),
    (c"log", log),
    (c"descriptors", |_| until_refused(|| open(at(c"/dev/null"), READ_WRITE))),
    (c"terminals", |_| until_refused(|| open(at(c"/dev/ptmx"), READ_WRITE))),
    (c"watchers", |_| until_refused(|| ask(nr::INOTIFY_INIT1, [0; 6]))),
    (c"timers", |_| {
        until_refused(|| {
            let mut timer = 0_i32;
            ask(nr::TIMER_CREATE, [1, 0, &raw mut timer as usize, 0, 0, 0])
        })
    }),
    (c"one_watcher", |_| ask(nr::INOTIFY_INIT1, [0; 6])),
    (c"one_terminal", |_| open(at(c"/dev/ptmx"), READ_WRITE)),
    (c"one_timer", |_| {
        let mut timer = 0_i32;
        ask(nr::TIMER_CREATE, [1, 0, &raw mut timer as usize, 0, 0, 0])
    }),
    (c"spin", |_| loop {}),
    (c"spin_for", spin_for),
];
const PIECE: usize = 64 << 10;

/// Says how many there were.
fn until_refused(take: fn() -> isize) -> isize {
    let mut taken = 0;
    while take() >= 0 {
        taken += 1;
    }
    tell(taken);
    hold(c"full\n")
}

/// Children that do the same, until the limit; then all that there are go on trying.
fn forks(_: &Words) -> isize {
    let mut said = false;
    loop {
        if fork() < 0 && !said {
            said = true;
            ask(nr::WRITE, [1, at(c"full\n"), 5, 0, 0, 0]);
        }
    }
}

fn memory(_: &Words) -> isize {
    loop {
        let piece = ask(nr::MMAP, [0, PIECE, 3, 0x22, usize::MAX, 0]);
        if piece < 0 {
            return piece;
        }
        touch(piece as usize);
    }
}

/// System V segments outlive who made them.
fn shared_memory(_: &Words) -> isize {
    loop {
        let segment = ask(nr::SHMGET, [0, PIECE, 0o1600, 0, 0, 0]);
        if segment < 0 {
            return segment;
        }
        let piece = ask(nr::SHMAT, [segment as usize, 0, 0, 0, 0, 0]);
        if piece < 0 {
            return piece;
        }
        touch(piece as usize);
    }
}

fn touch(piece: usize) {
    for page in (0..PIECE).step_by(4096) {
        // SAFETY: inside a mapping of PIECE bytes that was just made.
        unsafe { ((piece + page) as *mut u8).write_volatile(1) };
    }
}

/// One file in the directory that the word names.
fn disk(words: &Words) -> isize {
    let dir = open(words.path(2), 0);
    let file = ask(nr::OPENAT, [dir as usize, at(c"big"), CREATE | WRITE, 0o600, 0, 0]);
    if file < 0 {
        return file;
    }
    let text = [b'x'; 4096];
    let mut bytes = 0;
    loop {
        let written = ask(nr::WRITE, [file as usize, text.as_ptr() as usize, text.len(), 0, 0, 0]);
        if written < 0 {
            tell(bytes);
            return written;
        }
        bytes += written as usize;
    }
}

/// Empty ones.
fn files(_: &Words) -> isize {
    let mut name = *b"/f0000000\0";
    let mut number = 0_u32;
    loop {
        let (mut digit, mut rest) = (9, number);
        while digit > 2 {
            digit -= 1;
            name[digit] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let file = ask(nr::OPENAT, [HERE, name.as_ptr() as usize, CREATE | WRITE, 0o600, 0, 0]);
        if file < 0 {
            tell(number as usize);
            return file;
        }
        close(file);
        number += 1;
    }
}

/// As many KiB of lines as the word says.
fn log(words: &Words) -> isize {
    let mut line = [b'x'; 1024];
    line[1023] = b'\n';
    for _ in 0..words.number(2) {
        ask(nr::WRITE, [1, line.as_ptr() as usize, line.len(), 0, 0, 0]);
    }
    0
}

/// Counts to the word, in thousands.
fn spin_for(words: &Words) -> isize {
    let mut count = 0_usize;
    while count < words.number(2) * 1000 {
        // SAFETY: a local; volatile, or the compiler would do away with the work.
        count = unsafe { (&raw const count).read_volatile() } + 1;
    }
    0
}
