//! Every decision of an agent, pure: `AgentCore::step(now, input) -> effects`.
//!
//! Read in this order: [`input`] (what can happen), [`effect`] (what can be wanted done), [`journal`] (what is kept and outlives the
//! process), then [`core`] (the loop of thought) and its rooms: `orders` (the fence, and what orders change), `seen` (what the
//! runtime tells), `reconcile` (the next action of one replica), `activity` (busy or idle), [`health`] (checks and what they mean), `adopt` (after a
//! restart). Requests are shared in [`traffic`].
//!
//! The lifecycle of one attempt only advances; a crash begins the next attempt:
//!
//! ```text
//!   Ordered ──▶ Pulling ──▶ Starting ──▶ Running ──▶ Stopping ──▶ Ended ──acknowledged──▶ forgotten
//!      └──────────────────────▲  ▲          │crash
//!                                └──────────┘ attempt + 1, after its back-off; after too many, Ended
//! ```
//!
//! Deliberately absent: clocks, randomness, sockets, files, the specs' commands and environments (the shell keeps these by digest),
//! and placing: an agent never chooses among replicas, it does what was ordered or refuses with a reason.

mod activity;
mod adopt;
pub mod config;
pub mod core;
mod demand;
pub mod effect;
mod freeze;
pub mod health;
pub mod ids;
pub mod input;
pub mod journal;
mod orders;
mod reconcile;
mod replica;
pub mod report;
mod seen;
pub mod traffic;
pub mod units;
pub mod witness;

pub use config::{Config, Planted};
pub use core::AgentCore;
pub use demand::Asked;
pub use effect::{Effect, Serving};
pub use health::{Check, Health, Probe};
pub use ids::{AppId, Fence, Obeyed, OrderSequence, ReplicaId, RevisionNumber, SessionId, SpecDigest};
pub use input::{Action, Allowance, Input, Order, RunSpec, WhenCutOff};
pub use journal::Record;
pub use report::{
    Activity, Ended, Exit, Lifecycle, NodeUse, OrderRefusal, Reason, RefusedOrder, ReplicaReport, Report,
};
pub use units::{Bytes, CpuMilli, Instant, Millis, Permille, Resources};
