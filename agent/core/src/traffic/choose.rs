//! Packing: the oldest copy below its target, so that surplus copies go idle; else the one with the fewest requests; never one at its limit.

use super::copy::Copy;
use super::route::Terms;
use crate::ids::ReplicaId;
use crate::units::Instant;

/// The copy for the next request, out of `copies`, oldest first; none when all are full, parked, not ready or already `tried`.
pub(super) fn choose<'a>(
    copies: impl Iterator<Item = &'a Copy> + Clone,
    terms: &Terms,
    now: Instant,
    tried: &[ReplicaId],
) -> Option<ReplicaId> {
    let free = copies.filter(|copy| copy.open(now, terms.limit) && !tried.contains(&copy.replica));
    let sound = free.clone().filter(|copy| !copy.aside(now));
    // With all put aside it is likelier that the requests are at fault.
    pack(sound, terms, now).or_else(|| pack(free, terms, now))
}

fn pack<'a>(free: impl Iterator<Item = &'a Copy> + Clone, terms: &Terms, now: Instant) -> Option<ReplicaId> {
    let weight = |copy: &Copy| copy.weight(now, terms.slow_start);
    let below = |copy: &&Copy| terms.target.is_some_and(|target| weight(copy) < u64::from(target) * 1_000);
    let oldest = free.clone().find(below);
    oldest.or_else(|| free.min_by_key(|copy| (weight(copy), copy.replica))).map(|copy| copy.replica)
}
