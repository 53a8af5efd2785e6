//! Values as bytes, for packets between two processes of one executable: numbers in the machine's order, texts and lists with their length before.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes under construction.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn word(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.word(value.len() as u32);
        self.0.extend_from_slice(value);
    }

    pub fn list<T>(&mut self, all: &[T], write: impl Fn(&mut Self, &T)) {
        self.word(all.len() as u32);
        all.iter().for_each(|one| write(self, one));
    }

    pub fn address(&mut self, value: &IpAddr) {
        match value {
            IpAddr::V4(four) => self.bytes(&four.octets()),
            IpAddr::V6(six) => self.bytes(&six.octets()),
        }
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl Fn(&mut Self, T)) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Bytes that are still to be read.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packet that this version of the launcher does not know")
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(wrong)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn word(&mut self) -> io::Result<u32> {
        Ok(u32::from_ne_bytes(self.take(4)?.try_into().map_err(|_| wrong())?))
    }

    pub fn long(&mut self) -> io::Result<u64> {
        Ok(u64::from_ne_bytes(self.take(8)?.try_into().map_err(|_| wrong())?))
    }

    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.word()?;
        self.take(length as usize)
    }

    pub fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| wrong())
    }

    pub fn path(&mut self) -> io::Result<PathBuf> {
        Ok(OsStr::from_bytes(self.bytes()?).into())
    }

    pub fn list<T>(&mut self, read: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let length = self.word()?;
        (0..length).map(|_| read(self)).collect()
    }

    pub fn address(&mut self) -> io::Result<IpAddr> {
        let bytes = self.bytes()?;
        let four = <[u8; 4]>::try_from(bytes).map(|four| IpAddr::V4(Ipv4Addr::from(four)));
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|six| IpAddr::V6(Ipv6Addr::from(six)))).map_err(|_| wrong())
    }

    pub fn option<T>(&mut self, read: impl Fn(&mut Self) -> io::Result<T>) -> io::Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(wrong()),
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(wrong()) }
    }

    pub fn unknown<T>() -> io::Result<T> {
        Err(wrong())
    }
}
