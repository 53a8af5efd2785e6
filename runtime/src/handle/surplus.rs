//! Slots that nobody needs any more. What a growth made is kept for the next one: an app that swings between few copies and many gets its slots back, until
//! there was a whole spell in which they lay unused.

use std::time::{Duration, Instant};

/// The fewest slots that were ready in a spell are those that no launch needed; the next spell begins when one is over. What came back during a spell goes
/// after the next one at the earliest.
#[derive(Debug)]
pub struct Surplus {
    spell: Duration,
    since: Instant,
    fewest: usize,
    /// Of the spell before, not dropped yet.
    going: usize,
}

impl Surplus {
    pub fn new(spell: Duration) -> Self {
        Self { spell, since: Instant::now(), fewest: 0, going: 0 }
    }

    /// So many are ready, the first one too many among them.
    pub fn begin(&mut self, ready: usize) {
        *self = Self { fewest: ready, ..Self::new(self.spell) };
    }

    /// So many are left after a launch.
    pub fn taken(&mut self, left: usize) {
        self.fewest = self.fewest.min(left);
        self.going = self.going.min(left);
    }

    /// Whether one of `ready` is to go, which counts as gone; else how long it is until that may be.
    pub fn drop_one(&mut self, ready: usize, keep: usize) -> Result<(), Duration> {
        let left = self.spell.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            self.going = self.fewest.saturating_sub(keep);
            (self.since, self.fewest) = (Instant::now(), ready);
        }
        if self.going == 0 || ready <= keep {
            return Err(if left.is_zero() { self.spell } else { left });
        }
        self.taken(ready - 1);
        self.going -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose spell is over at each look.
    fn looked_at() -> Surplus {
        let mut surplus = Surplus::new(Duration::ZERO);
        surplus.begin(10);
        surplus
    }

    #[test]
    fn what_no_launch_needed_goes() {
        let mut surplus = looked_at();
        surplus.taken(6);
        surplus.spell = Duration::from_secs(3600);
        assert!(surplus.drop_one(10, 4).is_err(), "in its spell");
        surplus.since -= surplus.spell;
        assert_eq!((surplus.drop_one(10, 4), surplus.drop_one(9, 4)), (Ok(()), Ok(())), "six were never needed");
        assert!(surplus.drop_one(8, 4).is_err(), "the other four were");
        surplus.since -= surplus.spell;
        assert_eq!((0..4).filter(|gone| surplus.drop_one(8 - gone, 4).is_ok()).count(), 4, "in the next spell not");
        assert!(surplus.drop_one(4, 4).is_err(), "those are kept");
    }

    #[test]
    fn a_launch_takes_what_was_about_to_go() {
        let mut surplus = looked_at();
        assert_eq!(surplus.drop_one(10, 2), Ok(()));
        surplus.spell = Duration::from_secs(3600);
        surplus.taken(1);
        assert_eq!(surplus.drop_one(3, 2), Ok(()), "one of them is left to go");
        assert!(surplus.drop_one(3, 2).is_err());
    }
}
