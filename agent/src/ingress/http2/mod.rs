//! HTTP/2, from whoever asks and to apps that declare it. Within the ingress a request has one form, the text of HTTP/1.1: a stream of
//! HTTP/2 at either side is a connection that reads and writes that text, for one request. So both versions go through the same
//! reading, the same decisions, bounds in time and second tries, and pass links to other nodes; any asker reaches any app.
//!
//! `server` takes connections and keeps those in bounds who would wear it out; [`Asked`] is a stream of theirs. `pool` keeps connections
//! to apps; [`Asking`] is a stream to an app. `body` and `head` are the two forms of each half.
//!
//! Deliberately absent: pushes, priorities, and upgrades to HTTP/2 by `Upgrade: h2c`, which nobody offers any more.

mod asked;
mod asking;
mod body;
mod head;
pub(super) mod pool;
pub(super) mod server;

pub(crate) use asking::Asking;
pub(super) use body::poll_room;

/// Of one stream and of all of a connection: what may be under way to us before somebody took it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Written and not taken by the other side, per stream.
const SEND_BUFFER: usize = 128 << 10;
