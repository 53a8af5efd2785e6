//! What the demo app does to the machine: CPU time by threads of its own, memory by touching it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Length of one slice of a burn; its share is spun, the rest slept. Short against the second in which use is sampled.
const SLICE: Duration = Duration::from_millis(20);

/// Spins on this thread for a while.
pub fn spin(length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// One burn: how long, on how many threads, with what share of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burn {
    /// From now.
    pub length: Duration,
    /// Threads.
    pub cores: u32,
    /// Percent of each thread's time, 1 to 100.
    pub share_percent: u32,
}

impl Burn {
    /// Starts the threads; they end by themselves.
    pub fn start(self) {
        let end = Instant::now() + self.length;
        for _ in 0..self.cores {
            std::thread::spawn(move || self.burn_until(end));
        }
    }

    fn burn_until(self, end: Instant) {
        let busy = SLICE * self.share_percent / 100;
        while Instant::now() < end {
            spin(busy);
            #[expect(
                clippy::disallowed_methods,
                reason = "leaving the CPU idle for the rest of a slice is the purpose"
            )]
            std::thread::sleep(SLICE - busy);
        }
    }
}

/// Memory held until told otherwise.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<Vec<u8>>>);

impl Held {
    /// Holds this much instead of what was held before. Every page is written, or the kernel would only promise it.
    pub fn hold(&self, bytes: usize) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Vec::new();
        *held = vec![0xB5; bytes];
    }

    /// How much is held.
    pub fn bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
