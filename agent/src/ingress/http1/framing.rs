//! Where a message's body ends. Everything is read as strictly as it is written in RFC 9112, so that nobody behind can read it differently.

use std::ops::Range;

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, passed on as they came.
    Chunked(Chunks),
    /// Of an answer: until its sender closes.
    UntilClose,
}

/// It is not chunked as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// Place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Digits of a size: how many came, and what they say.
    Size { digits: u8, size: u64 },
    /// An extension, of so many bytes up to here.
    Extension { size: u64, length: u16 },
    /// The line feed after a size.
    SizeEnd { size: u64 },
    /// Data, so much left.
    Data(u64),
    /// The carriage return after data, then the line feed.
    DataEnd { line_feed: bool },
    /// Trailers: bytes of them, and of the present line.
    Trailer { all: u16, line: u16 },
    /// The line feed of a trailer line, or of the end.
    TrailerEnd { all: u16, last: bool },
    /// All is read.
    Over,
}

/// Nobody needs more.
const EXTENSION_MOST: u16 = 256;
const TRAILERS_MOST: u16 = 8 << 10;

impl Framing {
    pub(crate) const NONE: Self = Self::Length(0);
    pub(crate) const CHUNKED: Self = Self::Chunked(Chunks::Size { digits: 0, size: 0 });

    /// How many of these bytes belong to the body.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(count)
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::UntilClose => Ok(bytes.len()),
        }
    }

    /// Up to the end of the first piece of data in these bytes: how many bytes that is, and where the data stands in them. What stands
    /// in trailers is added to `trailers`.
    pub(crate) fn piece(&mut self, bytes: &[u8], trailers: &mut Vec<u8>) -> Result<(usize, Range<usize>), BadChunk> {
        let mut at = 0;
        while at < bytes.len() && !self.over() {
            match self {
                Self::Chunked(Chunks::Trailer { .. } | Chunks::TrailerEnd { .. }) => trailers.push(bytes[at]),
                Self::Chunked(Chunks::Data(_)) | Self::Length(_) | Self::UntilClose => {
                    let left = if let Self::Chunked(Chunks::Data(left)) = self { *left } else { u64::MAX };
                    let most = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    let count = self.take(&bytes[at..at + most])?;
                    return Ok((at + count, at..at + count));
                }
                Self::Chunked(_) => {}
            }
            at += self.take(&bytes[at..=at])?;
        }
        Ok((at, at..at))
    }

    /// Is it all read?
    pub(crate) fn over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Over))
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::Over {
            if let Self::Data(left) = self {
                let count = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                at += count;
                *left -= count as u64;
                if *left == 0 {
                    *self = Self::DataEnd { line_feed: false };
                }
            } else {
                *self = self.next(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn next(self, byte: u8) -> Result<Self, BadChunk> {
        match (self, byte) {
            (Self::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                Ok(Self::Size { digits: digits + 1, size: size << 4 | u64::from(digit) })
            }
            (Self::Size { digits: 1.., size }, b'\r') => Ok(Self::SizeEnd { size }),
            (Self::Size { digits: 1.., size }, b';') => Ok(Self::Extension { size, length: 0 }),
            (Self::Extension { size, .. }, b'\r') => Ok(Self::SizeEnd { size }),
            (Self::Extension { size, length }, b'\t' | b' '..=b'~') if length < EXTENSION_MOST => {
                Ok(Self::Extension { size, length: length + 1 })
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Ok(Self::Trailer { all: 0, line: 0 }),
            (Self::SizeEnd { size }, b'\n') => Ok(Self::Data(size)),
            (Self::DataEnd { line_feed: false }, b'\r') => Ok(Self::DataEnd { line_feed: true }),
            (Self::DataEnd { line_feed: true }, b'\n') => Ok(Self::Size { digits: 0, size: 0 }),
            (Self::Trailer { all, line }, b'\r') => Ok(Self::TrailerEnd { all, last: line == 0 }),
            // A line that begins with a space would go on with the one before it.
            (Self::Trailer { line: 0, .. }, b'\t' | b' ' | b':') => Err(BadChunk),
            (Self::Trailer { all, line }, b'\t' | b' '..=b'~' | 0x80..) if all < TRAILERS_MOST => {
                Ok(Self::Trailer { all: all + 1, line: line + 1 })
            }
            (Self::TrailerEnd { last: true, .. }, b'\n') => Ok(Self::Over),
            (Self::TrailerEnd { all, .. }, b'\n') => Ok(Self::Trailer { all, line: 0 }),
            _ => Err(BadChunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much is the body, in whatever pieces it comes.
    fn read(text: &[u8]) -> Result<usize, BadChunk> {
        let mut whole = Framing::CHUNKED;
        let taken = whole.take(text);
        let mut piecemeal = Framing::CHUNKED;
        let bytes = text.iter().map(|byte| piecemeal.take(&[*byte])).collect::<Result<Vec<_>, _>>();
        assert_eq!(taken, bytes.map(|counts| counts.iter().sum()));
        assert!(taken.is_err() || whole == piecemeal);
        taken.map(|count| if whole.over() { count } else { usize::MAX })
    }

    #[test]
    fn chunks_end_where_they_say() {
        let cases: [&[u8]; 5] = [
            b"0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"00A\r\n0123456789\r\n0\r\n\r\n",
            b"1;a=b;c=\"d\"\r\nx\r\n0\r\n\r\n",
            b"1\r\nx\r\n0\r\nx-sum: 1\r\nb: 2\r\n\r\n",
        ];
        for text in cases {
            assert_eq!(read(text), Ok(text.len()), "{text:?}");
            let followed = [text, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&followed), Ok(text.len()));
            assert_eq!(read(&text[..text.len() - 1]), Ok(usize::MAX), "not over yet");
        }
    }

    #[test]
    fn data_is_told_from_what_stands_around_it() {
        let text = b"5;a\r\nhello\r\n1\r\n!\r\n0\r\na: b\r\n\r\nnext";
        let (mut body, mut data, mut trailers, mut at) = (Framing::CHUNKED, Vec::new(), Vec::new(), 0);
        while !body.over() {
            let end = (at + 4).min(text.len());
            let (taken, piece) = body.piece(&text[at..end], &mut trailers).expect("well-formed");
            data.extend_from_slice(&text[at..end][piece]);
            at += taken;
        }
        assert_eq!((&data[..], &trailers[..], &text[at..]), (&b"hello!"[..], &b"a: b\r\n\r\n"[..], &b"next"[..]));
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        let cases: [&[u8]; 14] = [
            b"\r\n",
            b"5\nhello\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"0x5\r\nhello",
            b" 5\r\nhello",
            b"5 \r\nhello",
            b"+5\r\nhello",
            b"-1\r\n",
            b"5;a\nb\r\nhello",
            b"FFFFFFFFFFFFFFFF\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\n\n",
        ];
        for text in cases {
            assert_eq!(read(text), Err(BadChunk), "{text:?}");
        }
    }

    #[test]
    fn a_length_is_counted() {
        let mut body = Framing::Length(3);
        assert_eq!(body.take(b"ab"), Ok(2));
        assert!(!body.over());
        assert_eq!(body.take(b"cd"), Ok(1));
        assert!(body.over());
    }
}
