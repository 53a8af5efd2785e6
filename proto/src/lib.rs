//! The only language between processes. Generated from `bellows/*.proto`; no logic lives here.
#![allow(missing_docs, clippy::all, clippy::pedantic)] // generated code

mod bellows {
    pub mod types {
        pub mod v1 {
            tonic::include_proto!("bellows.types.v1");
        }
    }
    pub mod operator {
        pub mod v1 {
            tonic::include_proto!("bellows.operator.v1");
        }
    }
    pub mod node {
        pub mod v1 {
            tonic::include_proto!("bellows.node.v1");
        }
    }
    pub mod member {
        pub mod v1 {
            tonic::include_proto!("bellows.member.v1");
        }
    }
    pub mod log {
        pub mod v1 {
            tonic::include_proto!("bellows.log.v1");
        }
    }
}

/// Stored commands and snapshots.
pub use bellows::log::v1 as log;
/// Raft members among themselves.
pub use bellows::member::v1 as member;
/// Agents and the controller.
pub use bellows::node::v1 as node;
/// People and services to the controller.
pub use bellows::operator::v1 as operator;
/// Words that the other languages share: specs, ids, reasons.
pub use bellows::types::v1 as types;

/// The compiled descriptions, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bellows.bin"));

/// What `Open` and `JoinRequest` bear; agents and controllers of different numbers refuse each other with a sentence.
pub const PROTOCOL: u32 = 1;
