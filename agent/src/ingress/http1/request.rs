//! The head of a request: read strictly, and written anew for the app.
//!
//! What two readers could understand differently is refused (a length twice or beside chunks, folded lines, bare line feeds, spaces before
//! a colon, a list of encodings): then whatever passes has one meaning. Fields that belong to one connection end here.

use std::fmt;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ops::Range;

use super::framing::Framing;
use super::hop::{Connection, is_hop};

/// A head may be so long; what is longer holds something that belongs in a body.
pub(crate) const HEAD_MOST: usize = 32 << 10;
/// And have so many fields.
const FIELDS_MOST: usize = 128;

/// Why a request is refused: status, and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) u16, pub(crate) &'static str);

/// Places in the bytes of the head.
type Place = Range<u32>;

/// A request's head, as places in the bytes that it was read from.
#[derive(Debug)]
pub(crate) struct Request {
    /// Bytes of it.
    pub(crate) length: usize,
    pub(crate) body: Framing,
    /// May another request follow on this connection?
    pub(crate) persistent: bool,
    /// The protocol that it wants to go on with, if it does.
    pub(crate) upgrade: Option<Place>,
    pub(crate) kind: Kind,
    old: bool,
    method: Place,
    /// Path and query.
    path: Place,
    host: Place,
    chunked: bool,
    connection: Connection,
    fields: Vec<(Place, Place)>,
}

/// What decides about the answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Head,
    Other,
}

/// Where a request came in, for the fields that say so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) address: IpAddr,
    pub(crate) secure: bool,
    /// Does it ask in gRPC? Then it looks for a status there.
    pub(crate) grpc: bool,
}

impl Request {
    /// Reads the head at the beginning of `bytes`; nothing when it is not whole yet.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Bad> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MOST];
        let mut head = httparse::Request::new(&mut []);
        let length = match head.parse_with_uninit_headers(bytes, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() >= HEAD_MOST => return Err(TOO_LARGE),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
            Err(httparse::Error::Version) => return Err(Bad(505, "this version of HTTP is not spoken here")),
            Err(_) => return Err(Bad(400, "the head of the request is malformed")),
        };
        if length > HEAD_MOST {
            return Err(TOO_LARGE);
        }
        strict_lines(&bytes[..length])?;
        Reader { bytes, old: head.version == Some(0) }.head(&head, length).map(Some)
    }

    /// Writes it for the app: one meaning, the fields of its connection gone, where it came from added.
    pub(crate) fn write(&self, bytes: &[u8], sender: Sender, into: &mut Vec<u8>) {
        let at = |place: &Place| &bytes[place.start as usize..place.end as usize];
        let (method, path, host) = (at(&self.method), at(&self.path), at(&self.host));
        // An app that is asked in HTTP/1.0 does not answer in chunks, which its asker would not understand.
        let version: &[u8] = if self.old { b" HTTP/1.0\r\nHost: " } else { b" HTTP/1.1\r\nHost: " };
        for part in [method, b" ", path, version, host, b"\r\n"] {
            into.extend_from_slice(part);
        }
        let mut forwarded_for: &[u8] = b"";
        for (name, value) in &self.fields {
            let (name, value) = (at(name), at(value));
            if name.eq_ignore_ascii_case(b"x-forwarded-for") && forwarded_for.is_empty() {
                forwarded_for = value;
            } else if !ours(name) && !is_hop(name) && !self.connection.names(name, bytes) {
                for part in [name, b": ", value, b"\r\n"] {
                    into.extend_from_slice(part);
                }
            }
        }
        if self.chunked {
            into.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let Some(protocol) = &self.upgrade {
            for part in [b"Connection: Upgrade\r\nUpgrade: ", at(protocol), b"\r\n"] {
                into.extend_from_slice(part);
            }
        }
        write_origin(sender, forwarded_for, host, into);
        into.extend_from_slice(b"\r\n");
    }

    pub(crate) fn path<'b>(&self, bytes: &'b [u8]) -> &'b str {
        text(bytes, &self.path)
    }

    pub(crate) fn host<'b>(&self, bytes: &'b [u8]) -> &'b str {
        text(bytes, &self.host)
    }

    /// Is its sender one of HTTP/1.0's time, who knows no chunks?
    pub(crate) fn old(&self) -> bool {
        self.old
    }
}

const TOO_LARGE: Bad = Bad(431, "the head of the request is too large: 32 KiB and 128 fields are the most");
const LENGTHS: Bad = Bad(400, "Content-Length must be one number");

fn text<'b>(bytes: &'b [u8], place: &Place) -> &'b str {
    std::str::from_utf8(&bytes[place.start as usize..place.end as usize]).unwrap_or_default()
}

/// Fields that are written anew.
fn ours(name: &[u8]) -> bool {
    match name.len() {
        4 => name.eq_ignore_ascii_case(b"host"),
        9 => name.eq_ignore_ascii_case(b"forwarded"),
        15 => name.eq_ignore_ascii_case(b"x-forwarded-for"),
        16 => name.eq_ignore_ascii_case(b"x-forwarded-host"),
        17 => name.eq_ignore_ascii_case(b"x-forwarded-proto"),
        _ => false,
    }
}

/// Who asked, by what, for whom: what was said before is kept in X-Forwarded-For only, where each hop adds the one before it.
fn write_origin(sender: Sender, forwarded_for: &[u8], host: &[u8], into: &mut Vec<u8>) {
    let proto: &[u8] = if sender.secure { b"https" } else { b"http" };
    let address = Shown(sender.address);
    into.extend_from_slice(b"X-Forwarded-For: ");
    if !forwarded_for.is_empty() {
        into.extend_from_slice(forwarded_for);
        into.extend_from_slice(b", ");
    }
    address.write(into);
    for part in [b"\r\nX-Forwarded-Proto: ", proto, b"\r\nX-Forwarded-Host: ", host, b"\r\nForwarded: for="] {
        into.extend_from_slice(part);
    }
    match sender.address {
        IpAddr::V4(_) => address.write(into),
        IpAddr::V6(_) => {
            into.extend_from_slice(b"\"[");
            address.write(into);
            into.extend_from_slice(b"]\"");
        }
    }
    for part in [b";proto=", proto, b";host=\"", host, b"\"\r\n"] {
        into.extend_from_slice(part);
    }
}

struct Shown(IpAddr);

impl Shown {
    fn write(&self, into: &mut Vec<u8>) {
        use std::io::Write;
        write!(into, "{}", self.0).expect("a vector takes everything");
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

/// Every line ends in CR LF, and no CR stands elsewhere.
fn strict_lines(head: &[u8]) -> Result<(), Bad> {
    let feeds = memchr::memchr_iter(b'\n', head);
    let returns = memchr::memchr_iter(b'\r', head);
    let strict = feeds.map(|at| at.wrapping_sub(1)).eq(returns);
    if strict { Ok(()) } else { Err(Bad(400, "a line of the head does not end in CR LF")) }
}

/// Reads what a head means.
struct Reader<'b> {
    bytes: &'b [u8],
    old: bool,
}

/// What its fields say, taken together.
#[derive(Default)]
struct Said {
    host: Option<Place>,
    length: Option<u64>,
    chunked: bool,
    upgrade: Option<Place>,
    connection: Connection,
}

impl Reader<'_> {
    fn head(&self, head: &httparse::Request<'_, '_>, length: usize) -> Result<Request, Bad> {
        let method = head.method.unwrap_or_default();
        let mut fields = Vec::with_capacity(head.headers.len());
        let mut said = Said::default();
        for field in head.headers.iter() {
            let place = (self.place(field.name.as_bytes()), self.place(field.value));
            self.field(field.name.as_bytes(), field.value, &place.1, &mut said)?;
            fields.push(place);
        }
        let (host, path) = self.target(method, head.path.unwrap_or_default(), said.host)?;
        let body = match (said.chunked, said.length) {
            (true, Some(_)) => return Err(Bad(400, "both Content-Length and Transfer-Encoding are there")),
            (true, None) if self.old => return Err(Bad(400, "HTTP/1.0 knows no Transfer-Encoding")),
            (true, None) => Framing::CHUNKED,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        let upgrade = said.upgrade.filter(|_| said.connection.upgrade && !self.old);
        Ok(Request {
            length,
            body,
            persistent: !said.connection.close && (!self.old || said.connection.keep_alive),
            upgrade,
            kind: if method == "HEAD" { Kind::Head } else { Kind::Other },
            old: self.old,
            method: self.place(method.as_bytes()),
            path,
            host,
            chunked: said.chunked,
            connection: said.connection,
            fields,
        })
    }

    fn field(&self, name: &[u8], value: &[u8], place: &Place, said: &mut Said) -> Result<(), Bad> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let first = said.host.replace(place.clone()).is_none();
                let good = first && value.iter().all(|byte| host_byte(*byte));
                unless(good, Bad(400, "Host must be there once, and be a host's name"))?;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => said.upgrade = upgrade(value, place),
            10 if name.eq_ignore_ascii_case(b"connection") => said.connection.take(value, self.place(value)),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let first = said.length.replace(number(value).ok_or(LENGTHS)?).is_none();
                unless(first, LENGTHS)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let good = !said.chunked && value.eq_ignore_ascii_case(b"chunked");
                unless(good, Bad(501, "no Transfer-Encoding but chunked, once, is understood"))?;
                said.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Host, and path with query. A target with a host in it overrides the field.
    fn target(&self, method: &str, target: &str, host: Option<Place>) -> Result<(Place, Place), Bad> {
        const HOST: Bad = Bad(400, "Host is missing");
        let place = |text: &str| self.place(text.as_bytes());
        if method == "CONNECT" {
            return Err(Bad(405, "this is no proxy for CONNECT"));
        }
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            let host = match host {
                Some(host) => host,
                None if self.old => 0..0,
                None => return Err(HOST),
            };
            return Ok((host, place(target)));
        }
        let scheme = target.get(..7).filter(|s| s.eq_ignore_ascii_case("http://")).or(target.get(..8));
        let scheme = scheme.filter(|s| s.len() == 7 || s.eq_ignore_ascii_case("https://"));
        let rest = scheme.map(|scheme| &target[scheme.len()..]).ok_or(Bad(400, "the target is no path"))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if host.is_none() && !self.old {
            return Err(HOST);
        }
        if authority.is_empty() || !authority.bytes().all(host_byte) || !path.starts_with('/') {
            return Err(Bad(400, "the target must be a path, or a URL with host and path"));
        }
        Ok((place(authority), place(path)))
    }

    /// Where this part of the bytes stands in them.
    fn place(&self, part: &[u8]) -> Place {
        let start = part.as_ptr().addr().wrapping_sub(self.bytes.as_ptr().addr());
        let end = start + part.len();
        debug_assert!(end <= self.bytes.len());
        u32::try_from(start).unwrap_or_default()..u32::try_from(end).unwrap_or_default()
    }
}

fn unless(good: bool, bad: Bad) -> Result<(), Bad> {
    if good { Ok(()) } else { Err(bad) }
}

/// Clear HTTP/2 by upgrade is not offered: who speaks it begins with it.
fn upgrade(value: &[u8], place: &Place) -> Option<Place> {
    let one = !value.is_empty() && !value.contains(&b',') && !value.eq_ignore_ascii_case(b"h2c");
    one.then(|| place.clone())
}

fn host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_:[]~%!$&'()*+=".contains(&byte)
}

/// Digits and nothing else.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}
