//! Capabilities a container keeps: Docker's default set.

/// Highest number this code knows (CAP_CHECKPOINT_RESTORE).
pub const LAST: u8 = 40;

/// Docker's default set: name and number.
pub const NAMES: [(&str, u8); 14] = [
    ("chown", 0),
    ("dac_override", 1),
    ("fowner", 3),
    ("fsetid", 4),
    ("kill", 5),
    ("setgid", 6),
    ("setuid", 7),
    ("setpcap", 8),
    ("net_bind_service", 10),
    ("net_raw", 13),
    ("sys_chroot", 18),
    ("mknod", 27),
    ("audit_write", 29),
    ("setfcap", 31),
];

/// The same as a set.
pub const DEFAULT: u64 = {
    let mut numbers = [0; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        numbers[i] = NAMES[i].1;
        i += 1;
    }
    bits(&numbers)
};

/// What a container may be given beyond the default set by whoever answers for its node, and nothing else ever: in a user namespace of its own each of
/// these acts upon what belongs to the container alone.
pub const MORE: [(&str, u8); 8] = [
    ("linux_immutable", 9),
    ("net_broadcast", 11),
    ("ipc_lock", 14),
    ("ipc_owner", 15),
    ("sys_ptrace", 19),
    ("sys_nice", 23),
    ("sys_resource", 24),
    ("lease", 28),
];

/// The default set without `dropped` and with `added`.
pub fn kept(dropped: &[u8], added: &[u8]) -> u64 {
    DEFAULT & !bits(dropped) | bits(added)
}

const fn bits(numbers: &[u8]) -> u64 {
    let mut set = 0;
    let mut i = 0;
    while i < numbers.len() {
        if numbers[i] < 64 {
            set |= 1 << numbers[i];
        }
        i += 1;
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_docker_shows_as_capbnd() {
        assert_eq!(DEFAULT, 0xa804_25fb);
    }

    #[test]
    fn dropping_takes_away_and_never_adds() {
        assert_eq!(kept(&[0, 31], &[]), 0x2804_25fa);
        assert_eq!(kept(&[21, 99], &[]), DEFAULT);
    }

    #[test]
    fn nothing_can_be_added_that_reaches_out_of_a_container() {
        // Administration, modules, raw devices, boot, time, the kernel's log, BPF, the network, files past their permissions.
        for number in [2, 12, 16, 17, 21, 22, 25, 32, 33, 34, 38, 39, 40] {
            assert!(MORE.iter().all(|(_, more)| *more != number), "{number}");
        }
        assert_eq!(kept(&[], &[19]), DEFAULT | 1 << 19);
    }
}
