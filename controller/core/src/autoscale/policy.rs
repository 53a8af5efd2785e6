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

/// Copies that one policy asks for.
pub fn figure(policy: &Policy, tally: &Tally, declared: &Resources) -> Figure {
    match policy {
        Policy::Cpu { target } => {
            let used = tally.used_cpu;
            let per_copy = u128::from(declared.cpu.0) * u128::from(target.0);
            let need = (u128::from(used.0) * 1_000).div_ceil(per_copy.max(1));
            let need = u32::try_from(need).unwrap_or(u32::MAX);
            let text = format!("cpu: {used} used by ready copies / ({} declared x {target}) = {need}", declared.cpu);
            Figure { need, text }
        }
    }
}
