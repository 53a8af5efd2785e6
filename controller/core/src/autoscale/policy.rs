//! What one policy asks for. A function of demand; the largest of an app's policies wins.

use serde::Serialize;

use crate::model::spec::Policy;
use crate::observe::replica::Tally;
use crate::units::Resources;

/// A policy's answer with its computation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// Copies that meet the target.
    pub need: u32,
    /// The computation in words.
    pub text: String,
}

/// Requests of one app, wherever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// In copies, counted by their owners.
    pub in_flight: u64,
    /// At ingresses, because no copy can take them.
    pub held: u64,
    /// That arrived per second lately.
    pub per_second: u64,
}

/// Copies that one policy asks for.
pub fn figure(policy: &Policy, demand: &Demand, tally: &Tally, declared: &Resources) -> Figure {
    match policy {
        Policy::Cpu { target } => {
            let need = share(tally.used_cpu.0, declared.cpu.0, target.0);
            let (used, declared) = (tally.used_cpu, declared.cpu);
            let text = format!("cpu: {used} used by ready copies / ({declared} declared x {target}) = {need}");
            Figure { need, text }
        }
        Policy::Memory { target } => {
            let need = share(tally.used_memory.0, declared.memory.0, target.0);
            let (used, declared) = (tally.used_memory, declared.memory);
            let text = format!("memory: {used} used by ready copies / ({declared} declared x {target}) = {need}");
            Figure { need, text }
        }
        Policy::Concurrency { target } => {
            let Demand { in_flight, held, .. } = *demand;
            let need = quotient(in_flight.saturating_add(held), *target);
            let text = format!("concurrency: ({in_flight} in flight + {held} held) / {target} = {need}");
            Figure { need, text }
        }
        Policy::RequestsPerSecond { target } => {
            let need = quotient(demand.per_second, *target);
            let text = format!("requests: {} per second / {target} = {need}", demand.per_second);
            Figure { need, text }
        }
    }
}

fn quotient(demand: u64, target: u32) -> u32 {
    u32::try_from(demand.div_ceil(u64::from(target.max(1)))).unwrap_or(u32::MAX)
}

/// Copies that use a target share of what they declare.
fn share(used: u64, declared: u64, target_permille: u32) -> u32 {
    let per_copy = u128::from(declared) * u128::from(target_permille);
    u32::try_from((u128::from(used) * 1_000).div_ceil(per_copy.max(1))).unwrap_or(u32::MAX)
}
