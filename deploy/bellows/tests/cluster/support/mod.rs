//! What the whole-cluster tests stand on: a real `bellows dev` or `bellows local`, real verbs, images, requests, and a count of what is left over.

pub mod burn;
pub mod census;
pub mod cli;
pub mod copies;
pub mod dev;
pub mod events;
pub mod http;
pub mod images;
pub mod local;
pub mod parts;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One cluster at a time: they share the machine's CPUs, and tests measure readiness, not patience.
static MACHINE: Mutex<()> = Mutex::new(());

/// The machine for one test, or the reason why the test skips, printed.
pub fn machine(needs: &[&str]) -> Option<MutexGuard<'static, ()>> {
    let missing = |program: &&&str| images::program(program).is_none();
    let reason = if !nix::unistd::geteuid().is_root() {
        "containers need root".to_owned()
    } else if let Some(program) = needs.iter().find(missing) {
        format!("{program} is not installed")
    } else {
        return Some(MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
    };
    println!("skipped: {reason}");
    None
}
