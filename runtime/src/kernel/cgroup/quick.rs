//! Quick moves between groups. Writing a `cgroup.procs` after a pause costs 5 to 15 ms, as a global lock waits for all CPUs, unless some hierarchy is
//! mounted with `favordynmods`, which cures all of them. (Being created in a group, as on v2 every container is, never costs that; executing in one does.)
//!
//! A cure, not a need: failure is only slower.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

const OPTION: &str = "favordynmods";

/// Whether the kernel knows the option; nothing is mounted.
pub fn is_known() -> io::Result<String> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), OPTION)?;
    Ok("yes".to_owned())
}

/// Asks the v2 tree at `root` for it, keeping its other options; the mount is that of the calling process's own mount namespace, the option everybody's.
/// False where there is no such tree.
pub fn ask_v2(root: &str) -> io::Result<bool> {
    let Some(options) = options_of(&fs::read_to_string("/proc/self/mountinfo")?, root) else { return Ok(false) };
    if options.iter().any(|option| option == OPTION) {
        return Ok(true);
    }
    let all = options.iter().map(String::as_str).chain([OPTION]).collect::<Vec<_>>().join(",");
    let (root, all) = (CString::new(root)?, CString::new(all)?);
    // SAFETY: C strings, and null where the kernel looks at nothing.
    let result = unsafe {
        libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), libc::MS_REMOUNT, all.as_ptr().cast())
    };
    if result == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

/// Mounts a named hierarchy of our own with it, without touching anybody's: beside v1. It goes with the descriptor.
pub fn make_own() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "none")?;
    fsconfig_set_string(context.as_fd(), "name", "bellows")?;
    fsconfig_set_flag(context.as_fd(), OPTION)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// What the tree itself was told when it was mounted: after ` - TYPE SOURCE `. A remount without them would take them back.
fn options_of(mountinfo: &str, root: &str) -> Option<Vec<String>> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(root))?;
    let mut after = line.split_once(" - ")?.1.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let own = options.split(',').filter(|option| !["rw", "ro"].contains(option));
    (kind == "cgroup2").then(|| own.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_kept_and_v1_is_left_alone() {
        let line = |kind: &str, options: &str| {
            format!(
                "1 2 0:3 / /proc rw - proc proc rw\n28 22 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - {kind} cgroup {options}\n"
            )
        };
        let options = |text: &str| options_of(text, "/sys/fs/cgroup");
        let found = options(&line("cgroup2", "rw,nsdelegate,memory_recursiveprot")).expect("v2");
        assert_eq!(found, ["nsdelegate", "memory_recursiveprot"]);
        assert_eq!(options(&line("cgroup2", "rw")), Some(Vec::new()));
        assert_eq!(options(&line("tmpfs", "rw,mode=755")), None);
        assert_eq!(options("1 2 0:3 / /proc rw - proc proc rw\n"), None);
    }
}
