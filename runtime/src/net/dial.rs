//! Connections into a container, made by a socket that was born in its network, and how many there are.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::{NetError, Network};
use crate::kernel::namespace;

/// A socket keeps the network namespace it was made in: this thread is inside for three system calls (2 us), and a connection needs no link.
pub fn socket_inside(home: BorrowedFd<'_>, network: &Network) -> Result<OwnedFd, NetError> {
    let failed = |source| NetError::Namespace { address: network.address, what: "make a socket inside", source };
    let make =
        || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
    let socket = namespace::inside_from(home, network.namespace.as_fd(), make).map_err(failed)?;
    socket.map_err(|error| failed(error.into()))
}

/// Connects a socket made inside to the container's own address, so that what listens on its loopback only stays private.
pub fn connect(socket: OwnedFd, address: Ipv4Addr, port: u16, timeout: Duration) -> Result<TcpStream, NetError> {
    let failed = |source| NetError::Connect { address, port, source };
    connect_within(&socket, SocketAddrV4::new(address, port), timeout).map_err(failed)?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).map_err(failed)?;
    Ok(stream)
}

fn connect_within(socket: &OwnedFd, to: SocketAddrV4, timeout: Duration) -> io::Result<()> {
    match rustix::net::connect(socket, &SocketAddr::V4(to)) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polls = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
        match poll(&mut polls, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(sockopt::socket_error(socket)??),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Established connections, from the kept descriptor of `/proc/net/snmp`: 4.5 us whatever their number. `home` is the host's network.
pub fn established(network: &Network, home: BorrowedFd<'_>) -> Result<u64, NetError> {
    let wrong = |source| NetError::Counters { address: network.address, source };
    let text = text(network.snmp(home)?).map_err(wrong)?;
    snmp_value(&text, "Tcp:", "CurrEstab").ok_or_else(|| wrong(io::ErrorKind::InvalidData.into()))
}

/// What the kernel says in the file now, the first page of it.
pub fn text(file: &File) -> io::Result<String> {
    let mut buffer = [0_u8; 4096];
    let n = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// The value of `name` in the pair of lines (names, values) that begin with `group`.
pub fn snmp_value(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|n| n == name)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

/// How many bytes of what was sent the other side's kernel has taken (the connection's opening counts as one): what it has not taken
/// cannot have reached the program there.
pub fn acknowledged(socket: &impl AsFd) -> io::Result<u64> {
    /// `struct tcp_info` up to `tcpi_bytes_acked`, which has stood there since 4.1.
    #[repr(C)]
    struct TcpInfo {
        before: [u8; 120],
        bytes_acked: u64,
    }
    let mut info = TcpInfo { before: [0; 120], bytes_acked: 0 };
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a plain structure of that size, any bytes of which are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == size_of::<TcpInfo>() => Ok(info.bytes_acked),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: Forwarding InReceives\nIp: 2 17\nTcp: MaxConn CurrEstab OutRsts\nTcp: -1 3 4\n";
        assert_eq!(snmp_value(text, "Ip:", "InReceives"), Some(17));
        assert_eq!(snmp_value(text, "Tcp:", "CurrEstab"), Some(3));
        assert_eq!(snmp_value(text, "Tcp:", "MaxConn"), None);
        assert_eq!(snmp_value(text, "Udp:", "InDatagrams"), None);
    }
}
