//! Many containers alive at once: how long they take to start, whether the next one still starts as fast, and what each costs in memory beyond its
//! own program.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bellows_runtime::{ContainerId, Runtime};

use super::memory::{self, Kernel};
use super::rows::{Row, quantile};
use super::waiting::{end, one, spec};
use crate::failure::Failure;

/// Beside so few nothing is to be felt yet.
const FEW: usize = 10;

/// The start of many shall take this long at most, for each thousand.
const SECONDS_PER_THOUSAND: f64 = 2.5;

/// A launch beside many may take this many times what it takes beside a few.
const SLOWER: f64 = 1.5;

/// Memory of a container beyond its program's own: its init, and its share of launchers.
const OWN_KIB: f64 = 128.0;

/// `at_once` threads start `many`; `count` launches are measured beside a few and beside all of them.
pub fn rows(runtime: &Runtime, tree: &Path, many: usize, at_once: usize, count: usize) -> Result<Vec<Row>, Failure> {
    let alive = Mutex::new(Vec::with_capacity(many));
    let crowd = Crowd { runtime, tree, at_once, alive: &alive };
    let measured = crowd.measure(many, count);
    let ids: Vec<(ContainerId, u32)> = alive.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = ids.iter().map(|(id, _)| end(runtime, id)).fold(Ok(()), Result::and);
    let rows = measured?;
    ended.map(|()| rows)
}

struct Crowd<'a> {
    runtime: &'a Runtime,
    tree: &'a Path,
    at_once: usize,
    /// Names, and their inits' process numbers.
    alive: &'a Mutex<Vec<(ContainerId, u32)>>,
}

impl Crowd<'_> {
    fn measure(&self, many: usize, count: usize) -> Result<Vec<Row>, Failure> {
        self.grow(FEW)?;
        let few = self.median(count)?;
        let before = Kernel::read()?;
        let began = Instant::now();
        self.grow(many)?;
        let seconds = began.elapsed().as_secs_f64();
        let kernel_kib = before.grown_kib(&Kernel::read()?, many - FEW);
        let own_kib = self.own_kib(many)?;
        let beside = self.median(count)?;
        let at_once = self.at_once;
        Ok(vec![
            Row::new(format!("tiny: {FEW} -> {many} alive, {at_once} at once"), seconds, "s")
                .at_most(SECONDS_PER_THOUSAND * many as f64 / 1e3),
            Row::new(format!("tiny: order to exec beside {many} alive, median"), beside, "ms").at_most_times(
                format!("beside {FEW}"),
                few,
                SLOWER,
            ),
            Row::new(
                format!("memory per container beyond its program's: PSS of init and launchers, {many} alive"),
                own_kib,
                "KiB",
            )
            .at_most(OWN_KIB),
            kernel_row(kernel_kib, many),
        ])
    }

    /// Until so many are alive.
    fn grow(&self, wanted: usize) -> Result<(), Failure> {
        let next = AtomicUsize::new(self.count());
        let start = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= wanted {
                    return Ok(());
                }
                self.start(number)?;
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.at_once).map(|_| scope.spawn(start)).collect();
            let own = start();
            others.into_iter().filter_map(|other| other.join().ok()).fold(own, Result::and)
        })
    }

    fn start(&self, number: usize) -> Result<(), Failure> {
        let spec = spec(&format!("alive-{number}"), self.tree, &["/bin/payload", "sleep"])?;
        let running = self.runtime.launch(&spec).map_err(|error| Failure::from_error(&error))?;
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).push((spec.id, running.pid));
        Ok(())
    }

    fn count(&self) -> usize {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn median(&self, count: usize) -> Result<f64, Failure> {
        let samples = (0..count).map(|number| one(self.runtime, self.tree, number));
        Ok(quantile(&mut samples.collect::<Result<Vec<_>, _>>()?, 500))
    }

    /// The runtime has no other process per container than its init.
    fn own_kib(&self, many: usize) -> Result<f64, Failure> {
        let inits: Vec<u32> =
            self.alive.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|one| one.1).collect();
        let all = inits.into_iter().chain(self.runtime.launcher_pids()).map(memory::pss_kib);
        Ok(all.sum::<Result<f64, Failure>>()? / many as f64)
    }
}

fn kernel_row(kib: Option<f64>, many: usize) -> Row {
    let name = format!("memory per container: the kernel's own, {many} alive");
    match kib {
        Some(kib) => Row::new(name, kib, "KiB"),
        None => Row::new(format!("{name}: not measured: others gave back more meanwhile"), f64::NAN, "KiB"),
    }
}
