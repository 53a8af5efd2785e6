//! In which group a process is, and what that says about where the groups beside it are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::v2;
use crate::kernel::process::is_nobodys;

/// The group of a process, below the root of the tree, as this process sees it: of v2, else that of v1's `pids`. Nothing for a process that is gone.
pub fn of_process(root: &Path, pid: u32) -> io::Result<Option<PathBuf>> {
    match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(text) => Ok(listed(&text, if v2::is_mounted(root) { "" } else { "pids" })),
        Err(error) if is_nobodys(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn listed(text: &str, controller: &str) -> Option<PathBuf> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) = lines.find(|(names, _)| names.split(',').any(|name| name == controller))?;
    Some(PathBuf::from(path.trim_start_matches('/')))
}

/// What `group` is below, if that is `parent/name` somewhere.
pub fn above(group: &Path, parent: &str, name: &str) -> Option<PathBuf> {
    let below = Path::new(parent.trim_matches('/')).join(name);
    let levels = below.components().count();
    group.ends_with(&below).then(|| group.ancestors().nth(levels).unwrap_or(Path::new("")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_where_it_is() {
        let hybrid = "9:pids:/b/n1/s3\n4:cpu,cpuacct:/b/n1/s4\n0::/\n";
        assert_eq!(listed(hybrid, "pids"), Some("b/n1/s3".into()));
        assert_eq!(listed(hybrid, "cpuacct"), Some("b/n1/s4".into()));
        assert_eq!(listed(hybrid, ""), Some("".into()));
        assert_eq!(listed("0::/system.slice/x:y/s3\n", ""), Some("system.slice/x:y/s3".into()));
        assert_eq!(listed("0::/\n", "pids"), None);
    }

    #[test]
    fn where_the_tree_of_a_group_begins() {
        let above = |group: &str, parent| above(Path::new(group), parent, "s3");
        assert_eq!(above("b/n1/s3", "/b/n1/"), Some("".into()));
        assert_eq!(above("unit.service/b/n1/s3", "b/n1"), Some("unit.service".into()));
        assert_eq!(above("b/n2/s3", "b/n1"), None);
        assert_eq!(above("ab/n1/s3", "b/n1"), None);
        assert_eq!(above("b/n1/s4", "b/n1"), None);
    }
}
