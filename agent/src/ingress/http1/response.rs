//! The head of an app's answer: read as strictly as a request's, and written anew for whoever asked.

use std::mem::MaybeUninit;

use super::framing::Framing;
use super::hop::{Connection, is_hop};
use super::request::{HEAD_MOST, Kind, number};

const FIELDS_MOST: usize = 128;

/// The app answered something that is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbage(pub(crate) &'static str);

/// An answer's head, rewritten.
#[derive(Debug)]
pub(crate) struct Response {
    /// Bytes that it took.
    pub(crate) length: usize,
    pub(crate) status: u16,
    pub(crate) body: Framing,
    /// May the app's connection be used again?
    pub(crate) persistent: bool,
}

/// What the asker's side needs of the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) kind: Kind,
    /// HTTP/1.0: knows no chunks, and stays only when told.
    pub(crate) old: bool,
    /// Will its connection go on after this answer, as far as it is up to us?
    pub(crate) persistent: bool,
    /// Did it ask to change the protocol?
    pub(crate) upgrade: bool,
}

impl Response {
    /// Reads the head at the beginning of `bytes` and writes it for the asker `into`; nothing when it is not whole yet. Whether the
    /// asker's connection can go on is the second of the pair.
    pub(crate) fn read(bytes: &[u8], wish: Wish, into: &mut Vec<u8>) -> Result<Option<(Self, bool)>, Garbage> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MOST];
        let mut head = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut head, bytes, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_MOST => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MOST => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Garbage("the head of its answer is too large")),
            Err(_) => return Err(Garbage("the head of its answer is malformed")),
        };
        let status = head.code.unwrap_or_default();
        let said = Said::read(head.headers, bytes)?;
        if status == 101 && !wish.upgrade {
            return Err(Garbage("it changes the protocol unasked"));
        }
        let body = body(status, wish.kind, &said);
        let old = head.version == Some(0);
        let persistent = !said.connection.close && (!old || said.connection.keep_alive) && body != Framing::UntilClose;
        if wish.old && matches!(body, Framing::Chunked(_)) {
            return Err(Garbage("it answers a request of HTTP/1.0 with chunks"));
        }
        let goes_on = wish.persistent && body != Framing::UntilClose;
        write_status(status, head.reason.unwrap_or_default(), into);
        write_fields(head.headers, &said, bytes, status == 101, into);
        if status >= 200 {
            write_connection(wish, goes_on, into);
        } else if status == 101 {
            into.extend_from_slice(b"Connection: Upgrade\r\n");
        }
        into.extend_from_slice(b"\r\n");
        Ok(Some((Self { length, status, body, persistent }, goes_on)))
    }
}

/// Only an answer to HEAD, or one without a body by its status, may name a length that does not follow.
fn body(status: u16, kind: Kind, said: &Said) -> Framing {
    match (status, kind) {
        (100..200 | 204 | 304, _) | (_, Kind::Head) => Framing::NONE,
        _ if said.chunked => Framing::CHUNKED,
        _ => said.length.map_or(Framing::UntilClose, Framing::Length),
    }
}

#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    connection: Connection,
    base: usize,
}

impl Said {
    fn read(fields: &[httparse::Header<'_>], bytes: &[u8]) -> Result<Self, Garbage> {
        let mut said = Self { base: bytes.as_ptr().addr(), ..Self::default() };
        for field in fields.iter() {
            let (name, value) = (field.name.as_bytes(), field.value);
            match name.len() {
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    let start = u32::try_from(value.as_ptr().addr().wrapping_sub(said.base)).unwrap_or_default();
                    said.connection.take(value, start..start + u32::try_from(value.len()).unwrap_or_default());
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let length = number(value).ok_or(Garbage("its Content-Length is no number"))?;
                    if said.length.replace(length).is_some_and(|before| before != length) {
                        return Err(Garbage("it names two different Content-Lengths"));
                    }
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if said.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Garbage("its Transfer-Encoding is not understood"));
                    }
                    said.chunked = true;
                }
                _ => {}
            }
        }
        Ok(said)
    }
}

fn write_status(status: u16, reason: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(&[status / 100 % 10, status / 10 % 10, status % 10].map(|digit| digit as u8 + b'0'));
    into.push(b' ');
    into.extend_from_slice(reason.as_bytes());
    into.extend_from_slice(b"\r\n");
}

/// Chunks override a length: then the length goes, so that nobody behind believes it.
fn write_fields(fields: &[httparse::Header<'_>], said: &Said, bytes: &[u8], switches: bool, into: &mut Vec<u8>) {
    let mut length_written = said.chunked;
    for field in fields {
        let name = field.name.as_bytes();
        let length = name.len() == 14 && name.eq_ignore_ascii_case(b"content-length");
        let upgrade = name.len() == 7 && name.eq_ignore_ascii_case(b"upgrade");
        if (length && length_written) || (is_hop(name) && !(upgrade && switches)) || said.connection.names(name, bytes)
        {
            continue;
        }
        length_written |= length;
        for part in [name, b": ", field.value, b"\r\n"] {
            into.extend_from_slice(part);
        }
    }
    if said.chunked {
        into.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

fn write_connection(wish: Wish, goes_on: bool, into: &mut Vec<u8>) {
    match (goes_on, wish.old) {
        (true, false) => {}
        (true, true) => into.extend_from_slice(b"Connection: keep-alive\r\n"),
        (false, _) => into.extend_from_slice(b"Connection: close\r\n"),
    }
}
