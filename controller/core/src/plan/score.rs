//! Who is best. The order of `Rank`'s fields *is* the policy; smaller is better.

use serde::Serialize;

use crate::ids::NodeId;
use crate::units::{Millis, Permille};

/// Where a copy goes first. Compared field by field, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rank {
    /// By how much the spread would be exceeded (only for `when_full: relax`).
    pub skew: u32,
    /// Crashes of this app there, and recent losses of the node.
    pub distrust: u32,
    /// Load in steps: within one step nodes are equals.
    pub load_step: u32,
    /// Copies of the same app there: a server's end should take few of them.
    pub same_app: u32,
    /// Equals are drawn.
    pub draw: u32,
    /// The last word.
    pub node: NodeId,
}

impl Rank {
    /// Behind all others.
    pub fn worst(node: NodeId) -> Self {
        Self { skew: u32::MAX, distrust: u32::MAX, load_step: u32::MAX, same_app: u32::MAX, draw: u32::MAX, node }
    }
}

/// What called for a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Why {
    /// More copies are wanted than are there.
    #[default]
    Wanted,
    /// In place of copies on lost nodes.
    Replacement,
    /// To take over from an older revision or a drained node.
    TakeOver,
}

/// A node chosen, with all that the decision rested on. Put into words when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Where.
    pub rank: Rank,
    /// What called for it.
    pub why: Why,
    /// The load seen.
    pub load: Permille,
    /// How old the reading was.
    pub age: Millis,
    /// The next best and its load.
    pub runner_up: Option<(NodeId, Permille)>,
}

/// A draw that is the same for the same seed: splitmix64's finisher.
pub fn draw(seed: u64, node: NodeId, round: u32) -> u32 {
    let mut z = seed ^ (u64::from(node.0) << 32 | u64::from(round)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 32) as u32
}
