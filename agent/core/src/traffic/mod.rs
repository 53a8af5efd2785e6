//! How requests share copies, pure: where they come in, which copy takes each, what waits, what is refused and why.
//!
//! Read in this order: [`entrance`] (port, host and path -> app), [`route`] (what an ingress is told of an app's copies), [`copy`] (one
//! copy: its count, its slow start, its failures), [`choose`] (packing), [`hold`] (the queue), then [`app`], which owns them all.
//!
//! ```text
//!   arrive ──▶ Go(copy) ───────────────────────────▶ done(copy)
//!     │           ▲   │ bounced: full, parked, not reached
//!     │           │   ▼
//!     └──▶ Hold(ticket) ──▶ Go(copy), in order of arrival
//!              └──▶ Refuse(why): full queue at once, or its time is over
//! ```
//!
//! The owner of a copy counts it exactly, because nobody else connects to it; for a copy elsewhere an ingress knows its own requests
//! and what the owner said last, proposes by that, and takes the owner's no for an answer.
//!
//! Deliberately absent: bytes, sockets, clocks, and scaling: what is wanted more is seen from [`Demand`] by others.

pub mod app;
mod choose;
pub mod copy;
pub mod entrance;
pub mod hold;
pub mod route;

pub use app::{Admission, AppTraffic, Bounce, Moved, Outcome, Verdict};
pub use entrance::{Entrance, Entrances, Found, Protocol, Route};
pub use hold::{Hold, Refusal, Ticket};
pub use route::{HereCopy, Owner, Terms, ToldCopy, Update};

use crate::ids::ReplicaId;

/// What an app is asked for here: told whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Demand {
    /// In the copies of this node, counted exactly: every copy of it.
    pub in_flight: Vec<(ReplicaId, u32)>,
    /// Waiting in this ingress.
    pub held: u32,
    /// Requests that came in by this ingress, ever.
    pub arrivals: u64,
    /// When the oldest that waits came, in milliseconds of the ingress's clock.
    pub oldest_held: Option<crate::units::Instant>,
    /// Those that nobody served.
    #[serde(default)]
    pub refused: Refused,
}

/// Requests that an ingress refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// Ever.
    pub count: u64,
    /// Why the last one was, in words; nothing where none was.
    pub why: String,
    /// When, in milliseconds of the ingress's clock.
    pub at: crate::units::Instant,
}
