//! What agents say, merged into one picture. Absence is never a reason to stop anything.

pub mod inventory;
pub mod liveness;
pub mod memory;
pub mod names;
pub mod node;
pub mod outbox;
pub mod replica;
pub mod roster;
pub mod session;
pub mod traffic;
pub mod world;
