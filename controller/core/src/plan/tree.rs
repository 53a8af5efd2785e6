//! The best node that fits, without looking at all of them: a tournament tree. Each inner node keeps the best key and the largest
//! room below it, so a search descends only where something better could fit. One change costs O(log n).

use crate::ids::NodeId;
use crate::units::Resources;

/// Smaller is better; `DEAD` never wins.
pub type Key = u128;
/// The key of a node that takes nothing.
pub const DEAD: Key = Key::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    key: Key,
    room: Resources,
}

const NOTHING: Sum =
    Sum { key: DEAD, room: Resources { cpu: crate::units::CpuMilli(0), memory: crate::units::Bytes(0) } };

impl Sum {
    fn over(left: Self, right: Self) -> Self {
        Self { key: left.key.min(right.key), room: left.room.max(right.room) }
    }
}

/// Members with their keys and rooms.
#[derive(Clone, Debug)]
pub struct Tree {
    /// A power of two; leaves are at `size..2 * size`.
    size: usize,
    sums: Vec<Sum>,
    members: Vec<NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { size: 1, sums: vec![NOTHING; 2], members: Vec::new() }
    }
}

/// Says how good a member is for the request at hand, or that it will not do.
pub trait Judge {
    /// The full key; never smaller than the key in the tree.
    fn judge(&mut self, node: NodeId, key: Key) -> Option<Key>;
    /// Can anything with at least this key still matter?
    fn interested(&self, at_least: Key) -> bool;
}

impl Tree {
    /// A new member; answers its leaf.
    pub fn push(&mut self, node: NodeId) -> usize {
        self.members.push(node);
        if self.members.len() > self.size {
            self.grow();
        }
        self.members.len() - 1
    }

    fn grow(&mut self) {
        let mut sums = vec![NOTHING; 4 * self.size];
        sums[2 * self.size..3 * self.size].copy_from_slice(&self.sums[self.size..]);
        self.size *= 2;
        for at in (1..self.size).rev() {
            sums[at] = Sum::over(sums[2 * at], sums[2 * at + 1]);
        }
        self.sums = sums;
    }

    /// Sets a member's key and room.
    pub fn set(&mut self, leaf: usize, key: Key, room: Resources) {
        let mut at = self.size + leaf;
        let mut sum = if key == DEAD { NOTHING } else { Sum { key, room } };
        while self.sums[at] != sum {
            self.sums[at] = sum;
            if at == 1 {
                return;
            }
            at /= 2;
            sum = Sum::over(self.sums[2 * at], self.sums[2 * at + 1]);
        }
    }

    /// The best key of all; `DEAD` when there is none.
    pub fn best_key(&self) -> Key {
        self.sums[1].key
    }

    /// Shows the judge whoever fits and may matter, the most promising first.
    pub fn search(&self, need: &Resources, judge: &mut impl Judge) {
        self.search_below(1, need, judge);
    }

    fn search_below(&self, at: usize, need: &Resources, judge: &mut impl Judge) {
        let sum = &self.sums[at];
        if sum.key == DEAD || !need.fits(&sum.room) || !judge.interested(sum.key) {
            return;
        }
        if at >= self.size {
            let _ = judge.judge(self.members[at - self.size], sum.key);
            return;
        }
        let (left, right) = (2 * at, 2 * at + 1);
        let (first, second) = if self.sums[right].key < self.sums[left].key { (right, left) } else { (left, right) };
        self.search_below(first, need, judge);
        self.search_below(second, need, judge);
    }
}
