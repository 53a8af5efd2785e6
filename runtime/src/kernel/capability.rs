//! Capabilities a container keeps: Docker's default set.

/// Highest number this code knows (CAP_CHECKPOINT_RESTORE).
pub const LAST: u8 = 40;

/// Docker's default: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
/// audit_write, setfcap.
pub const DEFAULT: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);

/// The default set without `dropped`.
pub fn kept(dropped: &[u8]) -> u64 {
    DEFAULT & !bits(dropped)
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
        assert_eq!(kept(&[0, 31]), 0x2804_25fa);
        assert_eq!(kept(&[21, 99]), DEFAULT);
    }
}
