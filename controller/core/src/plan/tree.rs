//! The best node that fits, without looking at all of them: a tournament tree. Each inner node keeps the best key and the largest
//! room below it, so a search descends only where something better could fit. One change costs O(log n).

use crate::ids::NodeId;
use crate::units::Resources;

/// Smaller is better; `DEAD` never wins.
pub type Key = u128;

/// The last word of every key is the node's own id.
pub fn node_of(key: Key) -> NodeId {
    NodeId((key & Key::from(u32::MAX)) as u32)
}

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
    fn over([left, right]: [Self; 2]) -> Self {
        Self { key: left.key.min(right.key), room: left.room.max(right.room) }
    }
}

/// The two children of an inner node: whoever looks at one looks at the other, so they share one line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Pair([Sum; 2]);

/// Members with their keys and rooms.
#[derive(Clone, Debug)]
pub struct Tree {
    /// A power of two. Numbered as in a heap: the root is 1, the children of `at` are `2 * at` and `2 * at + 1`, and the leaves
    /// are `size..2 * size`.
    size: usize,
    /// By inner node: the sums of its children. The first is not used.
    pairs: Vec<Pair>,
    members: Vec<NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { size: 2, pairs: vec![Pair([NOTHING; 2]); 2], members: Vec::new() }
    }
}

/// A member that fits, and its key.
pub type Found = (NodeId, Key);

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
        let old = self.size;
        self.size *= 2;
        let mut pairs = vec![Pair([NOTHING; 2]); self.size];
        pairs[old..old + old / 2].copy_from_slice(&self.pairs[old / 2..]);
        for at in (1..old).rev() {
            pairs[at] = Pair([Sum::over(pairs[2 * at].0), Sum::over(pairs[2 * at + 1].0)]);
        }
        self.pairs = pairs;
    }

    /// Sets a member's key and room.
    pub fn set(&mut self, leaf: usize, key: Key, room: Resources) {
        let mut at = self.size + leaf;
        let mut sum = if key == DEAD { NOTHING } else { Sum { key, room } };
        while at > 1 {
            let pair = &mut self.pairs[at / 2].0;
            if pair[at % 2] == sum {
                return;
            }
            pair[at % 2] = sum;
            sum = Sum::over(*pair);
            at /= 2;
        }
    }

    /// The best key of all; `DEAD` when there is none.
    pub fn best_key(&self) -> Key {
        Sum::over(self.pairs[1].0).key
    }

    /// The best member and the next best, without a search: the best key names its node, and the next best is the best of those
    /// beside its way up. `None` when one of them lacks the room, so that only a search can tell.
    pub fn first_two(&self, need: &Resources, leaf_of: impl Fn(NodeId) -> usize) -> Option<(Found, Option<Found>)> {
        let fits = |key: Key| {
            let node = node_of(key);
            let at = self.size + leaf_of(node);
            need.fits(&self.pairs[at / 2].0[at % 2].room).then_some((node, key))
        };
        let best = self.best_key();
        if best == DEAD {
            return None;
        }
        let first = fits(best)?;
        let (mut at, mut beside) = (self.size + leaf_of(first.0), DEAD);
        while at > 1 {
            beside = beside.min(self.pairs[at / 2].0[1 - at % 2].key);
            at /= 2;
        }
        if beside == DEAD { Some((first, None)) } else { Some((first, Some(fits(beside)?))) }
    }

    /// Shows the judge whoever fits and may matter, the most promising first.
    pub fn search(&self, need: &Resources, judge: &mut impl Judge) {
        self.search_below(1, need, judge);
    }

    fn search_below(&self, at: usize, need: &Resources, judge: &mut impl Judge) {
        let pair = &self.pairs[at].0;
        let first = usize::from(pair[1].key < pair[0].key);
        for side in [first, 1 - first] {
            let (sum, child) = (&pair[side], 2 * at + side);
            if sum.key == DEAD || !need.fits(&sum.room) || !judge.interested(sum.key) {
                continue;
            }
            if child < self.size {
                self.search_below(child, need, judge);
            } else {
                let _ = judge.judge(self.members[child - self.size], sum.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, CpuMilli};

    fn room(cpu: u64) -> Resources {
        Resources { cpu: CpuMilli(cpu), memory: Bytes(cpu) }
    }

    struct Two(Vec<Found>);

    impl Judge for Two {
        fn judge(&mut self, node: NodeId, key: Key) -> Option<Key> {
            self.0.push((node, key));
            self.0.sort_by_key(|found| found.1);
            self.0.truncate(2);
            Some(key)
        }

        fn interested(&self, at_least: Key) -> bool {
            self.0.get(1).is_none_or(|found| at_least < found.1)
        }
    }

    /// Members come, change and go; both ways to look agree with a look at all of them.
    #[test]
    fn both_ways_find_the_best_two() {
        let (mut tree, mut known, mut dice) = (Tree::default(), Vec::<(Key, u64)>::new(), 1u64);
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut quick = 0;
        for _ in 0..20_000 {
            if known.len() < 300 && roll(4) == 0 {
                tree.push(NodeId(known.len() as u32));
                known.push((DEAD, 0));
            }
            let Some(last) = (known.len() as u64).checked_sub(1) else { continue };
            let leaf = roll(last + 1) as usize;
            let key = if roll(5) == 0 { DEAD } else { Key::from(roll(100) << 32 | leaf as u64) };
            known[leaf] = (key, roll(8));
            tree.set(leaf, key, room(known[leaf].1));
            let need = room(roll(3));
            let able = known.iter().enumerate().filter(|(_, (key, cpu))| *key != DEAD && need.fits(&room(*cpu)));
            let mut all: Vec<Found> = able.map(|(at, (key, _))| (NodeId(at as u32), *key)).collect();
            all.sort_by_key(|found| found.1);
            all.truncate(2);
            let mut two = Two(Vec::new());
            tree.search(&need, &mut two);
            assert_eq!(two.0, all);
            if let Some((first, second)) = tree.first_two(&need, |node| node.0 as usize) {
                assert_eq!([Some(first), second].into_iter().flatten().collect::<Vec<_>>(), all);
                quick += 1;
            }
        }
        assert!(quick > 1_000, "the quick way was open {quick} times only");
    }
}
