//! How many copies an elastic app shall have: from demand, never from the number of copies that are there.

pub mod decide;
pub mod pace;
pub mod policy;
pub mod window;

use serde::Serialize;

use crate::model::Counted;
use crate::reason::Reason;
use crate::time::Instant;
use pace::Pace;
use policy::{Demand, Figure};
use window::Window;

/// The state of one app's policies.
#[derive(Clone, Debug, Serialize)]
pub struct Elasticity {
    /// The count decided last.
    pub wanted: u32,
    /// Why.
    pub reason: Reason,
    /// When that was decided.
    pub at: Instant,
    /// What was needed, over the idle grace.
    pub window: Window,
    /// Since when this leader watches.
    pub since: Instant,
    /// What the last decision rested on.
    pub reading: Reading,
    /// The way up, lately.
    pub up: Pace,
    /// The way down.
    pub down: Pace,
}

/// What a decision rests on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reading {
    /// When it was taken.
    pub at: Instant,
    /// What each policy asks for.
    pub figures: Vec<Figure>,
    /// What there is to do.
    pub demand: Demand,
    /// Copies and ingresses that cannot be read: they may have much to do.
    pub missing: u32,
    /// Some ingress is just about to tell its counts; nothing falls until it has.
    pub unsure: bool,
}

impl Reading {
    /// Copies asked for: what the largest policy says, at least one while there is anything to do, and those that shall be spare.
    pub fn asked(&self, spare: u32) -> u32 {
        let need = self.figures.iter().map(|figure| figure.need).max().unwrap_or(0);
        let least = u32::from(self.demand.held + self.demand.in_flight > 0);
        need.max(least).saturating_add(spare)
    }
}

impl Elasticity {
    /// Begins with the recorded count as a floor, and with the reason recorded with it: it stands until the window is full.
    pub fn begin(wanted: u32, counted: &Counted, now: Instant) -> Self {
        let (reason, at) = (counted.why.clone(), counted.at);
        let (window, reading, up, down) = Default::default();
        Self { wanted, reason, at, window, since: now, reading, up, down }
    }
}
