//! Both shapes against directories that look like theirs: which files are written, with what.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

struct Fake(TempDir);

impl Fake {
    fn new(name: &str) -> Self {
        let prefix = format!("bellows-cgroup-{name}-");
        Self(tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory"))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.root().join(file);
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("directories");
        fs::write(path, text).expect("a file");
    }

    fn says(&self, file: &str) -> String {
        fs::read_to_string(self.root().join(file)).expect(file)
    }
}

fn v2() -> Fake {
    let fake = Fake::new("v2");
    fake.put("cgroup.controllers", "cpuset cpu io memory pids\n");
    for dir in ["", "bellows/", "bellows/n1/"] {
        fake.put(&format!("{dir}cgroup.controllers"), "cpuset cpu io memory pids\n");
        fake.put(&format!("{dir}cgroup.subtree_control"), "");
    }
    for file in ["pids.max", "cpu.max", "cpu.weight", "memory.max", "cgroup.freeze"] {
        fake.put(&format!("bellows/n1/s3/{file}"), "");
        fake.put(&format!("bellows/n1/{file}"), "");
    }
    fake.put("bellows/n1/memory.current", "10000\n");
    fake.put("bellows/n1/memory.stat", "anon 5000\ninactive_file 4000\nactive_file 1000\n");
    fake.put("bellows/n1/s3/memory.current", "4096\n");
    fake.put("bellows/n1/s3/memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n");
    fake.put("bellows/n1/s3/memory.reclaim", "");
    fake.put("bellows/n1/s3/memory.peak", "9000\n");
    fake.put("bellows/n1/s3/pids.current", "5\n");
    fake.put("bellows/n1/s3/cpu.stat", "usage_usec 123\nuser_usec 100\n");
    fake.put("bellows/n1/s3/cgroup.events", "populated 1\nfrozen 0\n");
    fake.put("bellows/n1/s3/cgroup.procs", "10\n0\n11\n");
    fake
}

#[test]
fn v2_writes_and_reads_its_files() {
    let fake = v2();
    let capacity = Capacity { cpu_milli: 2000, memory_bytes: 1 << 30 };
    let cgroups = Cgroups::prepare(fake.root(), "bellows/n1", Some(capacity), None).expect("prepared");
    assert_eq!(controller(fake.root(), "io").expect("found"), "v2");
    assert!(controller(fake.root(), "rdma").expect_err("not among them").to_string().contains("cpuset"));
    assert_eq!(fake.says("bellows/cgroup.subtree_control"), "+cpu +memory +pids +io");
    assert_eq!(fake.says("bellows/n1/cpu.max"), "200000 100000");
    assert_eq!(fake.says("bellows/n1/memory.max"), "1073741824");
    assert_eq!(cgroups.names().expect("names"), ["s3"]);
    assert_eq!(cgroups.memory_bytes().expect("memory"), 6000, "without what nobody uses");
    let mut group = cgroups.group("s3").expect("a group");
    let limits = Limits { cpu_milli: 250, memory_bytes: 65_536, processes: 9, ..Limits::default() };
    group.limit(&limits).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "25000 100000");
    assert_eq!(fake.says("bellows/n1/s3/cpu.weight"), "25");
    fake.put("bellows/n1/s3/memory.max", "");
    group.limit_for_start(&limits).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "100000 100000", "a start is not held up");
    fake.put("bellows/n1/s3/cpu.max", "");
    group.limit(&limits).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "25000 100000");
    assert_eq!(fake.says("bellows/n1/s3/memory.max"), "", "what stands is not written again");
    group.forgive_cpu().expect("written again");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "25000 100000");
    fake.put("bellows/n1/s3/cpu.max", "");
    group.unbind_cpu().expect("written");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "max");
    fake.put("bellows/n1/s3/cpu.max", "");
    group.limit(&limits).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "25000 100000", "written again though they are the same");
    fake.put("bellows/n1/s3/cpu.max", "");
    group.limit(&limits).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "", "not written again: they stand");
    assert_eq!(fake.says("bellows/n1/s3/memory.max"), "", "and so did the others all the while");
    assert_eq!(fake.says("bellows/n1/s3/pids.max"), "9");
    let read = (group.cpu_us(), group.memory_bytes(), group.processes(), group.oom_kills());
    assert!(matches!(read, (Ok(123), Ok(4096), Ok(5), Ok(2))), "{read:?}");
    assert_eq!(group.pids().expect("pids"), [10, 11]);
    fake.put("bellows/n1/s3/cgroup.events", "populated 1\nfrozen 1\n");
    group.freeze(true).expect("frozen");
    assert_eq!(fake.says("bellows/n1/s3/cgroup.freeze"), "1");
    assert!(group.is_frozen().expect("readable"));
    group.reclaim().and_then(|reclaim| reclaim.perform()).expect("asked");
    assert_eq!(fake.says("bellows/n1/s3/memory.reclaim"), "4096", "all that is charged");
    assert_eq!(group.memory_peak_bytes(), Some(9000));
    group.forget_peak();
    assert!(fake.says("bellows/n1/s3/memory.peak").starts_with('0'));
    group.close_spare();
    assert!(matches!(group.joining(), Ok(Joining::Into(_))), "opened again");
}

#[test]
fn what_cannot_be_stopped_goes_on_and_whoever_comes_next_is_not_stopped() {
    let fake = v2();
    let cgroups = Cgroups::prepare(fake.root(), "bellows/n1", None, None).expect("prepared");
    let group = cgroups.group("s3").expect("a group");
    let error = group.freeze(true).expect_err("somebody inside is held up");
    assert!(matches!(&error, CgroupError::Unmoved { path, .. } if path.ends_with("cgroup.events")), "{error}");
    assert_eq!(fake.says("bellows/n1/s3/cgroup.freeze"), "0");

    fake.put("bellows/n1/s3/cgroup.events", "populated 1\nfrozen 1\n");
    group.freeze(true).expect("frozen");
    fake.put("bellows/n1/s3/cgroup.events", "populated 0\nfrozen 0\n");
    group.limit_for_start(&Limits::default()).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cgroup.freeze"), "0");
    fake.put("bellows/n1/s3/cgroup.freeze", "");
    group.limit_for_start(&Limits::default()).expect("limits");
    assert_eq!(fake.says("bellows/n1/s3/cgroup.freeze"), "", "it is known to go on");
}

#[test]
fn what_was_unbound_begins_without_a_write() {
    let fake = v2();
    let cgroups = Cgroups::prepare(fake.root(), "bellows/n1", None, None).expect("prepared");
    let group = cgroups.group("s3").expect("a group");
    let limits = Limits { cpu_milli: 250, memory_bytes: 65_536, processes: 9, ..Limits::default() };
    group.limit(&limits).expect("written");
    fake.put("bellows/n1/s3/cpu.max", "");
    group.unbind_cpu().expect("written");
    group.limit_for_start(&limits).expect("nothing to do");
    assert_eq!(fake.says("bellows/n1/s3/cpu.max"), "max");
    let next = Limits { processes: 7, cpu_weight: 300, ..limits };
    group.limit_for_start(&next).expect("written");
    assert_eq!((fake.says("bellows/n1/s3/cpu.max"), fake.says("bellows/n1/s3/pids.max")), ("max".into(), "7".into()));
    group.limit(&next).expect("written");
    let cpu = (fake.says("bellows/n1/s3/cpu.max"), fake.says("bellows/n1/s3/cpu.weight"));
    assert_eq!(cpu, ("25000 100000".into(), "300".into()));
}

#[test]
fn v1_finds_controllers_mounted_together() {
    let fake = Fake::new("v1");
    for (tree, files) in [
        ("cpu,cpuacct", &["cpu.cfs_quota_us", "cpu.shares", "cpuacct.usage"][..]),
        (
            "memory",
            &[
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.oom_control",
                "memory.force_empty",
                "memory.max_usage_in_bytes",
            ],
        ),
        ("pids", &["pids.max", "pids.current"]),
        ("freezer", &["freezer.state"]),
    ] {
        fake.put(&format!("{tree}/cgroup.procs"), "");
        for file in files.iter().chain(&["cgroup.procs"]) {
            fake.put(&format!("{tree}/n/s1/{file}"), "");
        }
    }
    fake.put("memory/n/s1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
    fake.put("cpu,cpuacct/n/s1/cpuacct.usage", "5000000\n");
    fake.put("memory/n/memory.usage_in_bytes", "10000\n");
    fake.put("memory/n/memory.stat", "inactive_file 1\ntotal_inactive_file 4000\n");
    let cgroups = Cgroups::prepare(fake.root(), "n", None, None).expect("prepared");
    fake.put("freezer/n/s7/freezer.state", "");
    assert_eq!(cgroups.names().expect("names"), ["s1", "s7"], "also who is in one tree only");
    assert_eq!(cgroups.memory_bytes().expect("memory"), 6000, "without what nobody uses, here and below");
    assert_eq!(freezer(fake.root()).expect("found"), "v1");
    assert!(device_list(fake.root()).is_err() && controller(fake.root(), "io").is_err());
    let mut group = cgroups.group("s1").expect("a group");
    group.limit(&Limits { cpu_milli: 500, ..Limits::default() }).expect("limits");
    assert_eq!(fake.says("cpu,cpuacct/n/s1/cpu.cfs_quota_us"), "50000");
    assert_eq!(fake.says("cpu,cpuacct/n/s1/cpu.shares"), "512");
    assert!(matches!(group.oom_kills(), Ok(4)));
    assert!(matches!(group.cpu_us(), Ok(5000)));
    group.reclaim().and_then(|reclaim| reclaim.perform()).expect("asked");
    group.forget_peak();
    assert_eq!(
        [fake.says("memory/n/s1/memory.force_empty"), fake.says("memory/n/s1/memory.max_usage_in_bytes")],
        ["0", "0"]
    );
    let ways = |group: &Group| match group.joining()? {
        Joining::Write(files) => Ok::<_, CgroupError>(files.len()),
        Joining::Into(_) => panic!("v1 has no CLONE_INTO_CGROUP"),
    };
    assert!(matches!(ways(&group), Ok(4)), "one per tree, not per controller");
    fs::remove_file(fake.root().join("pids/n/s1/cgroup.procs")).expect("there");
    assert!(matches!(ways(&group), Ok(4)), "they are open");
    group.close_spare();
    let said = ways(&group).expect_err("there is nothing to open").to_string();
    assert!(said.contains("pids/n/s1/cgroup.procs"), "{said}");
    fake.put("pids/n/s1/cgroup.procs", "");
    assert!(matches!(ways(&group), Ok(4)), "opened again");
}

#[test]
fn nothing_mounted_is_an_error_that_names_the_place() {
    let fake = Fake::new("none");
    let said = Cgroups::prepare(fake.root(), "n", None, None).expect_err("no controllers").to_string();
    assert!(said.contains(&fake.root().display().to_string()), "{said}");
    assert!(fake.root().exists());
}
