//! How many copies an elastic app shall have: from demand, never from the number of copies that are there.

pub mod decide;
pub mod policy;
pub mod window;

use serde::Serialize;

use crate::model::Counted;
use crate::reason::Reason;
use crate::time::Instant;
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
    /// The last reading: what each policy asked for.
    pub figures: Vec<policy::Figure>,
}

impl Elasticity {
    /// Begins with the recorded count as a floor, and with the reason recorded with it: it stands until the window is full.
    pub fn begin(wanted: u32, counted: &Counted, now: Instant) -> Self {
        let (reason, at) = (counted.why.clone(), counted.at);
        Self { wanted, reason, at, window: Window::default(), since: now, figures: Vec::new() }
    }
}
