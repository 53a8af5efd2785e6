//! Roots that containers have and that may serve others when they are gone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kept::Made;

/// So many at a time: each is two descriptors.
const MOST: usize = 64;
/// What was lent so long ago may be for ever.
const SHORT_LIFE: Duration = Duration::from_secs(4);

/// In the order in which they were lent, by the numbers of their slots.
#[derive(Debug, Default)]
pub struct Lent(Mutex<VecDeque<(Instant, u32, Made)>>);

impl Lent {
    /// Whether there is room for another one.
    pub fn has_room(&self) -> bool {
        self.lock().len() < MOST
    }

    /// The slot's container has it from now on.
    pub fn add(&self, slot: u32, root: Made) {
        self.lock().push_back((Instant::now(), slot, root));
    }

    /// One that makes room for those of containers that live less long. To let go of it takes a while.
    pub fn long_lent(&self) -> Option<Made> {
        let mut all = self.lock();
        let is_old = all.len() >= MOST && all.front().is_some_and(|(since, ..)| since.elapsed() > SHORT_LIFE);
        is_old.then(|| all.pop_front()).flatten().map(|(.., root)| root)
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
