//! cgroup v2 as the kernel has it: where groups are made, who may be in them, what they bound. Skips where there is v1.

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bellows_runtime::handle::Exit;
use bellows_runtime::{Runtime, RuntimeConfig};
use rustix::fs::XattrFlags;
use support::{Place, place, wait_until};

const ROOT: &str = "/sys/fs/cgroup";

/// `None`, said aloud, where the kernel's groups are of the other shape.
fn v2_place() -> Option<Place> {
    if !Path::new(ROOT).join("cgroup.controllers").exists() {
        println!("skipped: no cgroup v2 at {ROOT} (this machine has v1)");
        return None;
    }
    place()
}

/// Moving this whole process disturbs tests that run beside: only where one runs after the other.
fn alone() -> bool {
    let alone = std::env::var_os("BELLOWS_IN_VM").is_some();
    if !alone {
        println!("skipped: moves the test's own process, so only in the virtual machine (BELLOWS_IN_VM)");
    }
    alone
}

fn says(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// The group of a process, below the root.
fn group_of(pid: u32) -> PathBuf {
    let text = says(format!("/proc/{pid}/cgroup").into());
    let line = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a line of v2");
    Path::new(ROOT).join(line)
}

/// One container that ends well, in a runtime of its own: where was it?
fn group_of_a_container(place: &Place, runtime: &Runtime) -> PathBuf {
    let spec = place.spec("asleep", &["/bin/payload", "sleep"]);
    let group = group_of(runtime.launch(&spec).expect("launched").pid);
    runtime.kill(&spec.id).expect("killed");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(9));
    runtime.forget(&spec.id).expect("forgotten");
    group
}

#[test]
fn every_level_hands_controllers_down_and_limits_stand_where_the_container_is() {
    let Some(place) = v2_place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("bounded", &["/bin/payload", "sleep"]);
    spec.limits.cpu_milli = 250;
    spec.limits.memory_bytes = 32 << 20;
    spec.limits.processes = 20;
    let pid = runtime.launch(&spec).expect("launched").pid;
    let group = group_of(pid);
    assert!(group.starts_with(Path::new(ROOT).join(&runtime.config().cgroup_parent)), "{}", group.display());
    for (file, value) in
        [("cpu.max", "25000 100000"), ("memory.max", "33554432"), ("pids.max", "20"), ("cpu.weight", "25")]
    {
        assert_eq!(says(group.join(file)), value, "{file}");
    }
    for above in group.ancestors().skip(1).take_while(|above| above.starts_with(ROOT)) {
        let down = says(above.join("cgroup.subtree_control"));
        assert!(["cpu", "memory", "pids", "io"].iter().all(|name| down.contains(name)), "{}: {down}", above.display());
        // All but the machine's root hold groups or processes, never both.
        assert!(above == Path::new(ROOT) || says(above.join("cgroup.procs")).is_empty(), "{}", above.display());
    }
    let child = support::child_of(pid).expect("the program").as_raw_nonzero().get();
    assert_eq!(
        says(group.join("cgroup.procs")),
        format!("{pid}\n{child}"),
        "init and program, from their first moment on"
    );
    runtime.kill(&spec.id).expect("killed");
    runtime.reap(&spec.id).expect("reaped");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// This process in another group, until dropped.
struct Moved {
    from: PathBuf,
    made: Vec<PathBuf>,
}

impl Moved {
    /// To the last of `groups`, which are made.
    fn to(groups: &[&str]) -> Self {
        let from = group_of(std::process::id());
        let made: Vec<PathBuf> = groups.iter().map(|group| Path::new(ROOT).join(group)).collect();
        made.iter().for_each(|group| fs::create_dir(group).expect("a group"));
        let moved = Self { from, made };
        fs::write(moved.made.last().expect("some").join("cgroup.procs"), "0").expect("moved");
        moved
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        fs::write(self.from.join("cgroup.procs"), "0").expect("moved back");
        // A thread that was waited for is not moved along when it is on its way out, and may be there for another moment.
        for group in self.made.iter().rev() {
            wait_until("nobody is left in it", || fs::remove_dir(group).is_ok());
        }
    }
}

#[test]
fn an_agent_in_a_leaf_of_a_delegated_group_makes_its_groups_there() {
    let Some(place) = v2_place() else { return };
    if !alone() {
        return;
    }
    let moved = Moved::to(&["unit.service", "unit.service/agent"]);
    rustix::fs::setxattr(&moved.made[0], "trusted.delegate", b"1", XattrFlags::empty()).expect("marked");
    let runtime = place.start();
    let group = group_of_a_container(&place, &runtime);
    assert!(group.starts_with(moved.made[0].join(&runtime.config().cgroup_parent)), "{}", group.display());
    runtime.shutdown().expect("shut down");
    place.assert_clean();
    // In the delegated group itself it would be in its own way: then the tree begins at the root.
    rustix::fs::removexattr(&moved.made[0], "trusted.delegate").expect("unmarked");
    rustix::fs::setxattr(&moved.made[1], "trusted.delegate", b"1", XattrFlags::empty()).expect("marked");
    let runtime = place.start();
    let group = group_of_a_container(&place, &runtime);
    assert!(group.starts_with(Path::new(ROOT).join(&runtime.config().cgroup_parent)), "{}", group.display());
    runtime.shutdown().expect("shut down");
    drop(moved);
    place.assert_clean();
}

#[test]
fn an_agent_that_was_started_by_hand_is_followed_by_one_in_a_delegated_leaf() {
    let Some(place) = v2_place() else { return };
    if !alone() {
        return;
    }
    let by_hand = place.start();
    let spec = place.spec("stays", &["/bin/payload", "sleep"]);
    let group = group_of(by_hand.launch(&spec).expect("launched").pid);
    drop(by_hand);
    let moved = Moved::to(&["unit.service", "unit.service/agent"]);
    rustix::fs::setxattr(&moved.made[0], "trusted.delegate", b"1", XattrFlags::empty()).expect("marked");
    let service = place.start();
    assert_eq!(service.usage(&spec.id).expect("its own group was found").processes, 2);
    assert_eq!(group_of_a_container(&place, &service).parent(), group.parent(), "new ones are beside it");
    service.kill(&spec.id).expect("killed");
    service.reap(&spec.id).expect("reaped");
    service.forget(&spec.id).expect("forgotten");
    drop(service);
    // When none of them is left it is as if there had been none.
    let service = place.start();
    assert!(group_of_a_container(&place, &service).starts_with(&moved.made[0]));
    service.shutdown().expect("shut down");
    drop(moved);
    place.assert_clean();
}

#[test]
fn a_group_that_holds_processes_is_told_with_them() {
    let Some(place) = v2_place() else { return };
    if !alone() {
        return;
    }
    let moved = Moved::to(&["occupied"]);
    let config = RuntimeConfig { cgroup_parent: "occupied/node".into(), ..place.config().clone() };
    let said = Runtime::start(config).expect_err("we are in the way").to_string();
    let own = std::process::id().to_string();
    assert!(said.contains("/occupied holds processes") && said.contains(&own) && said.contains("mkdir"), "{said}");
    drop(moved);
    place.assert_clean();
}

/// Tells [`at_the_root_of_a_namespace`] that it is the inner one.
const INNER: &str = "BELLOWS_TEST_INNER";

/// As in a container that was given a cgroup namespace and the right to use it: its processes are at the root of all that it sees.
#[test]
fn at_the_root_of_a_namespace_processes_make_room() {
    let Some(place) = v2_place() else { return };
    if std::env::var_os(INNER).is_some() {
        let runtime = place.start();
        let group = group_of_a_container(&place, &runtime);
        assert!(group.starts_with(Path::new(ROOT).join(&runtime.config().cgroup_parent)), "{}", group.display());
        assert_eq!(group_of(std::process::id()), Path::new(ROOT).join("system"));
        runtime.shutdown().expect("shut down");
        place.assert_clean();
        return;
    }
    if !alone() {
        return;
    }
    let group = Path::new(ROOT).join("namespace");
    fs::create_dir(&group).expect("a group");
    let procs = fs::OpenOptions::new().write(true).open(group.join("cgroup.procs")).expect("its members");
    let mut inner = Command::new(std::env::current_exe().expect("this test"));
    inner.args(["--exact", "at_the_root_of_a_namespace_processes_make_room", "--nocapture"]).env(INNER, "1");
    // SAFETY: plain calls with C strings, in a child that has one thread.
    unsafe {
        inner.pre_exec(move || {
            let checked = |result| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
            rustix::io::write(&procs, b"0")?;
            checked(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP))?;
            let (none, place, kind) = (std::ptr::null(), c"/sys/fs/cgroup".as_ptr(), c"cgroup2".as_ptr());
            checked(libc::umount2(place, libc::MNT_DETACH))?;
            checked(libc::mount(kind, place, kind, 0, none))
        });
    }
    assert!(inner.status().expect("started").success());
    wait_until("its processes have ended", || fs::remove_dir(group.join("system")).is_ok());
    fs::remove_dir(group).expect("nothing is below it");
}
