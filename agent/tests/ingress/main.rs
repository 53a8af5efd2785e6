//! The ingress with real sockets: servers on loopback are its copies, so that no root is needed.

mod clients;
mod ends;
mod faults;
mod http1;
mod http2;
mod links;
mod smuggling;
mod support;
mod tcp;
mod tls;
