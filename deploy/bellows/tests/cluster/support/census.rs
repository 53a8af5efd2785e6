//! What of one cluster (of `dev`, or of `local`) is on the machine: processes, mounts, cgroups, links, folders. Only its own is counted, so
//! that whatever else happens on the machine makes no difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Counted by name, so that a failure tells what is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// `pid command` of processes in the cluster's cgroups or with its folder on their command line or among their open files.
    pub processes: BTreeSet<String>,
    /// Mount points below its folder, in any namespace that is left.
    pub mounts: BTreeSet<String>,
    /// Its cgroups, in every hierarchy.
    pub cgroups: BTreeSet<PathBuf>,
    /// Links of this machine that lead to its addresses.
    pub links: BTreeSet<String>,
    /// Of a local cluster: its folder. A `dev` keeps its own.
    pub folder: Option<PathBuf>,
}

impl Census {
    pub fn of(state: &Path, range: &str) -> Self {
        let tag = tag(state);
        let state = state.display().to_string();
        Self {
            processes: processes(&tag, &state),
            mounts: mounts(&state),
            cgroups: cgroups(&tag),
            links: links(range),
            folder: None,
        }
    }

    /// Of a local cluster: everything bears its name.
    pub fn of_local(name: &str) -> Self {
        let folder = PathBuf::from("/var/lib/bellows/local").join(name);
        let uplink = format!("bl-{name}");
        Self {
            processes: processes(name, name),
            mounts: mounts(&folder.display().to_string()),
            cgroups: cgroups(&format!("bellows-local-{name}")),
            links: link_names().filter(|link| *link == uplink).collect(),
            folder: folder.exists().then_some(folder),
        }
    }

    /// Counts again until nothing is there or patience ends. The kernel takes network namespaces apart in the background, links with
    /// them, and tells nobody when it is done.
    pub fn when_empty(state: &Path, range: &str, patience: Duration) -> Self {
        let end = Instant::now() + patience;
        loop {
            let census = Self::of(state, range);
            if census.is_empty() || Instant::now() >= end {
                return census;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// As `bellows dev` names what it makes outside its folder.
pub fn tag(state: &Path) -> String {
    use sha2::Digest;
    hex::encode(&sha2::Sha256::digest(state.as_os_str().as_encoded_bytes())[..4])
}

fn entries(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    // What vanishes while we look is gone, as it should be.
    fs::read_dir(folder).map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn processes(tag: &str, state: &str) -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let pids = entries("/proc")
        .into_iter()
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().parse::<u32>().is_ok()));
    let others = pids.filter(|p| !p.ends_with(&own));
    others.filter(|process| belongs(process, tag, state)).map(|process| describe(&process)).collect()
}

fn belongs(process: &Path, tag: &str, state: &str) -> bool {
    // Without a command line are those that have ended and wait for their parent, who hold nothing but a number, and the kernel's own.
    if fs::read(process.join("cmdline")).is_ok_and(|words| words.is_empty()) {
        return false;
    }
    let says = |file: &str, word: &str| {
        fs::read(process.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(word))
    };
    says("cgroup", tag)
        || says("cmdline", state)
        || entries(process.join("fd")).iter().any(|fd| fs::read_link(fd).is_ok_and(|to| to.starts_with(state)))
}

fn describe(process: &Path) -> String {
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    let pid = process.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " "))
}

fn mounts(state: &str) -> BTreeSet<String> {
    let tables = entries("/proc").into_iter().filter_map(|process| fs::read_to_string(process.join("mountinfo")).ok());
    let points = tables.flat_map(|table| {
        table.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect::<Vec<_>>()
    });
    points.filter(|point| point.starts_with(state)).collect()
}

fn cgroups(tag: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let below = entries(&folder).into_iter().filter(|path| path.is_dir() && !path.is_symlink());
        folders.extend(below);
        if folder.to_string_lossy().contains(tag) {
            found.insert(folder);
        }
    }
    found
}

/// The host's end of a replica's link is named after its address, in hexadecimal; `range` is a /16.
fn links(range: &str) -> BTreeSet<String> {
    let octets: Vec<u8> = range.split('.').take(2).filter_map(|octet| octet.parse().ok()).collect();
    let prefix = format!("bw{:02x}{:02x}", octets[0], octets[1]);
    link_names().filter(|name| name.starts_with(&prefix)).collect()
}

fn link_names() -> impl Iterator<Item = String> {
    entries("/sys/class/net").into_iter().filter_map(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
}
