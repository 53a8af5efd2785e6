//! Every decision of the leader. `Core::step(now, input) -> effects`; no clock, randomness source, socket, file, async, hash map or float.

pub mod effect;
pub mod ids;
pub mod input;
pub mod model;
mod pairs;
pub mod reason;
pub mod time;
pub mod units;
