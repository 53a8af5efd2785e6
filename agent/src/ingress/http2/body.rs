//! A body between its two forms: DATA frames with trailers, and HTTP/1.1's text, by length or in chunks.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::head;
use crate::ingress::http1::framing::Framing;

/// As text, what came in frames.
#[derive(Default)]
pub(super) struct Text {
    /// Not read yet.
    parts: VecDeque<Bytes>,
    chunked: bool,
    over: bool,
}

impl Text {
    /// Begins with a head; with no body to follow if it is `over`.
    pub(super) fn new(head: Vec<u8>, chunked: bool, over: bool) -> Self {
        Self { parts: VecDeque::from([Bytes::from(head)]), chunked, over }
    }

    /// Adds a head before the rest: of an answer that is not the last one.
    pub(super) fn add(&mut self, head: Vec<u8>) {
        self.parts.push_back(Bytes::from(head));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Is there no more to come?
    pub(super) fn over(&self) -> bool {
        self.over
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(part) = self.parts.front_mut().filter(|_| filled < into.len()) {
            let count = part.len().min(into.len() - filled);
            part.copy_to_slice(&mut into[filled..filled + count]);
            filled += count;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        filled
    }

    /// Until there is something to read, or no more comes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut RecvStream) -> Poll<Result<(), h2::Error>> {
        while self.parts.is_empty() && !self.over {
            match ready!(stream.poll_data(cx)).transpose()? {
                Some(data) => self.data(data, stream)?,
                None => {
                    let trailers = ready!(stream.poll_trailers(cx))?;
                    self.end(trailers);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// At most one frame is kept here: whoever does not read is not sent more than fits the window.
    fn data(&mut self, data: Bytes, stream: &mut RecvStream) -> Result<(), h2::Error> {
        stream.flow_control().release_capacity(data.len())?;
        if data.is_empty() {
            return Ok(());
        }
        if self.chunked {
            let size = Bytes::from(format!("{:x}\r\n", data.len()));
            self.parts.extend([size, data, Bytes::from_static(b"\r\n")]);
        } else {
            self.parts.push_back(data);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.over = true;
        if self.chunked {
            let mut text = b"0\r\n".to_vec();
            head::fields(&trailers.unwrap_or_default(), &mut text);
            text.extend_from_slice(b"\r\n");
            self.parts.push_back(text.into());
        }
    }
}

/// As frames, what comes as text.
pub(super) struct Frames {
    framing: Framing,
    trailers: Vec<u8>,
    stream: SendStream<Bytes>,
}

impl Frames {
    /// Nothing of it has come yet, and something will.
    pub(super) fn new(framing: Framing, stream: SendStream<Bytes>) -> Self {
        debug_assert!(!framing.over());
        Self { framing, trailers: Vec::new(), stream }
    }

    pub(super) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    pub(super) fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Sends some of it, and the end behind the last of it: how many bytes, and was that all?
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<(usize, bool)>> {
        let (mut framing, before) = (self.framing, self.trailers.len());
        let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "its chunks are malformed");
        let (mut taken, mut data) = framing.piece(text, &mut self.trailers).map_err(bad)?;
        if !data.is_empty() {
            let room = match poll_room(cx, &mut self.stream, data.len()) {
                Poll::Ready(room) => room?,
                Poll::Pending => {
                    self.trailers.truncate(before);
                    return Poll::Pending;
                }
            };
            if room < data.len() {
                framing = self.framing;
                (taken, data) = framing.piece(&text[..data.start + room], &mut self.trailers).map_err(bad)?;
            }
        }
        self.framing = framing;
        let over = framing.over();
        let ends = over && self.trailers.len() <= b"\r\n".len();
        if !data.is_empty() || ends {
            let data = Bytes::copy_from_slice(&text[data]);
            self.stream.send_data(data, ends).map_err(io::Error::other)?;
        }
        if over && !ends {
            let trailers = head::trailers(&self.trailers)?;
            self.stream.send_trailers(trailers).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok((taken, over)))
    }

    /// The text ends with its connection: only then is a body without length and chunks whole.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if self.framing == Framing::UntilClose {
            self.stream.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// How many of `wanted` bytes the other side takes now; at least one.
pub(in crate::ingress) fn poll_room(
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(room) => drop(room.map_err(io::Error::other)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => return Poll::Ready(Ok(room.min(wanted))),
        }
    }
}

/// Sends parts one behind the other by `send`, which takes some of one; what was taken before it had to wait is taken.
pub(super) fn poll_each(
    parts: &[IoSlice<'_>],
    mut send: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let mut sent = 0;
    for part in parts {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let count = match send(rest) {
                Poll::Pending if sent > 0 => return Poll::Ready(Ok(sent)),
                polled => ready!(polled)?,
            };
            sent += count;
            rest = &rest[count..];
        }
    }
    Poll::Ready(Ok(sent))
}
