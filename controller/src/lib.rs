//! Bellows: the live controller. One shell around the pure core and the raft member: it reads the clock, holds the sockets,
//! writes the disk, and carries out what the core decided.
//!
//! ```text
//!   api/ (gRPC: operator, nodes, members)  dashboard/ (page, live, metrics)
//!              |  Message, Query (bounded)          |
//!              v                                    v
//!   driver/  one loop, one writer: owns Core and Member
//!              |  Persist                 |  orders, answers, events
//!              v                          v
//!   storage/ (own thread)          sessions, handlers
//! ```
//!
//! Deliberately absent: any choice among nodes or replicas (that is the core's), and any meaning of raft's bytes (the member's).

mod api;
mod auth;
mod blobs;
mod clock;
mod config;
mod controller;
mod convert;
mod dashboard;
mod driver;
mod error;
mod state;

pub mod storage;

pub use auth::{AuthorityError, Credential, CredentialError};
pub use config::{Allowance, Allowed, ControllerConfig, Planted};
pub use controller::Controller;
pub use driver::DriverError;
pub use error::{CreateTokenError, StartError};
