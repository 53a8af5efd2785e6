//! Real containers, as root on this machine.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bellows_runtime::handle::{Exit, LauncherCommand, PoolSizes};
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, RuntimeConfig};

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Place {
    dir: PathBuf,
    config: RuntimeConfig,
}

/// A runtime's surroundings for one test: state, subnet, cgroup and ids that no other test has. `None` when not root.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make containers");
        return None;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bellows-test-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(&name);
    let bin = dir.join("image/bin");
    fs::create_dir_all(&bin).expect("an image");
    fs::write(bin.join("payload"), bellows_runtime::launch::PAYLOAD).expect("a payload");
    fs::set_permissions(bin.join("payload"), fs::Permissions::from_mode(0o755)).expect("executable");
    let launcher = LauncherCommand { program: env!("CARGO_BIN_EXE_bellows-launcher").into(), args: Vec::<OsString>::new() };
    let subnet = format!("10.{}.{}.0/24", 128 + std::process::id() % 100, number).parse().expect("a subnet");
    let mut config = RuntimeConfig::new(dir.join("state"), name, subnet, launcher);
    config.pool = PoolSizes { ready: 1, keep: 4 };
    config.launchers = 1;
    Some(Place { dir, config })
}

impl Place {
    fn spec(&self, name: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec::new(ContainerId::new(name).expect("an id"), self.dir.join("image"), args)
    }

    fn start(&self) -> Runtime {
        Runtime::start(self.config.clone()).expect("a runtime")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).expect("nothing holds the test's folder");
    }
}

#[test]
fn exit_codes_come_back() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("seven", &["/bin/payload", "exit", "7"]);
    let running = runtime.launch(&spec).expect("launched");
    for (what, at) in &running.timings.moments_ns {
        println!("{:8} us  {what}", at / 1000);
    }
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(7));
    runtime.shutdown().expect("shut down");
}
