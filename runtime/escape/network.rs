//! Other people's addresses, and the node's.

use crate::numbers as nr;
use crate::packets::{self, Buffer};
use crate::tools::{NOTHING, Try, Words, ask, close, fork, hold};

const INTERNET: usize = 2;
const NETLINK: usize = 16;
const PACKET: usize = 17;
const STREAM: usize = 1;
const DATAGRAM: usize = 2;
const RAW: usize = 3;
const PATIENCE_MS: usize = 400;
const EAGAIN: isize = -11;
const EINPROGRESS: isize = -115;

pub const TRIES: &[Try] = &[
    (c"raw_socket", |_| ask(nr::SOCKET, [INTERNET, RAW, 1, 0, 0, 0])),
    (c"packet_socket", |_| ask(nr::SOCKET, [PACKET, RAW, 0, 0, 0, 0])),
    (c"packet_mark", |_| option(socket(DATAGRAM), SOCKET_LEVEL, 36, 7)),
    (c"transparent", |_| option(socket(DATAGRAM), 0, 19, 1)),
    (c"new_address", |words| netlink(20, &packets::address(words.number(2) as u32))),
    (c"new_neighbour", |words| netlink(28, &packets::neighbour(words.number(2) as u32, eth0() as u32))),
    (c"link_down", |_| netlink(19, &packets::link_down(eth0() as u32))),
    (c"new_route", |words| netlink(24, &packets::route(words.number(2) as u32))),
    (c"firewall", firewall),
    (c"connect", connect),
    (c"datagram", datagram),
    (c"ping", ping),
    (c"borrow_address", borrow_address),
    (c"spoof", spoof),
    (c"claim_address", claim_address),
    (c"claim_loudly", |words| loop {
        claim_address(words);
        crate::tools::sleep_ms(10);
    }),
    (c"serve", serve),
    (c"echo", echo),
    (c"serve_all", |words| if fork() == 0 { echo(words) } else { serve(words) }),
    (c"hold", |_| hold(c"here\n")),
];
const SOCKET_LEVEL: usize = 1;

fn socket(kind: usize) -> isize {
    ask(nr::SOCKET, [INTERNET, kind, 0, 0, 0, 0])
}

fn option(socket: isize, level: usize, name: usize, value: i32) -> isize {
    if socket < 0 {
        return socket;
    }
    ask(nr::SETSOCKOPT, [socket as usize, level, name, &raw const value as usize, 4, 0])
}

/// `struct sockaddr_in`.
fn name(address: usize, port: usize) -> [u8; 16] {
    let [a, b, c, d] = (address as u32).to_be_bytes();
    let [high, low] = (port as u16).to_be_bytes();
    [INTERNET as u8, 0, high, low, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Connections and answers that do not come in time are nothing.
fn hurry(socket: isize) {
    let time = [0_usize, PATIENCE_MS * 1000];
    for which in [20, 21] {
        ask(nr::SETSOCKOPT, [socket as usize, SOCKET_LEVEL, which, &raw const time as usize, 16, 0]);
    }
}

fn late(answer: isize) -> isize {
    if answer == EINPROGRESS || answer == EAGAIN { NOTHING } else { answer }
}

/// `connect ADDRESS PORT`.
fn connect(words: &Words) -> isize {
    let socket = socket(STREAM);
    hurry(socket);
    let to = name(words.number(2), words.number(3));
    late(ask(nr::CONNECT, [socket as usize, &raw const to as usize, 16, 0, 0, 0]))
}

/// `datagram ADDRESS PORT`: something answers.
fn datagram(words: &Words) -> isize {
    let to = name(words.number(2), words.number(3));
    exchange(socket(DATAGRAM), &to, b"hello")
}

/// `ping ADDRESS`: an echo request by the kind of socket that everybody inside may have.
fn ping(words: &Words) -> isize {
    const ICMP: usize = 1;
    let to = name(words.number(2), 0);
    exchange(ask(nr::SOCKET, [INTERNET, DATAGRAM, ICMP, 0, 0, 0]), &to, &[8, 0, 0, 0, 0, 0, 0, 1])
}

fn exchange(socket: isize, to: &[u8; 16], say: &[u8]) -> isize {
    if socket < 0 {
        return socket;
    }
    hurry(socket);
    let connected = ask(nr::CONNECT, [socket as usize, to.as_ptr() as usize, 16, 0, 0, 0]);
    if connected < 0 {
        return connected;
    }
    let sent = ask(nr::WRITE, [socket as usize, say.as_ptr() as usize, say.len(), 0, 0, 0]);
    if sent < 0 {
        return sent;
    }
    let mut bytes = [0_u8; 64];
    late(ask(nr::READ, [socket as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]))
}

/// `borrow_address SOURCE ADDRESS PORT`: binds to an address that is another's, which nobody is kept from, and sends from there.
fn borrow_address(words: &Words) -> isize {
    const FREE_BIND: usize = 15;
    let socket = socket(DATAGRAM);
    let allowed = option(socket, 0, FREE_BIND, 1);
    let (from, to) = (name(words.number(2), 0), name(words.number(3), words.number(4)));
    let bound = ask(nr::BIND, [socket as usize, &raw const from as usize, 16, 0, 0, 0]);
    let text = b"spoofed";
    let sent =
        ask(nr::SENDTO, [socket as usize, text.as_ptr() as usize, text.len(), 0, &raw const to as usize, 16]);
    allowed.min(bound).min(sent)
}

/// `spoof SOURCE ADDRESS PORT`: a packet with a header of its own making.
fn spoof(words: &Words) -> isize {
    const OWN_HEADER: usize = 255;
    let socket = ask(nr::SOCKET, [INTERNET, RAW, OWN_HEADER, 0, 0, 0]);
    if socket < 0 {
        return socket;
    }
    let packet = packets::datagram(words.number(2) as u32, words.number(3) as u32, words.number(4) as u16, b"spoofed");
    let to = name(words.number(3), 0);
    ask(nr::SENDTO, [socket as usize, packet.bytes().as_ptr() as usize, packet.bytes().len(), 0, &raw const to as usize, 16])
}

/// `claim_address ADDRESS`: says by ARP to everybody on the link that it is ours.
fn claim_address(words: &Words) -> isize {
    const ARP: u16 = 0x0806;
    let socket = ask(nr::SOCKET, [PACKET, DATAGRAM, ARP.to_be() as usize, 0, 0, 0]);
    if socket < 0 {
        return socket;
    }
    let claim = packets::claim(words.number(2) as u32);
    let to = packets::everybody(ARP, eth0() as u32);
    ask(nr::SENDTO, [socket as usize, claim.as_ptr() as usize, claim.len(), 0, &raw const to as usize, 20])
}

/// `serve PORT`: takes connections.
fn serve(words: &Words) -> isize {
    let socket = socket(STREAM);
    let at = name(0, words.number(2));
    let bound = ask(nr::BIND, [socket as usize, &raw const at as usize, 16, 0, 0, 0]);
    let listening = ask(nr::LISTEN, [socket as usize, 16, 0, 0, 0, 0]);
    while bound.min(listening) >= 0 {
        close(ask(nr::ACCEPT4, [socket as usize, 0, 0, 0, 0, 0]));
    }
    bound.min(listening)
}

/// `echo PORT`: sends back what comes.
fn echo(words: &Words) -> isize {
    let socket = socket(DATAGRAM);
    let at = name(0, words.number(2));
    let bound = ask(nr::BIND, [socket as usize, &raw const at as usize, 16, 0, 0, 0]);
    let (mut bytes, mut from, mut length) = ([0_u8; 64], [0_u8; 16], 16_u32);
    let (text, whom) = (bytes.as_mut_ptr() as usize, from.as_mut_ptr() as usize);
    while bound >= 0 {
        let got = ask(nr::RECVFROM, [socket as usize, text, 64, 0, whom, &raw mut length as usize]);
        ask(nr::SENDTO, [socket as usize, text, got.max(0) as usize, 0, whom, 16]);
    }
    bound
}

/// The number of the link.
fn eth0() -> isize {
    const INDEX: usize = 0x8933;
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"eth0");
    let socket = socket(DATAGRAM);
    let answer = ask(nr::IOCTL, [socket as usize, INDEX, request.as_mut_ptr() as usize, 0, 0, 0]);
    close(socket);
    if answer < 0 { answer } else { i32::from_ne_bytes([request[16], request[17], request[18], request[19]]) as isize }
}

/// One request to the routing tables, and the kernel's answer to it.
fn netlink(kind: u16, body: &Buffer) -> isize {
    const ROUTE: usize = 0;
    let flags = packets::REQUEST | packets::ACKNOWLEDGE | packets::CREATE;
    answer(ROUTE, &packets::message(kind, flags, body.bytes()))
}

/// Asks the firewall which rules there are.
fn firewall(_: &Words) -> isize {
    const NETFILTER: usize = 12;
    const TABLES_GENERATION: u16 = 10 << 8 | 16;
    answer(NETFILTER, &packets::message(TABLES_GENERATION, packets::REQUEST, &[0; 4]))
}

fn answer(protocol: usize, message: &Buffer) -> isize {
    const ERROR: u16 = 2;
    let socket = ask(nr::SOCKET, [NETLINK, RAW, protocol, 0, 0, 0]);
    if socket < 0 {
        return socket;
    }
    let text = message.bytes();
    let sent = ask(nr::WRITE, [socket as usize, text.as_ptr() as usize, text.len(), 0, 0, 0]);
    if sent < 0 {
        return sent;
    }
    let mut bytes = [0_u8; 512];
    let got = ask(nr::READ, [socket as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]);
    if got < 0 || u16::from_ne_bytes([bytes[4], bytes[5]]) != ERROR {
        return got;
    }
    i32::from_ne_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) as isize
}
