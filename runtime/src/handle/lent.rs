//! Roots that containers have and that may serve others when they are gone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kept::Made;

/// So many at a time: each is two descriptors ...
const MOST: usize = 64;
/// ... of which one that was lent so long ago, and may be for ever, is done out by a new one.
const SHORT_LIFE: Duration = Duration::from_secs(4);

/// In the order in which they were lent, by the numbers of their slots.
#[derive(Debug, Default)]
pub struct Lent(Mutex<VecDeque<(Instant, u32, Made)>>);

impl Lent {
    /// Whether there is room for another one.
    pub fn has_room(&self) -> bool {
        let all = self.lock();
        all.len() < MOST || all.front().is_some_and(|(since, ..)| since.elapsed() > SHORT_LIFE)
    }

    /// The slot's container has it from now on.
    pub fn add(&self, slot: u32, root: Made) {
        let mut all = self.lock();
        all.push_back((Instant::now(), slot, root));
        let longest = if all.len() > MOST { all.pop_front() } else { None };
        drop(all);
        // To let go of a tree takes a while.
        drop(longest);
    }

    /// What the container had that has had this slot.
    pub fn take(&self, slot: u32) -> Option<Made> {
        let mut all = self.lock();
        let at = all.iter().position(|(_, number, _)| *number == slot)?;
        all.remove(at).map(|(.., root)| root)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, u32, Made)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
