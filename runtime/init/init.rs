//! Process 1 of every container. It is executed after the program it looks after was started (as process 2), and it
//! - reaps everything, and ends when process 2 has ended, which ends the rest;
//! - hands signals on to the program's process group, so that a program with default handlers ends at once on SIGTERM;
//! - owns the reading ends of the program's output, stamps each line, and writes it to two files in rotation;
//! - writes the exit record, after it has drained what the program wrote.
//!
//! Of a program that has ended before, alone and without a word, there is nothing to do but the last, which `launch/child.rs` does instead.
//!
//! So neither a line nor an exit code is lost when agent or launcher die. It has no library, no heap, two pages of state that is touched.
//! Descriptors, placed by the launcher: 3 and 4 standard output and error (not blocking), 5 and 6 the log files, 7 the record. It opens by
//! itself 9, the reading end of the busy mark: the runtime takes a copy of it to ask whether somebody holds the other end.
#![no_std]
#![no_main]

include!("bare.rs");

const OUTPUT: [usize; 2] = [3, 4];
const LOGS: [usize; 2] = [5, 6];
const RECORD: usize = 7;
/// The other side is `handle/containers.rs`.
const MARK: usize = 9;
/// Offsets in the record; the other side is `handle/record.rs`.
const RECORD_END: usize = 32;
const RECORD_LOG: usize = 48;
/// "End everything at once", from the runtime: a real-time signal, so that no program's own signal is taken.
const KILL_ALL: i32 = 40;
const SIGCHLD: i32 = 17;
const NO_CHILD: isize = -10;
const LINE: usize = 4096;
/// Stamp, stream and tag: 20 digits and ` stdout F `, with room.
const PREFIX: usize = 40;
/// The first line of each file: `#`, its number, a space, the bytes of lines in the files before it; the other side is `handle/log.rs`.
const HEADER: usize = 43;
const DIGITS: usize = 20;
/// So much is read of one stream, and so many signals are, before the other things are looked at again: whoever writes without end holds nothing up.
const READS: u32 = 1;
const SIGNALS: u32 = 64;
/// More than a pipe holds (1 MiB, mostly 64 KiB), in reads. Whoever writes beyond that after the program's end is somebody else.
const LAST_READS: u32 = 300;
/// A line without an end is written after this time in parts.
const PATIENCE_NS: usize = 200_000_000;

struct Line {
    bytes: [u8; LINE],
    used: usize,
    closed: bool,
}

struct State {
    lines: [Line; 2],
    chunk: [u8; 8192],
    text: [u8; PREFIX + LINE + 1],
    half_bytes: usize,
    /// Into the present file, its first line included.
    written: usize,
    /// Bytes of lines in the files before.
    start: u64,
    /// Rotations, then lost bytes, as they stand in the record.
    log: [u64; 2],
    status: Option<i32>,
}

const EMPTY: Line = Line { bytes: [0; LINE], used: 0, closed: false };
static mut STATE: State = State {
    lines: [EMPTY; 2],
    chunk: [0; 8192],
    text: [0; PREFIX + LINE + 1],
    half_bytes: 0,
    written: 0,
    start: 0,
    log: [0; 2],
    status: None,
};

#[unsafe(no_mangle)]
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: called once, by _start, on the only thread; nobody else touches STATE.
    let state = unsafe { &mut *(&raw mut STATE) };
    const PR_SET_DUMPABLE: usize = 4;
    call(nr::PRCTL, PR_SET_DUMPABLE, 0, 0);
    for fd in 0..3 {
        call(nr::CLOSE, fd, 0, 0);
    }
    hold_mark();
    // SAFETY: `stack` is what the kernel gave _start.
    state.half_bytes = decimal(unsafe { argument(stack, 1) }.unwrap_or(b"65536"));
    // The program has ended before this was executed, and whoever has executed this took its exit.
    // SAFETY: as above.
    state.status = unsafe { argument(stack, 2) }.map(|text| decimal(text) as i32);
    let all: u64 = !0;
    // SAFETY: the mask is 8 bytes on this stack.
    let signals = unsafe { syscall(nr::SIGNALFD4, [usize::MAX, &raw const all as usize, 8, 0o4000, 0, 0]) };
    if signals < 0 {
        exit(251);
    }
    run(state, signals as usize)
}

/// Whatever the program has put there meanwhile: it deceives about nobody but itself.
fn hold_mark() {
    const AT_FDCWD: usize = -100_isize as usize;
    const READ_ONLY_NONBLOCK_NOCTTY_CLOEXEC: usize = 0o2_004_400;
    let path = c"/dev/bellows/busy".as_ptr() as usize;
    // SAFETY: the path is a C string.
    let fd = unsafe { syscall(nr::OPENAT, [AT_FDCWD, path, READ_ONLY_NONBLOCK_NOCTTY_CLOEXEC, 0, 0, 0]) };
    if fd >= 0 {
        call(nr::DUP3, fd as usize, MARK, 0o2_000_000);
        call(nr::CLOSE, fd as usize, 0, 0);
    }
}

fn run(state: &mut State, signals: usize) -> ! {
    loop {
        let others = reap(state);
        if let Some(status) = state.status {
            finish(state, status, others);
        }
        wait(state, signals);
        forward(signals);
        for stream in 0..2 {
            drain(state, stream, READS);
        }
    }
}

/// Whether somebody is left.
fn reap(state: &mut State) -> bool {
    loop {
        let mut status = 0_i32;
        // SAFETY: status is a local the kernel writes to.
        let pid = unsafe { syscall(nr::WAIT4, [usize::MAX, &raw mut status as usize, 1, 0, 0, 0]) };
        if pid == 2 {
            state.status = Some(status);
        }
        if pid == NO_CHILD && state.status.is_none() {
            // The program was never there or somebody else took its exit: nothing to record, nothing to wait for.
            exit(252);
        }
        if pid <= 0 {
            return pid != NO_CHILD;
        }
    }
}

/// To end `others` before their output is drained the kernel looks at every process of the machine, so not when there are none. Whoever was sent in from
/// outside is nobody's child here, writes elsewhere, and ends with this process.
fn finish(state: &mut State, status: i32, others: bool) -> ! {
    if others {
        call(nr::KILL, usize::MAX, 9, 0);
    }
    for stream in 0..2 {
        drain(state, stream, LAST_READS);
        emit(state, stream, b'F');
    }
    let mut end = [0_u8; 16];
    end[..4].copy_from_slice(&1_u32.to_ne_bytes());
    end[4..8].copy_from_slice(&status.to_ne_bytes());
    end[8..].copy_from_slice(&now_ms().to_ne_bytes());
    record(&end, RECORD_END);
    exit(0)
}

#[repr(C)]
struct Poll {
    fd: i32,
    wanted: i16,
    seen: i16,
}

fn wait(state: &mut State, signals: usize) {
    let fd = |stream: usize, state: &State| if state.lines[stream].closed { -1 } else { OUTPUT[stream] as i32 };
    let mut polls = [
        Poll { fd: signals as i32, wanted: 1, seen: 0 },
        Poll { fd: fd(0, state), wanted: 1, seen: 0 },
        Poll { fd: fd(1, state), wanted: 1, seen: 0 },
    ];
    let patience = [0_usize, PATIENCE_NS];
    let unfinished = state.lines[0].used + state.lines[1].used > 0;
    let time = if unfinished { &raw const patience as usize } else { 0 };
    // SAFETY: polls and patience are locals.
    let ready = unsafe { syscall(nr::PPOLL, [&raw mut polls as usize, 3, time, 0, 8, 0]) };
    if ready == 0 {
        emit(state, 0, b'P');
        emit(state, 1, b'P');
    }
}

fn forward(signals: usize) {
    let mut info = [0_u32; 32];
    let mut left = SIGNALS;
    while left > 0 && call(nr::READ, signals, &raw mut info as usize, 128) == 128 {
        left -= 1;
        match info[0] as i32 {
            SIGCHLD => {}
            KILL_ALL => {
                call(nr::KILL, usize::MAX, 9, 0);
            }
            signal => hand_on(signal as usize),
        }
    }
}

/// To the program's group; to the program alone in the moment before it has a group.
fn hand_on(signal: usize) {
    if call(nr::KILL, -2_isize as usize, signal, 0) < 0 {
        call(nr::KILL, 2, signal, 0);
    }
}

fn drain(state: &mut State, stream: usize, reads: u32) {
    let mut left = reads;
    while left > 0 && !state.lines[stream].closed {
        left -= 1;
        let n = call(nr::READ, OUTPUT[stream], &raw mut state.chunk as usize, 8192);
        if n == 0 {
            state.lines[stream].closed = true;
            emit(state, stream, b'F');
        }
        if n <= 0 {
            return;
        }
        let mut at = 0;
        while at < n as usize && at < 8192 {
            take(state, stream, state.chunk[at]);
            at += 1;
        }
    }
}

fn take(state: &mut State, stream: usize, byte: u8) {
    let line = &mut state.lines[stream];
    if byte == b'\n' {
        let empty = line.used == 0;
        if empty {
            write_line(state, stream, b'F');
        } else {
            emit(state, stream, b'F');
        }
        return;
    }
    let used = line.used.min(LINE - 1);
    line.bytes[used] = byte;
    line.used = used + 1;
    if line.used == LINE {
        emit(state, stream, b'P');
    }
}

fn emit(state: &mut State, stream: usize, tag: u8) {
    if state.lines[stream].used > 0 {
        write_line(state, stream, tag);
        state.lines[stream].used = 0;
    }
}

fn write_line(state: &mut State, stream: usize, tag: u8) {
    let mut at = stamp(&mut state.text, now_ms());
    let name = if stream == 0 { *b" stdout   " } else { *b" stderr   " };
    for (i, byte) in name.iter().enumerate() {
        state.text[at + i] = if i == 8 { tag } else { *byte };
    }
    at += name.len();
    let used = state.lines[stream].used.min(LINE);
    state.text[at..at + used].copy_from_slice(&state.lines[stream].bytes[..used]);
    state.text[at + used] = b'\n';
    write_log(state, at + used + 1);
}

fn write_log(state: &mut State, length: usize) {
    if state.written > 0 && state.written + length > state.half_bytes {
        state.log[0] += 1;
        state.start += (state.written - HEADER) as u64;
        state.written = 0;
        call(nr::FTRUNCATE, LOGS[(state.log[0] % 2) as usize], 0, 0);
        save_log(state);
    }
    let fd = LOGS[(state.log[0] % 2) as usize];
    if state.written == 0 {
        let header = header(state.log[0], state.start);
        append(state, fd, &raw const header as usize, HEADER);
    }
    // A file that cannot even be begun takes nothing.
    if state.written == 0 || !append(state, fd, &raw const state.text as usize, length) {
        state.log[1] += length as u64;
        save_log(state);
    }
}

/// All or nothing: of a line that does not fit on the disk no part stays.
fn append(state: &mut State, fd: usize, from: usize, length: usize) -> bool {
    let n = call(nr::WRITE, fd, from, length);
    let whole = n == length as isize;
    if whole {
        state.written += length;
    } else if n > 0 {
        call(nr::FTRUNCATE, fd, state.written, 0);
    }
    whole
}

fn header(number: u64, start: u64) -> [u8; HEADER] {
    let mut bytes = [b' '; HEADER];
    bytes[0] = b'#';
    bytes[HEADER - 1] = b'\n';
    let numbers = [number, start];
    let mut which = 0;
    while which < 2 {
        let (mut value, mut at) = (numbers[which], (which + 1) * (DIGITS + 1));
        let mut left = DIGITS;
        while left > 0 {
            at -= 1;
            left -= 1;
            bytes[at.min(HEADER - 1)] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        which += 1;
    }
    bytes
}

fn save_log(state: &State) {
    let mut bytes = [0_u8; 16];
    bytes[..8].copy_from_slice(&state.log[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&state.log[1].to_ne_bytes());
    record(&bytes, RECORD_LOG);
}

fn record(bytes: &[u8; 16], offset: usize) {
    // SAFETY: the bytes outlive the call.
    unsafe { syscall(nr::PWRITE64, [RECORD, bytes.as_ptr() as usize, bytes.len(), offset, 0, 0]) };
}

fn stamp(to: &mut [u8], mut value: u64) -> usize {
    let mut digits = [0_u8; 20];
    let mut first = 20;
    while first > 0 {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    to[..20 - first].copy_from_slice(&digits[first..]);
    20 - first
}

fn now_ms() -> u64 {
    let mut time = [0_u64; 2];
    call(nr::CLOCK_GETTIME, 0, &raw mut time as usize, 0);
    time[0] * 1000 + time[1] / 1_000_000
}
