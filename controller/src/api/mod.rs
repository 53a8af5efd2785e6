//! The gRPC services, all on one port: thin handlers that check, convert, ask the driver, convert back.

mod calls;
mod executions;
mod images;
mod join;
mod members;
mod nodes;
mod operator;
mod server;
mod session;
mod stats;
mod status;
mod streams;
mod token;

pub(crate) use calls::CallHub;
pub(crate) use server::{Services, bind, router, tls_config};
pub(crate) use status::{status_of_blob, status_of_refusal};
pub(crate) use token::create_token;
