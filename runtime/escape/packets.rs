//! Messages and packets, byte by byte.

pub const REQUEST: u16 = 1;
pub const ACKNOWLEDGE: u16 = 4;
pub const CREATE: u16 = 0x400;
const ROOM: usize = 128;
const INTERNET: u8 = 2;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

/// A few bytes, one after another.
pub struct Buffer {
    bytes: [u8; ROOM],
    used: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; ROOM], used: 0 }
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }

    fn add(&mut self, more: &[u8]) -> &mut Self {
        for byte in more {
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = *byte;
                self.used += 1;
            }
        }
        self
    }

    /// Length, kind, value, and up to the next multiple of four.
    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (4 + value.len()) as u16;
        self.add(&length.to_ne_bytes()).add(&kind.to_ne_bytes()).add(value);
        while self.used % 4 != 0 {
            self.add(&[0]);
        }
        self
    }
}

/// `struct nlmsghdr` and what follows it.
pub fn message(kind: u16, flags: u16, body: &[u8]) -> Buffer {
    let mut all = Buffer::new();
    all.add(&((16 + body.len()) as u32).to_ne_bytes()).add(&kind.to_ne_bytes()).add(&flags.to_ne_bytes());
    all.add(&[1, 0, 0, 0, 0, 0, 0, 0]).add(body);
    all
}

/// An address for loopback.
pub fn address(address: u32) -> Buffer {
    let mut body = Buffer::new();
    body.add(&[INTERNET, 32, 0, 0]).add(&1_u32.to_ne_bytes()).attribute(2, &address.to_be_bytes());
    body
}

/// Who has an address: we do.
pub fn neighbour(address: u32, link: u32) -> Buffer {
    const PERMANENT: u16 = 0x80;
    let mut body = Buffer::new();
    body.add(&[INTERNET, 0, 0, 0]).add(&link.to_ne_bytes()).add(&PERMANENT.to_ne_bytes()).add(&[0, 0]);
    body.attribute(1, &address.to_be_bytes()).attribute(2, &MAC);
    body
}

/// `struct ifinfomsg`: no longer up.
pub fn link_down(link: u32) -> Buffer {
    const UP: u32 = 1;
    let mut body = Buffer::new();
    body.add(&[0; 4]).add(&link.to_ne_bytes()).add(&0_u32.to_ne_bytes()).add(&UP.to_ne_bytes());
    body
}

/// `struct rtmsg`: one address through loopback.
pub fn route(address: u32) -> Buffer {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const LINK: u8 = 253;
    const UNICAST: u8 = 1;
    let mut body = Buffer::new();
    body.add(&[INTERNET, 32, 0, 0, MAIN, STATIC, LINK, UNICAST, 0, 0, 0, 0]);
    body.attribute(1, &address.to_be_bytes()).attribute(4, &1_u32.to_ne_bytes());
    body
}

/// UDP in IP; the kernel fills in the header's checksum, and UDP may go without.
pub fn datagram(from: u32, to: u32, port: u16, text: &[u8]) -> Buffer {
    const UDP: u8 = 17;
    let (udp, all) = ((8 + text.len()) as u16, (28 + text.len()) as u16);
    let mut packet = Buffer::new();
    packet.add(&[0x45, 0]).add(&all.to_be_bytes()).add(&[0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.add(&from.to_be_bytes()).add(&to.to_be_bytes());
    packet.add(&7_u16.to_be_bytes()).add(&port.to_be_bytes()).add(&udp.to_be_bytes()).add(&[0, 0]).add(text);
    packet
}

/// An ARP answer that nobody asked for.
pub fn claim(address: u32) -> [u8; 28] {
    let [a, b, c, d] = address.to_be_bytes();
    let [m, n, o, p, q, r] = MAC;
    [0, 1, 8, 0, 6, 4, 0, 2, m, n, o, p, q, r, a, b, c, d, 255, 255, 255, 255, 255, 255, a, b, c, d]
}

/// `struct sockaddr_ll` of all on a link.
pub fn everybody(protocol: u16, link: u32) -> [u8; 20] {
    let ([p, q], [i, j, k, l]) = (protocol.to_be_bytes(), link.to_ne_bytes());
    [17, 0, p, q, i, j, k, l, 0, 0, 0, 6, 255, 255, 255, 255, 255, 255, 0, 0]
}
