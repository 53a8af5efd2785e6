//! Buffers, lent while a request is under way: a connection that only waits has none.

use std::cell::RefCell;
use std::ops::Range;

/// A response of 64 KiB goes through in few system calls; a thread keeps the ones it used last, which are warm.
pub(crate) const BUFFER: usize = 64 << 10;

/// So many are kept for the next request: 64 x 64 KiB = 4 MiB a thread.
const KEPT: usize = 64;

/// Bytes that came and were not passed on yet.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: Range<usize>,
}

impl Buffer {
    /// What is there.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// Room for more; what is there moves to the front when there is none behind it.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.end == self.bytes.len() {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        &mut self.bytes[self.filled.end..]
    }

    /// So many bytes came into the room.
    pub(crate) fn grew(&mut self, count: usize) {
        self.filled.end += count;
    }

    /// Puts bytes before what is there, if as many were passed on; false, and nothing done, if not.
    pub(crate) fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.filled.start.checked_sub(bytes.len()) else { return false };
        self.bytes[start..self.filled.start].copy_from_slice(bytes);
        self.filled.start = start;
        true
    }

    /// So many were passed on.
    pub(crate) fn consume(&mut self, count: usize) {
        self.filled.start += count;
    }
}

thread_local! {
    static KEEP: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer on loan.
#[derive(Debug)]
pub(crate) struct Lent(Buffer);

impl Lent {
    pub(crate) fn new() -> Self {
        let kept = KEEP.with_borrow_mut(Vec::pop);
        let bytes = kept.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice());
        Self(Buffer { bytes, filled: 0..0 })
    }
}

impl std::ops::Deref for Lent {
    type Target = Buffer;
    fn deref(&self) -> &Buffer {
        &self.0
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0.bytes);
        let keep = |keep: &RefCell<Vec<Box<[u8]>>>| {
            let mut keep = keep.borrow_mut();
            if keep.len() < KEPT {
                keep.push(bytes);
            }
        };
        if KEEP.try_with(keep).is_err() {
            tracing::trace!("a thread that ends keeps no buffers");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_on_leaves_room_in_front() {
        let mut buffer = Lent::new();
        buffer.room()[..6].copy_from_slice(b"longer");
        buffer.grew(6);
        buffer.consume(4);
        assert!(buffer.prepend(b"bett"));
        assert_eq!(buffer.filled(), b"better");
        assert!(!buffer.prepend(b"x") && buffer.prepend(b""));
        assert_eq!(buffer.filled(), b"better");
    }

    #[test]
    fn what_is_left_moves_to_the_front_when_the_end_is_reached() {
        let mut buffer = Lent::new();
        buffer.room()[..3].copy_from_slice(b"abc");
        buffer.grew(BUFFER);
        buffer.consume(BUFFER - 2);
        assert_eq!(buffer.room().len(), BUFFER - 2);
        assert_eq!(buffer.filled(), [0, 0]);
        buffer.consume(2);
        assert!(buffer.is_empty());
        assert_eq!(buffer.room().len(), BUFFER);
    }
}
