//! What a later runtime does with containers that it must not, or cannot, take over as they are: it says so, and they run on.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bellows_runtime::handle::{Adopted, Exit};
use bellows_runtime::{Runtime, RuntimeConfig};
use support::{Place, is_running, place};

/// A container whose runtime is gone, and its init.
fn orphan(place: &Place) -> u32 {
    let runtime = place.start();
    runtime.launch(&place.spec("stays", &["/bin/payload", "sleep"])).expect("launched").pid
}

/// Adopts it, ends it, and nothing is left.
fn end(place: &Place, pid: u32) {
    let runtime = place.start();
    match &runtime.adopt().expect("adopted")[..] {
        [Adopted::Alive(running)] => assert_eq!(running.pid, pid),
        other => panic!("{other:?}"),
    }
    let id = place.spec("stays", &[]).id;
    assert_eq!(runtime.usage(&id).expect("measured").processes, 2);
    runtime.kill(&id).expect("killed");
    assert_eq!(runtime.reap(&id).expect("reaped").exit, Exit::Signal(9));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// The only record that is somebody's.
fn record(place: &Place) -> PathBuf {
    let folders = fs::read_dir(place.config().state.join("containers")).expect("folders");
    let mut records = folders.map(|folder| folder.expect("a folder").path().join("record"));
    records.find(|record| fs::read(record).is_ok_and(|bytes| bytes.starts_with(b"bellows"))).expect("a record")
}

#[test]
fn a_record_of_another_version_is_refused_and_its_container_runs_on() {
    let Some(place) = place() else { return };
    let pid = orphan(&place);
    let record = record(&place);
    let file = fs::File::options().write(true).open(&record).expect("writable");
    let groups = place.groups();
    for version in ["4", "2"] {
        file.write_all_at(version.as_bytes(), 7).expect("written");
        let before = fs::read(&record).expect("readable");
        let said = Runtime::start(place.config().clone()).expect_err("it is of another version").to_string();
        let path = record.display().to_string();
        assert!(
            said.contains(&path) && said.contains(&format!("version {version}, and this program knows 3")),
            "{said}"
        );
        assert!(is_running(pid), "it was not ended");
        assert_eq!((fs::read(&record).expect("readable"), place.groups()), (before, groups.clone()), "nothing changed");
    }
    file.write_all_at(b"3", 7).expect("written");
    end(&place, pid);
}

#[test]
fn a_container_in_other_cgroups_is_refused_by_name_and_runs_on() {
    let Some(place) = place() else { return };
    let pid = orphan(&place);
    let other = place.config().cgroup_parent.replace("/node", "/other");
    let config = RuntimeConfig { cgroup_parent: other.clone(), ..place.config().clone() };
    let said = Runtime::start(config).expect_err("it is elsewhere").to_string();
    let found = format!("{}/s", place.config().cgroup_parent);
    for part in ["container stays", &found, &other, "--cgroup", &pid.to_string()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(is_running(pid), "it was not ended");
    end(&place, pid);
}
