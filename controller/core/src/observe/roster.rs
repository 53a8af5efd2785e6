//! Copies by id, in the order of their ids. New copies have the highest ids, so a list that grows at its end is both smaller and
//! quicker than a tree; it is kept in pieces, so that taking one out of 100,000 moves few.

use serde::{Serialize, Serializer};

use super::replica::Slot;
use crate::ids::ReplicaId;

/// Entries in one piece: 8 KiB, moved within a microsecond.
const PIECE: usize = 256;

type Entry = (ReplicaId, Slot);

/// Ids with their places in the slab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// All but the last piece; none is empty, none holds more than `PIECE`.
    older: Vec<Vec<Entry>>,
    /// The last piece: the only one of most nodes. Empty only when there is nothing.
    newest: Vec<Entry>,
    len: usize,
}

impl Roster {
    /// Adds a copy, or gives it another place.
    pub fn insert(&mut self, id: ReplicaId, slot: Slot) {
        if self.newest.last().is_none_or(|(last, _)| *last < id) {
            if self.newest.len() == PIECE {
                self.older.push(std::mem::take(&mut self.newest));
            }
            self.newest.push((id, slot));
            self.len += 1;
            return;
        }
        let at = self.piece_for(id);
        let piece = self.older.get_mut(at).unwrap_or(&mut self.newest);
        match piece.binary_search_by_key(&id, |entry| entry.0) {
            Ok(found) => piece[found].1 = slot,
            Err(place) => {
                piece.insert(place, (id, slot));
                self.len += 1;
                if piece.len() > PIECE {
                    let rest = piece.split_off(PIECE / 2);
                    let first = std::mem::replace(piece, rest);
                    self.older.insert(at, first);
                }
            }
        }
    }

    /// Takes a copy out.
    pub fn remove(&mut self, id: &ReplicaId) -> Option<Slot> {
        let at = self.piece_for(*id);
        let piece = self.older.get_mut(at).unwrap_or(&mut self.newest);
        let found = piece.binary_search_by_key(id, |entry| entry.0).ok()?;
        let (_, slot) = piece.remove(found);
        self.len -= 1;
        if piece.is_empty() && at < self.older.len() {
            self.older.remove(at);
        } else if self.newest.is_empty() {
            self.newest = self.older.pop().unwrap_or_default();
        }
        Some(slot)
    }

    /// Where a copy is.
    pub fn get(&self, id: &ReplicaId) -> Option<&Slot> {
        let piece = self.older.get(self.piece_for(*id)).unwrap_or(&self.newest);
        let found = piece.binary_search_by_key(id, |entry| entry.0).ok()?;
        Some(&piece[found].1)
    }

    /// The first piece whose last id is not below this one; the newest comes after all others.
    fn piece_for(&self, id: ReplicaId) -> usize {
        match self.newest.first() {
            Some((first, _)) if id < *first => {
                self.older.partition_point(|piece| piece.last().is_some_and(|(last, _)| *last < id))
            }
            _ => self.older.len(),
        }
    }

    /// Is it there?
    pub fn contains_key(&self, id: &ReplicaId) -> bool {
        self.get(id).is_some()
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ReplicaId, &Slot)> {
        self.older.iter().flatten().chain(&self.newest).map(|(id, slot)| (id, slot))
    }

    /// Their ids, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ReplicaId> {
        self.iter().map(|(id, _)| id)
    }

    /// Their places, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &Slot> {
        self.iter().map(|(_, slot)| slot)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// As a list of `[id, slot]`, in the order of the ids.
impl Serialize for Roster {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::Fence;

    #[test]
    fn it_does_as_a_tree_does() {
        let (mut roster, mut tree, mut dice) = (Roster::default(), BTreeMap::new(), 7u64);
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut newest = 0;
        for round in 0..40_000u32 {
            newest += 1;
            // Mostly new ones at first, mostly ends later; some come out of order, as from inventories.
            let counter = if roll(3) == 0 { roll(newest) } else { newest };
            let id = ReplicaId { fence: Fence { incarnation: 1, term: 1 + roll(2) }, counter };
            let growing = (round / 8_000) % 2 == 0;
            if roll(10) < if growing { 8 } else { 3 } {
                roster.insert(id, Slot(round));
                tree.insert(id, Slot(round));
            } else {
                let any = tree.range(id..).next().map_or(id, |(any, _)| *any);
                assert_eq!(roster.remove(&any), tree.remove(&any));
            }
            assert_eq!(roster.get(&id), tree.get(&id));
            assert_eq!(roster.len(), tree.len());
            if round % 500 == 0 {
                assert!(roster.iter().eq(&tree));
                assert!(roster.older.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
            }
        }
        tree.iter().for_each(|(id, slot)| assert_eq!(roster.remove(id), Some(*slot)));
        assert!(roster.is_empty() && roster.iter().next().is_none());
    }
}
