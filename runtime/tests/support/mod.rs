//! Surroundings of one test, and what must not be left of them.
#![allow(dead_code, reason = "each of the test programs uses some of it")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellows_runtime::handle::{Error, LauncherCommand, PoolSizes, Running};
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, RuntimeConfig};

/// Host ids of one test: 32 ranges for the 30 addresses of its subnet.
const IDS: u32 = 32 << 16;
/// Surplus slots go soon.
const SPELL: Duration = Duration::from_millis(500);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's folder, image, subnet, cgroup and id ranges, which no other test has.
pub struct Place {
    dir: PathBuf,
    name: String,
    links: String,
    config: RuntimeConfig,
    mounts: usize,
    ids: u32,
}

/// `None`, said aloud, when not root.
pub fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make containers");
        return None;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bellows-test-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(&name);
    put(&dir.join("image/bin/payload"), bellows_runtime::launch::PAYLOAD);
    let launcher =
        LauncherCommand { program: env!("CARGO_BIN_EXE_bellows-launcher").into(), args: Vec::<OsString>::new() };
    let second = 128 + std::process::id() % 100;
    let subnet = format!("10.{second}.{number}.0/27").parse().expect("a subnet");
    let mut config = RuntimeConfig::new(dir.join("state"), format!("{name}/node"), subnet, launcher);
    config.pool = PoolSizes { ready: 1, keep: 4, spell: SPELL };
    config.launchers = 1;
    // Below 2^31: no group above may have sockets for ping.
    config.uid_base = 0x2000_0000 + std::process::id() % 16 * (1 << 26) + number * IDS;
    let links = format!("bw0a{second:02x}{number:02x}");
    Some(Place { dir, name, links, config, mounts: mounts(), ids: IDS })
}

pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
    fs::write(path, bytes).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count()
}

impl Place {
    /// Room for 510 containers, for the one test of a program that needs it.
    pub fn widen(&mut self) {
        let second = 128 + std::process::id() % 100;
        self.config.subnet = format!("10.{second}.128.0/23").parse().expect("a subnet");
        self.config.uid_base += 32 * IDS / 2;
        self.ids = 16 * IDS;
        self.links = format!("bw0a{second:02x}8");
    }

    /// So many slots are made ahead, and kept.
    pub fn pool(&mut self, ready: usize) {
        self.config.pool = PoolSizes { ready, keep: ready, spell: SPELL };
    }

    /// Room for two containers by their addresses.
    pub fn with_two_addresses(&mut self) {
        self.config.subnet = self.config.subnet.to_string().replace("/27", "/30").parse().expect("a subnet");
    }

    /// Room for one container by its ids: those that follow are not the kernel's to give.
    pub fn with_the_last_ids(&mut self) {
        self.ids = 65_535;
        self.config.uid_base = u32::MAX - 65_536;
    }

    pub fn spec(&self, name: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec::new(ContainerId::new(name).expect("an id"), self.dir.join("image"), args)
    }

    /// What [`Self::start`] starts with.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    pub fn start(&self) -> Runtime {
        Runtime::start(self.config.clone()).expect("a runtime")
    }

    /// Its addresses.
    pub fn subnet(&self) -> String {
        self.config.subnet.to_string()
    }

    /// One of them.
    pub fn address(&self, number: u32) -> std::net::Ipv4Addr {
        self.config.subnet.address(number).expect("an address of the subnet")
    }

    /// With arguments for the launcher.
    pub fn start_with_launcher(&self, args: &[&str]) -> Runtime {
        let mut config = self.config.clone();
        config.launcher.args = args.iter().map(OsString::from).collect();
        Runtime::start(config).expect("a runtime")
    }

    /// Its image, to be changed before the first launch.
    pub fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// An image of the machine's own static busybox; `None`, said aloud, where there is none.
    pub fn busybox(&self) -> Option<PathBuf> {
        let Ok(bytes) = fs::read("/bin/busybox") else {
            println!("skipped: no /bin/busybox on this machine");
            return None;
        };
        let files = bellows_runtime::image::build::executable_with_libraries(Path::new("/bin/busybox"));
        if files.expect("busybox is an executable").len() > 1 {
            println!("skipped: /bin/busybox is not static");
            return None;
        }
        let image = self.dir.join("busybox");
        put(&image.join("bin/busybox"), &bytes);
        for name in ["sh", "hostname", "ls", "grep", "cat", "id", "tr", "touch", "wc", "tail", "ip", "kill"] {
            symlink("busybox", image.join("bin").join(name)).expect("a link");
        }
        Some(image)
    }

    /// No cgroup, no link, no process, no mount of this test is left. Links go some milliseconds after their namespace.
    pub fn assert_clean(&self) {
        for tree in fs::read_dir("/sys/fs/cgroup").expect("cgroups") {
            let path = tree.expect("a tree").path().join(&self.name);
            assert!(!path.exists(), "{} is left", path.display());
        }
        wait_until("all links are gone", || self.links().is_empty());
        assert_eq!(mounts(), self.mounts, "mounts are left");
        // Who looked after a program that ended with its container notices that a little later.
        let ended = Instant::now() + patience();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < ended, "left: {:#?}", left.into_iter().map(described).collect::<Vec<_>>());
            std::thread::yield_now();
        }
    }

    /// Those in containers of this test.
    pub fn processes(&self) -> Vec<u32> {
        processes().into_iter().filter(|pid| self.is_ours(*pid)).collect()
    }

    /// Names of the containers' cgroups, in any tree.
    pub fn groups(&self) -> BTreeSet<String> {
        let trees = fs::read_dir("/sys/fs/cgroup").expect("cgroups").map(|tree| tree.expect("a tree").path());
        let dirs = trees.filter_map(|tree| fs::read_dir(tree.join(&self.config.cgroup_parent)).ok());
        let names =
            dirs.flat_map(|dir| dir.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())));
        names.filter(|name| name.starts_with('s') && name[1..].parse::<u32>().is_ok()).collect()
    }

    /// For tests that have failed.
    pub fn end_processes(&self) {
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    pub fn links(&self) -> Vec<String> {
        let all = fs::read_dir("/sys/class/net").expect("links");
        let names = all.map(|entry| entry.expect("a link").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&self.links)).collect()
    }

    /// By its id range: whoever ran in a container of this test has ids of that range.
    fn is_ours(&self, pid: u32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
        let first = text.split_whitespace().nth(1).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let base = self.config.uid_base;
        (base..base + self.ids).contains(&first)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).expect("nothing holds the test's folder");
    }
}

fn processes() -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("processes");
    all.filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse().ok()).collect()
}

pub fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("BELLOWS_IN_VM").is_some() { 60 } else { 10 })
}

/// What it is and what it waits for.
fn described(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let lines =
        status.lines().filter(|line| ["Name", "State", "PPid", "NSpid"].iter().any(|name| line.starts_with(name)));
    format!("{pid}: {} {} {}", lines.collect::<Vec<_>>().join(" "), read("syscall"), read("stack"))
}

/// Looks until `done`, at most ten seconds, or as many as a slow machine needs.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + patience();
    while !done() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Launches when there is a slot: there may be few, and each may rest for a while.
pub fn launch_in_its_turn(runtime: &Runtime, spec: &ContainerSpec) -> Running {
    let mut launched = None;
    wait_until("a slot is free", || match runtime.launch(spec) {
        Err(Error::Slot(_)) => {
            std::thread::park_timeout(Duration::from_millis(5));
            false
        }
        other => {
            launched = Some(other.expect("launched"));
            true
        }
    });
    launched.expect("waited for")
}

/// One line of a container's output.
pub struct Line {
    pub unix_ms: u64,
    pub stream: String,
    pub tag: String,
    pub text: String,
}

/// A container's kept output, oldest first.
pub fn lines(runtime: &Runtime, name: &str) -> Vec<Line> {
    let files = runtime.log(&ContainerId::new(name).expect("an id")).expect("a log");
    let read = |path: &Path| fs::read_to_string(path).expect("text");
    let all = read(&files.older) + &read(&files.newer);
    all.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let unix_ms = parts[0].parse().expect("a time");
            Line { unix_ms, stream: parts[1].into(), tag: parts[2].into(), text: parts[3].into() }
        })
        .collect()
}

/// The first child of a process.
pub fn child_of(pid: u32) -> Option<rustix::process::Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    rustix::process::Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
}

/// Whether a process exists and is no zombie.
pub fn is_running(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}
