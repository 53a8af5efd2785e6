//! Every decision of the leader. `Core::step(now, input) -> effects`; no clock, randomness source, socket, file, async, hash map or float.
//!
//! Reading order: `input` and `effect` (what comes in, what goes out), `step`, `model` (what people declared), `observe` (what
//! agents say), `plan` and `autoscale` (what follows), `view` (what people see), `check` (what must always hold).

pub mod autoscale;
pub mod check;
pub mod effect;
pub mod ids;
pub mod input;
pub mod limits;
pub mod model;
pub mod observe;
mod pairs;
pub mod plan;
pub mod reason;
pub mod step;
pub mod time;
mod turn;
pub mod units;
pub mod view;

pub use step::{Config, Core};
pub use view::View;
