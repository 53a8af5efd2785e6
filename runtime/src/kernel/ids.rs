//! Ranges of host ids for containers: 65,536 each, by slot number.

/// Ids in one container's range.
const RANGE: u32 = 65_536;
/// From one range to the next. The kernel finds who it counts for by the low bits of an id: with a distance of 65,536 every container's root would stand in
/// one chain, which each change of ids goes through.
const STEP: u32 = RANGE + 1;

/// First host id of the slot's range; `None` where it would pass the 32-bit ids (the last one is the kernel's "nobody").
pub fn first_id(base: u32, slot: u32) -> Option<u32> {
    let first = u64::from(base) + u64::from(slot) * u64::from(STEP);
    u32::try_from(first).ok().filter(|first| first.checked_add(RANGE).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_touch() {
        assert_eq!(first_id(200_000, 0), Some(200_000));
        assert_eq!(first_id(200_000, 1), Some(265_537));
        assert!(first_id(0, 4_093).is_some_and(|last| last + RANGE <= 1 << 28), "all of a /20");
        assert_eq!(first_id(u32::MAX - 65_536, 0), Some(u32::MAX - 65_536));
        assert_eq!(first_id(u32::MAX - 65_535, 0), None);
        assert_eq!(first_id(u32::MAX, 9), None);
    }
}
