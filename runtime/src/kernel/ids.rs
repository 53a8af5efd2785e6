//! Ranges of host ids for containers: 65,536 each, by slot number.

/// Ids in one container's range.
pub const RANGE: u32 = 65_536;

/// First host id of the slot's range; `None` where it would pass the 32-bit ids (the last one is the kernel's "nobody").
pub fn first_id(base: u32, slot: u32) -> Option<u32> {
    let first = u64::from(base) + u64::from(slot) * u64::from(RANGE);
    u32::try_from(first).ok().filter(|first| first.checked_add(RANGE).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_touch() {
        assert_eq!(first_id(200_000, 0), Some(200_000));
        assert_eq!(first_id(200_000, 1), Some(265_536));
        assert_eq!(first_id(u32::MAX - 65_536, 0), Some(u32::MAX - 65_536));
        assert_eq!(first_id(u32::MAX - 65_535, 0), None);
        assert_eq!(first_id(u32::MAX, 9), None);
    }
}
