//! Tries to get out of a container, one way at a time: `escape NAME [WORD..]`.
//!
//! It exits with 0 when it got what it wanted, with the kernel's error number when it was refused, and with 200 when nothing refused it but there was
//! nothing to be had. What the kernel checks only after it has checked the permission counts as "got": a try shall not do the harm it could do.
//! The table of tries, what each must meet with and what stands against it is `tests/escape/`.
#![no_std]
#![no_main]

include!("../init/bare.rs");

mod bombs;
mod facilities;
mod network;
mod numbers;
mod packets;
mod paths;
mod processes;
mod tools;

use tools::Words;

#[unsafe(no_mangle)]
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    let words = Words(stack);
    let name = words.word(1).unwrap_or(b"");
    let all = [facilities::TRIES, paths::TRIES, processes::TRIES, network::TRIES, bombs::TRIES];
    for (word, attempt) in all.iter().copied().flatten() {
        if tools::equal(word.to_bytes(), name) {
            exit(code(attempt(&words)));
        }
    }
    exit(tools::NO_SUCH_TRY)
}

fn code(answer: isize) -> usize {
    if answer < 0 { answer.unsigned_abs() } else { 0 }
}

/// # Safety
/// As memcmp in C; the compiler calls it for comparisons.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: inside the n bytes that the caller answers for; volatile, or the compiler would make this a call to bcmp.
        if unsafe { a.add(i).read_volatile() != b.add(i).read_volatile() } {
            return 1;
        }
        i += 1;
    }
    0
}
