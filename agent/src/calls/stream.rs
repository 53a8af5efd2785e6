//! A pipe's or terminal's end that tasks wait for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

/// Bytes read in one go, and so the largest message.
const PIECE_BYTES: usize = 16 << 10;

/// One end.
pub(crate) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes a descriptor, which never blocks from now on.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(registered(fd)?))
    }

    /// What comes next; nothing at the end.
    pub(crate) async fn read(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| read(fd.get_ref())) {
                return read;
            }
        }
    }

    /// What is there already; nothing where nothing is, or at the end.
    pub(crate) fn read_now(&self) -> io::Result<Vec<u8>> {
        match read(self.0.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            other => other,
        }
    }

    /// All of it.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            let write = |fd: &AsyncFd<OwnedFd>| Ok(nix::unistd::write(fd.get_ref(), bytes)?);
            if let Ok(written) = ready.try_io(write) {
                bytes = bytes.get(written?..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// For tokio, which asks by number.
#[allow(deprecated, reason = "its successor is unsafe; this descriptor lives as long as the registration that owns it")]
pub(crate) fn registered(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// A terminal that nobody has open any more answers EIO: that is its end.
fn read(fd: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE_BYTES];
    match nix::unistd::read(fd, &mut piece) {
        Ok(length) => piece.truncate(length),
        Err(Errno::EIO) => piece.clear(),
        Err(errno) => return Err(errno.into()),
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_a_pipe_holds_goes_through() {
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        let (reader, writer) = (Stream::new(reader.into()).expect("ours"), Stream::new(writer.into()).expect("ours"));
        assert_eq!(reader.read_now().expect("nothing is there"), b"");
        let much = vec![b'x'; 1 << 20];
        let sent = much.clone();
        let write = tokio::spawn(async move { writer.write(&sent).await });
        let mut got = Vec::new();
        loop {
            match reader.read().await.expect("readable") {
                piece if piece.is_empty() => break,
                piece => got.extend(piece),
            }
        }
        assert_eq!(got, much);
        write.await.expect("no panic").expect("written");
    }
}
