//! Mount options as the specification and its users spell them: flags, how mounts spread, and what is the file system's own business.

use std::path::Path;

/// What a list of options means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// MS_* that are set.
    pub flags: u64,
    /// MS_* that are taken away; of a bind mount, which begins with those of its source.
    pub cleared: u64,
    /// MS_* of how mounts spread, 0 where nothing is said.
    pub propagation: u64,
    /// A bind mount; true with all that is mounted below its source.
    pub bind: Option<bool>,
    /// MOUNT_ATTR_* set on everything below as well.
    pub deep: u64,
    /// MOUNT_ATTR_* taken from everything below as well.
    pub deep_cleared: u64,
    /// Owners shifted; true with all that is mounted below its source.
    pub shifted: Option<bool>,
    /// A new tmpfs begins with what the image has there.
    pub copy_up: bool,
    /// The file system's own.
    pub data: Vec<String>,
}

/// Name, MS_*, whether it is set.
const FLAGS: [(&str, u64, bool); 29] = [
    ("ro", libc::MS_RDONLY, true),
    ("rw", libc::MS_RDONLY, false),
    ("nosuid", libc::MS_NOSUID, true),
    ("suid", libc::MS_NOSUID, false),
    ("nodev", libc::MS_NODEV, true),
    ("dev", libc::MS_NODEV, false),
    ("noexec", libc::MS_NOEXEC, true),
    ("exec", libc::MS_NOEXEC, false),
    ("sync", libc::MS_SYNCHRONOUS, true),
    ("async", libc::MS_SYNCHRONOUS, false),
    ("dirsync", libc::MS_DIRSYNC, true),
    ("mand", libc::MS_MANDLOCK, true),
    ("nomand", libc::MS_MANDLOCK, false),
    ("noatime", libc::MS_NOATIME, true),
    ("atime", libc::MS_NOATIME, false),
    ("nodiratime", libc::MS_NODIRATIME, true),
    ("diratime", libc::MS_NODIRATIME, false),
    ("relatime", libc::MS_RELATIME, true),
    ("norelatime", libc::MS_RELATIME, false),
    ("strictatime", libc::MS_STRICTATIME, true),
    ("nostrictatime", libc::MS_STRICTATIME, false),
    ("iversion", libc::MS_I_VERSION, true),
    ("noiversion", libc::MS_I_VERSION, false),
    ("lazytime", LAZYTIME, true),
    ("nolazytime", LAZYTIME, false),
    ("nosymfollow", NOSYMFOLLOW, true),
    ("symfollow", NOSYMFOLLOW, false),
    ("silent", libc::MS_SILENT, true),
    ("loud", libc::MS_SILENT, false),
];
const LAZYTIME: u64 = 1 << 25;
const NOSYMFOLLOW: u64 = 256;

const PROPAGATIONS: [(&str, u64); 8] = [
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("slave", libc::MS_SLAVE),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("unbindable", libc::MS_UNBINDABLE),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
];

const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Reads options in their order: of two that contradict each other the later counts.
pub fn options<T: AsRef<str>>(list: &[T]) -> Options {
    list.iter().fold(Options::default(), |sum, option| sum.with(option.as_ref()))
}

/// What rootfsPropagation says.
pub fn propagation(name: &str) -> Option<u64> {
    PROPAGATIONS.iter().find(|(known, _)| *known == name).map(|(_, flags)| *flags)
}

/// Every option that is no file system's own.
pub fn names() -> Vec<String> {
    let deep = FLAGS.iter().map(|(name, ..)| format!("r{name}"));
    let own = ["defaults", "bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"].map(str::to_owned);
    let plain = FLAGS.iter().map(|(name, ..)| (*name).to_owned());
    own.into_iter().chain(plain).chain(deep).chain(PROPAGATIONS.iter().map(|(name, _)| (*name).to_owned())).collect()
}

impl Options {
    fn with(mut self, option: &str) -> Self {
        match option {
            "defaults" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.flags |= libc::MS_REMOUNT,
            "idmap" => self.shifted = Some(self.shifted.unwrap_or(false)),
            "ridmap" => self.shifted = Some(true),
            "tmpcopyup" => self.copy_up = true,
            other => self.flag_or_data(other),
        }
        self
    }

    fn flag_or_data(&mut self, option: &str) {
        if let Some((_, flag, set)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            if *set {
                self.flags |= flag;
                self.cleared &= !flag;
            } else {
                self.flags &= !flag;
                self.cleared |= flag;
            }
        } else if let Some(flags) = propagation(option) {
            self.propagation = flags;
        } else if let Some((_, flag, set)) =
            option.strip_prefix('r').and_then(|bare| FLAGS.iter().find(|(name, ..)| *name == bare))
        {
            let attribute = attributes(*flag);
            if *set { self.deep |= attribute } else { self.deep_cleared |= attribute }
        } else {
            self.data.push(option.to_owned());
        }
    }

    /// What a tree gets: MOUNT_ATTR_* set and taken away. Setting any way of access times takes the others away first.
    pub fn tree_attributes(&self) -> (u64, u64) {
        let (set, mut clear) = (attributes(self.flags), attributes(self.cleared));
        let times = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
        if (self.flags | self.cleared) & times != 0 {
            clear |= ATTR_ATIME;
        }
        (set, clear)
    }

    /// Below the root, as deep as said.
    pub fn deep_attributes(&self) -> (u64, u64) {
        let clear = if self.deep & ATTR_ATIME != 0 { ATTR_ATIME } else { 0 };
        (self.deep, self.deep_cleared | clear)
    }
}

/// MS_* as MOUNT_ATTR_*; those of whole file systems have none.
fn attributes(flags: u64) -> u64 {
    let pairs = [
        (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (libc::MS_NOATIME, ATTR_NOATIME),
        (libc::MS_STRICTATIME, ATTR_STRICTATIME),
        (libc::MS_NODIRATIME, ATTR_NODIRATIME),
        (NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
    ];
    pairs.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, attribute)| all | attribute)
}

/// From the new root: without `.` and empty parts; `..` stays at the root, as the kernel would have it.
pub fn inside(path: &Path) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.as_bytes().to_vec()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_counts_and_what_is_unknown_is_the_file_systems() {
        let read = options(&["nosuid", "ro", "rw", "mode=755", "size=64k", "rprivate"]);
        assert_eq!(read.flags, libc::MS_NOSUID);
        assert_eq!(read.cleared, libc::MS_RDONLY);
        assert_eq!(read.data, ["mode=755", "size=64k"]);
        assert_eq!(read.propagation, libc::MS_PRIVATE | libc::MS_REC);
        assert_eq!(read.bind, None);
    }

    #[test]
    fn bind_mounts_say_how_deep() {
        assert_eq!(options(&["bind", "ro"]).bind, Some(false));
        assert_eq!(options(&["rbind"]).bind, Some(true));
        assert_eq!(options(&["rbind", "bind"]).bind, Some(true));
        assert_eq!(options(&["rro", "rnosuid"]).deep, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID);
        assert_eq!(options(&["rrw"]).deep_cleared, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn access_times_are_one_choice() {
        assert_eq!(options(&["noatime"]).tree_attributes(), (ATTR_NOATIME, ATTR_ATIME));
        assert_eq!(options(&["relatime"]).tree_attributes(), (0, ATTR_ATIME));
        assert_eq!(options(&["ro"]).tree_attributes(), (libc::MOUNT_ATTR_RDONLY, 0));
    }

    #[test]
    fn paths_never_leave_the_root() {
        let joined = |path: &str| inside(Path::new(path)).join(&b'/');
        assert_eq!(joined("/a/./b//c"), b"a/b/c");
        assert_eq!(joined("/../../a/../b"), b"b");
        assert_eq!(joined("/"), b"");
    }
}
