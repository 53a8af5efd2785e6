//! The way to a copy: a connection to one on this node, or a stream of a link to the owner of one elsewhere.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::upstream::Upstream;
use crate::ingress::http2::Asking;
use crate::ingress::link::{LastWord, LinkStream};
use crate::ingress::wire::{Guarded, Shut, Wire};

/// The way to a copy.
pub(crate) enum Way {
    /// On this node.
    Here(Upstream),
    /// Elsewhere.
    There(Rc<LinkStream>),
    /// On this node, to an app that speaks HTTP/2.
    Stream(Rc<Asking>),
}

impl Way {
    /// So many bytes more are sent; how many were before.
    pub(crate) fn count_sent(&self, count: usize) -> u64 {
        match self {
            Self::Here(upstream) => upstream.count_sent(count),
            Self::There(_) | Self::Stream(_) => 0,
        }
    }

    /// Can nothing of what was sent since have reached the app?
    pub(crate) fn untouched(&self, sent_before: u64) -> bool {
        match self {
            Self::Here(upstream) => upstream.untouched(sent_before),
            Self::There(stream) => stream.last_word() == Some(LastWord::Untouched),
            Self::Stream(stream) => stream.refused(),
        }
    }

    /// Nothing more is wanted of the app.
    pub(crate) fn abandon(&self) {
        self.guarded().give_up(Shut::Whole);
    }
}

impl Wire for Way {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Here(upstream) => upstream.socket.poll_readable(cx),
            Self::There(stream) => stream.poll_readable(cx),
            Self::Stream(stream) => stream.poll_readable(cx),
        }
    }

    fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Here(upstream) => upstream.socket.poll_recv(cx, into),
            Self::There(stream) => stream.poll_recv(cx, into),
            Self::Stream(stream) => stream.poll_recv(cx, into),
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Here(upstream) => upstream.socket.poll_send(cx, parts),
            Self::There(stream) => stream.poll_send(cx, parts),
            Self::Stream(stream) => stream.poll_send(cx, parts),
        }
    }

    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Here(upstream) => upstream.socket.poll_close(cx),
            Self::There(stream) => stream.poll_close(cx),
            Self::Stream(stream) => stream.poll_close(cx),
        }
    }

    fn guarded(&self) -> &dyn Guarded {
        match self {
            Self::Here(upstream) => upstream.socket.guarded(),
            Self::There(stream) => stream.guarded(),
            Self::Stream(stream) => stream.guarded(),
        }
    }
}
