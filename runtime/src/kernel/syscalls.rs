//! System calls by name, as the kernel's tables have them (Linux 6.18), for filters that are written by name.

#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("syscalls.x86_64.txt");
#[cfg(target_arch = "aarch64")]
const TABLE: &str = include_str!("syscalls.aarch64.txt");

/// Names in their order, with their numbers.
#[derive(Debug)]
pub struct Syscalls(Vec<(&'static str, u32)>);

impl Syscalls {
    /// Of this architecture.
    pub fn native() -> Self {
        let line = |line: &'static str| line.split_once(' ').and_then(|(name, nr)| Some((name, nr.parse().ok()?)));
        Self(TABLE.lines().filter_map(line).collect())
    }

    /// All names.
    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// `None` for what this architecture does not have.
    pub fn number(&self, name: &str) -> Option<u32> {
        let found = self.0.binary_search_by_key(&name, |(known, _)| known).ok()?;
        Some(self.0[found].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_agree_with_the_c_library() {
        let all = Syscalls::native();
        assert!(all.0.is_sorted() && all.0.len() > 300);
        let some = [
            ("accept4", libc::SYS_accept4),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("read", libc::SYS_read),
            ("unshare", libc::SYS_unshare),
            ("write", libc::SYS_write),
        ];
        for (name, number) in some {
            assert_eq!(all.number(name).map(i64::from), Some(number), "{name}");
        }
        assert_eq!(all.number("no_such_call"), None);
    }
}
