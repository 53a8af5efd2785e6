//! Files, directories and devices that a container must not have, and old ways to them.

use core::ffi::CStr;

use crate::numbers as nr;
use crate::tools::{CREATE, HERE, NOTHING, READ, READ_WRITE, Try, WRITE, Words, ask, at, close, equal, open, read_some};

const PATH_ONLY: usize = 0o1000_0000;
const EXCLUSIVE: usize = 0o200;
const CHARACTER: usize = 0o2_0000;
const BLOCK: usize = 0o6_0000;

pub const TRIES: &[Try] = &[
    (c"read", |words| read_some(words.path(2))),
    (c"open", |words| open(words.path(2), READ)),
    (c"open_to_write", |words| open(words.path(2), WRITE)),
    (c"list", |words| list(words.path(2), |name| !equal(name, b".") && !equal(name, b".."))),
    (c"lookup", |words| open(words.path(2), PATH_ONLY)),
    (c"says", says),
    (c"write_word", write_word),
    (c"handle", handle),
    (c"leaked_descriptors", leaked_descriptors),
    (c"leaked_directory", leaked_directory),
    (c"out_of_chroot", out_of_chroot),
    (c"mknod_character", |words| node(CHARACTER, words)),
    (c"mknod_block", |words| node(BLOCK, words)),
    (c"chown_outside", chown_outside),
    (c"is_there", |words| if open(words.path(2), PATH_ONLY) < 0 { 0 } else { NOTHING }),
];

/// Asks for entries of a directory until one is `wanted`.
pub fn list(path: usize, wanted: fn(&[u8]) -> bool) -> isize {
    let dir = open(path, READ);
    if dir < 0 {
        return dir;
    }
    let mut bytes = [0_u8; 4096];
    loop {
        let got = ask(nr::GETDENTS64, [dir as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]);
        if got <= 0 {
            close(dir);
            return if got == 0 { NOTHING } else { got };
        }
        if any_entry(bytes.get(..got as usize).unwrap_or(&[]), wanted) {
            close(dir);
            return 0;
        }
    }
}

/// `struct linux_dirent64`: 16 bytes of numbers, the length, a byte of kind, the name.
fn any_entry(mut entries: &[u8], wanted: fn(&[u8]) -> bool) -> bool {
    while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, _, name @ ..] = entries {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        if wanted(name.get(..end).unwrap_or(&[])) {
            return true;
        }
        entries = entries.get(u16::from_ne_bytes([*low, *high]) as usize..).unwrap_or(&[]);
    }
    false
}

/// Whether the beginning of a file has a word in it.
fn says(words: &Words) -> isize {
    let file = open(words.path(2), READ);
    if file < 0 {
        return file;
    }
    let mut bytes = [0_u8; 8192];
    let got = ask(nr::READ, [file as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]);
    let (text, word) = (bytes.get(..got.max(0) as usize).unwrap_or(&[]), words.word(3).unwrap_or(b""));
    if text.windows(word.len().max(1)).any(|part| equal(part, word)) { 0 } else { NOTHING }
}

/// Writes the second word into the file named first.
fn write_word(words: &Words) -> isize {
    let fd = open(words.path(2), WRITE);
    if fd < 0 {
        return fd;
    }
    let text = words.word(3).unwrap_or(b"");
    ask(nr::WRITE, [fd as usize, text.as_ptr() as usize, text.len(), 0, 0, 0])
}

/// "Shocker": a file by its number on its file system, past every directory. Here one of a file system that the whole machine shares.
fn handle(words: &Words) -> isize {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        of_file: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, of_file: [0; 128] };
    let mut mount = 0_i32;
    let (path, to) = (words.path(2), &raw mut handle as usize);
    let named = ask(nr::NAME_TO_HANDLE_AT, [HERE, path, to, &raw mut mount as usize, 0, 0]);
    if named < 0 {
        return named;
    }
    let dir = open(path, READ);
    if dir < 0 { dir } else { ask(nr::OPEN_BY_HANDLE_AT, [dir as usize, to, READ, 0, 0, 0]) }
}

/// Anything open beside the standard streams.
fn leaked_descriptors(_: &Words) -> isize {
    const GET_FLAGS: usize = 1;
    for fd in 3..1024 {
        if ask(nr::FCNTL, [fd, GET_FLAGS, 0, 0, 0, 0]) >= 0 {
            return 0;
        }
    }
    NOTHING
}

/// A working directory that is not below the root: the kernel says so.
fn leaked_directory(_: &Words) -> isize {
    let mut path = [0_u8; 4096];
    let length = ask(nr::GETCWD, [path.as_mut_ptr() as usize, path.len(), 0, 0, 0, 0]);
    if length < 0 {
        return length;
    }
    if path[0] == b'/' { NOTHING } else { 0 }
}

/// The oldest way: a root further down, while the working directory stays above it. The word is a file outside.
fn out_of_chroot(words: &Words) -> isize {
    ask(nr::MKDIRAT, [HERE, at(c"/below"), 0o700, 0, 0, 0]);
    let moved = ask(nr::CHROOT, [at(c"/below"), 0, 0, 0, 0, 0]);
    if moved < 0 {
        return moved;
    }
    for _ in 0..64 {
        ask(nr::CHDIR, [at(c".."), 0, 0, 0, 0, 0]);
    }
    ask(nr::CHROOT, [at(c"."), 0, 0, 0, 0, 0]);
    open(words.path(2), PATH_ONLY)
}

/// Makes a device of two numbers and opens it.
fn node(kind: usize, words: &Words) -> isize {
    const NODE: &CStr = c"/escape-node";
    let number = words.number(2) << 8 | words.number(3);
    let made = ask(nr::MKNODAT, [HERE, at(NODE), kind | 0o600, number, 0, 0]);
    if made < 0 {
        return made;
    }
    open(at(NODE), READ)
}

/// To an id beyond the container's range.
fn chown_outside(_: &Words) -> isize {
    let file = open(at(c"/escape-file"), READ_WRITE | CREATE | EXCLUSIVE);
    if file < 0 {
        return file;
    }
    close(file);
    ask(nr::FCHOWNAT, [HERE, at(c"/escape-file"), 70_000, 70_000, 0, 0])
}
