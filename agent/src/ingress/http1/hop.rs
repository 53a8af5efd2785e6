//! Fields that belong to one connection and end with it.

use std::ops::Range;

/// What Connection fields say.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Values that name other fields.
    named: Vec<Range<u32>>,
}

impl Connection {
    pub(crate) fn take(&mut self, value: &[u8], place: Range<u32>) {
        for word in words(value) {
            match word {
                word if word.eq_ignore_ascii_case(b"close") => self.close = true,
                word if word.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                word if word.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => {
                    if self.named.last() != Some(&place) {
                        self.named.push(place.clone());
                    }
                }
            }
        }
    }

    /// Is this field for the sender's connection only? Fields that decide the meaning of the message cannot be made to go by it.
    pub(crate) fn names(&self, name: &[u8], bytes: &[u8]) -> bool {
        let value = |place: &Range<u32>| &bytes[place.start as usize..place.end as usize];
        let named = |place| words(value(place)).any(|word| word.eq_ignore_ascii_case(name));
        !self.named.is_empty() && !name.eq_ignore_ascii_case(b"content-length") && self.named.iter().any(named)
    }
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// Fields of one connection by their nature.
pub(crate) fn is_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => name.eq_ignore_ascii_case(b"te"),
        7 => name.eq_ignore_ascii_case(b"upgrade"),
        10 => name.eq_ignore_ascii_case(b"connection") || name.eq_ignore_ascii_case(b"keep-alive"),
        14 => name.eq_ignore_ascii_case(b"http2-settings"),
        16 => name.eq_ignore_ascii_case(b"proxy-connection"),
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        18 => name.eq_ignore_ascii_case(b"proxy-authenticate"),
        19 => name.eq_ignore_ascii_case(b"proxy-authorization"),
        _ => false,
    }
}
