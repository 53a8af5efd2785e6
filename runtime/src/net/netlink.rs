//! Requests to the kernel's routing and socket tables, several in one packet.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

use super::NetError;

/// A netlink socket; it stays in the network namespace it was opened in. Its requests are numbered: where one was given up half-way, what still
/// comes for it is no answer to the next.
pub struct Netlink {
    socket: Socket,
    next: AtomicU32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    pub fn open(protocol: isize) -> Result<Self, NetError> {
        let open = || {
            let socket = Socket::new(protocol)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, next: AtomicU32::new(1) })
        };
        open().map_err(|source| NetError::Open { protocol, source })
    }

    /// Sends all messages in one packet and waits until the last is acknowledged; the first refusal, which any of them gets unasked, is the result.
    pub fn request<T: NetlinkSerializable>(&self, messages: Vec<(T, u16)>) -> io::Result<()> {
        let mut packet = Vec::new();
        let count = messages.len() as u32;
        let first = self.numbers(count);
        for (number, (message, flags)) in (0..).zip(messages) {
            let last = if number + 1 == count { NLM_F_ACK } else { 0 };
            append(&mut packet, first.wrapping_add(number), message, flags | NLM_F_REQUEST | last);
        }
        self.socket.send(&packet, 0)?;
        let mut refused = Ok(());
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let number = answer.get(NUMBER).map_or(u32::MAX, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
            // What comes for earlier requests is beyond these.
            let place = number.wrapping_sub(first);
            if place < count {
                refused = refused.and(acknowledgement(&answer));
            }
            if place.wrapping_add(1) == count {
                return refused;
            }
        }
    }

    /// The number of a link in this socket's network. Netlink would tell everything else of it as well, which takes ten times as long.
    pub fn index_of(&self, link: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, link)?)
    }

    /// One question, whose messages get their number here, and its answer as they are.
    pub fn exchange(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let number = self.numbers(1).to_ne_bytes();
        self.socket.send(&numbered(question, number), 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            if answer.get(NUMBER) == Some(&number) {
                return Ok(answer);
            }
        }
    }

    /// One question, whose answer is any number of messages, as they are.
    pub fn dump(&self, question: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        const DONE: u16 = 3;
        let number = self.numbers(1).to_ne_bytes();
        self.socket.send(&numbered(question, number), 0)?;
        let mut messages = Vec::new();
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let mut rest = &answer[..];
            while let Some(&[a, b, c, d, kind, more, ..]) = rest.get(..NUMBER.end) {
                let length = (u32::from_ne_bytes([a, b, c, d]) as usize).clamp(NUMBER.end, rest.len());
                let (message, behind) = rest.split_at(length);
                rest = behind.get(length.next_multiple_of(4) - length..).unwrap_or_default();
                match u16::from_ne_bytes([kind, more]) {
                    _ if message[NUMBER] != number => {}
                    DONE => return Ok(messages),
                    ERROR => acknowledgement(message)?,
                    _ => messages.push(message.to_vec()),
                }
            }
        }
    }

    /// Sends a packet whose only message that asks for it is acknowledged.
    pub fn acknowledged(&self, packet: &[u8]) -> io::Result<()> {
        acknowledgement(&self.exchange(packet)?)
    }

    /// The first of `count` numbers that no request had.
    fn numbers(&self, count: u32) -> u32 {
        self.next.fetch_add(count, Ordering::Relaxed)
    }
}

/// Of the message that says whether a request was carried out.
fn acknowledgement(message: &[u8]) -> io::Result<()> {
    let kind = message.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    match message.get(16..20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]])) {
        Some(0) if kind == Some(ERROR) => Ok(()),
        Some(code) if kind == Some(ERROR) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What a message is that acknowledges or refuses.
const ERROR: u16 = 2;
/// Where a message's header holds its number.
const NUMBER: std::ops::Range<usize> = 8..12;

/// A packet with one number for all its messages.
fn numbered(packet: &[u8], number: [u8; 4]) -> Vec<u8> {
    let mut all = packet.to_vec();
    let mut rest = &mut all[..];
    while let Some(place) = rest.get_mut(NUMBER) {
        place.copy_from_slice(&number);
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        rest = rest.get_mut(length.next_multiple_of(4).max(NUMBER.end)..).unwrap_or_default();
    }
    all
}

fn append<T: NetlinkSerializable>(packet: &mut Vec<u8>, sequence: u32, message: T, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let from = packet.len();
    packet.resize(from + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut packet[from..]);
}
