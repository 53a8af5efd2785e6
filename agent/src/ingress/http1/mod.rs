//! HTTP/1.1 between whoever asks and a copy on this node: the path of most requests, so it is kept short. Heads are rewritten, bodies
//! pass as they come; a connection that waits holds no buffer.

pub(super) mod client;
pub(super) mod framing;
pub(super) mod hop;
pub(super) mod relay;
pub(super) mod request;
pub(super) mod response;
pub(super) mod upstream;
pub(super) mod way;
