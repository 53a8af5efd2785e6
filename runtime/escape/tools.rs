//! What the tries share.

use core::ffi::CStr;

/// Nothing refused the try, and it got nothing.
pub const NOTHING: isize = -200;
/// Asked for by nobody's table.
pub const NO_SUCH_TRY: usize = 249;
pub const HERE: usize = -100_isize as usize;
pub const READ: usize = 0;
pub const WRITE: usize = 1;
pub const READ_WRITE: usize = 2;
pub const CREATE: usize = 0o100;

/// A try by name.
pub type Try = (&'static CStr, fn(&Words) -> isize);

/// The command line.
pub struct Words(pub *const usize);

impl Words {
    pub fn word(&self, number: usize) -> Option<&'static [u8]> {
        // SAFETY: made of the stack the kernel started this program with.
        unsafe { crate::argument(self.0, number) }
    }

    /// As the kernel takes it; a word ends with a zero byte.
    pub fn path(&self, number: usize) -> usize {
        self.word(number).map_or_else(|| at(c""), |word| word.as_ptr() as usize)
    }

    pub fn number(&self, number: usize) -> usize {
        crate::decimal(self.word(number).unwrap_or(b"0"))
    }
}

pub fn ask(number: usize, args: [usize; 6]) -> isize {
    // SAFETY: every caller passes numbers or pointers to statics and locals that outlive the call, of the size the call wants.
    unsafe { crate::syscall(number, args) }
}

pub fn at(text: &CStr) -> usize {
    text.as_ptr() as usize
}

pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x == y)
}

/// A refusal that comes after the permission was given is as good as success.
pub fn considered(answer: isize, refusal: isize) -> isize {
    if answer == -refusal { 0 } else { answer }
}

pub fn open(path: usize, flags: usize) -> isize {
    ask(crate::numbers::OPENAT, [HERE, path, flags, 0o600, 0, 0])
}

pub fn close(fd: isize) {
    ask(crate::numbers::CLOSE, [fd as usize, 0, 0, 0, 0, 0]);
}

/// Opens, reads a little, tells whether anything came.
pub fn read_some(path: usize) -> isize {
    let fd = open(path, READ);
    if fd < 0 {
        return fd;
    }
    let mut bytes = [0_u8; 64];
    let got = ask(crate::numbers::READ, [fd as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]);
    close(fd);
    if got == 0 { NOTHING } else { got }
}

/// Says one word and goes on until somebody ends it: what was taken stays taken meanwhile.
pub fn hold(word: &CStr) -> ! {
    ask(crate::numbers::WRITE, [1, at(word), word.to_bytes().len(), 0, 0, 0]);
    loop {
        sleep_ms(1_000_000);
    }
}

/// Says how much there was, on a line of its own.
pub fn tell(mut amount: usize) {
    let mut line = *b"                \n";
    for digit in line.iter_mut().take(16).rev() {
        *digit = b'0' + (amount % 10) as u8;
        amount /= 10;
    }
    ask(crate::numbers::WRITE, [1, line.as_ptr() as usize, line.len(), 0, 0, 0]);
}

pub fn sleep_ms(ms: usize) {
    let time = [ms / 1000, ms % 1000 * 1_000_000];
    ask(crate::numbers::NANOSLEEP, [&raw const time as usize, 0, 0, 0, 0, 0]);
}

pub fn fork() -> isize {
    ask(crate::numbers::CLONE, [17, 0, 0, 0, 0, 0])
}
