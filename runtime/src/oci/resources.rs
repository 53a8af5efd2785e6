//! `linux.resources` as what is written to which control file, in both shapes that control groups have.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::OciError;
use crate::kernel::cgroup::devices::{self, ALLOWED, Kind, Rule};

/// One write; with one tree per controller, below that controller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Whose file.
    pub controller: &'static str,
    /// Its name.
    pub file: String,
    /// What is written.
    pub value: String,
}

/// Beside [`ALLOWED`] every container may do this, whatever its configuration denies: nodes of any number may be made, though not be opened.
const MAKING: [Rule; 2] = [Rule::make(Kind::Character), Rule::make(Kind::Block)];

struct Writes(Vec<Write>);

impl Writes {
    fn add(&mut self, controller: &'static str, file: impl Into<String>, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(Write { controller, file: file.into(), value: value.to_string() });
        }
    }
}

/// One tree per controller.
pub fn many_trees(resources: &LinuxResources) -> Result<Vec<Write>, OciError> {
    let mut all = Writes(Vec::new());
    if resources.unified().as_ref().is_some_and(|files| !files.is_empty()) {
        return Err(OciError::refused("linux.resources.unified", "this host has a tree per controller (cgroup v1)"));
    }
    if let Some(memory) = resources.memory() {
        memory_v1(&mut all, memory);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v1(&mut all, cpu);
    }
    all.add("pids", "pids.max", resources.pids().as_ref().map(|pids| or_max(pids.limit())));
    if let Some(io) = resources.block_io() {
        io_v1(&mut all, io);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.add("hugetlb", format!("hugetlb.{}.limit_in_bytes", limit.page_size()), Some(limit.limit()));
    }
    if let Some(network) = resources.network() {
        all.add("net_cls", "net_cls.classid", network.class_id());
        for priority in network.priorities().iter().flatten() {
            let line = format!("{} {}", priority.name(), priority.priority());
            all.add("net_prio", "net_prio.ifpriomap", Some(line));
        }
    }
    rdma(&mut all, resources);
    for rule in device_rules(resources)? {
        all.add("devices", if rule.allow { "devices.allow" } else { "devices.deny" }, Some(rule));
    }
    Ok(all.0)
}

/// One tree for all. Device rules are a program there, see [`super::cgroup`].
pub fn one_tree(resources: &LinuxResources) -> Result<Vec<Write>, OciError> {
    let mut all = Writes(Vec::new());
    if let Some(memory) = resources.memory() {
        memory_v2(&mut all, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_v2(&mut all, cpu);
    }
    all.add("pids", "pids.max", resources.pids().as_ref().map(|pids| or_max(pids.limit())));
    if let Some(io) = resources.block_io() {
        io_v2(&mut all, io);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.add("hugetlb", format!("hugetlb.{}.max", limit.page_size()), Some(limit.limit()));
    }
    if resources.network().as_ref().is_some_and(|network| network.class_id().is_some_and(|id| id != 0)) {
        return Err(OciError::refused(
            "linux.resources.network",
            "this host has one tree of cgroups (v2), which has no classes",
        ));
    }
    rdma(&mut all, resources);
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') {
            return Err(OciError::refused("linux.resources.unified", format!("{file:?} is no file of a cgroup")));
        }
        all.add("unified", file.clone(), Some(value));
    }
    Ok(all.0)
}

/// In their order, then what every container has; nothing where the configuration has no rules.
pub fn device_rules(resources: &LinuxResources) -> Result<Vec<Rule>, OciError> {
    let mut rules: Vec<Rule> =
        resources.devices().iter().flatten().map(device_rule).collect::<Result<_, OciError>>()?;
    if !rules.is_empty() {
        rules.extend(MAKING.iter().chain(&ALLOWED));
    }
    Ok(rules)
}

fn device_rule(rule: &LinuxDeviceCgroup) -> Result<Rule, OciError> {
    let refused = |reason: String| OciError::refused("linux.resources.devices", reason);
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => return Ok(Rule::all(rule.allow())),
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Character),
        LinuxDeviceType::P => return Err(refused("\"p\" is no type of a rule".to_owned())),
    };
    // A number below 0 stands for every one.
    let number = |given: Option<i64>| given.and_then(|number| u32::try_from(number).ok());
    let letters = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    let bit = |letter| match letter {
        'r' => Ok(devices::READ),
        'w' => Ok(devices::WRITE),
        'm' => Ok(devices::MAKE),
        other => Err(refused(format!("{other:?} is no access: it is made of r, w and m"))),
    };
    let access = letters.chars().map(bit).try_fold(0, |all, bit| bit.map(|bit| all | bit))?;
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major()), minor: number(rule.minor()), access })
}

/// What stands for "no limit" in files of processes.
fn or_max(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { "max".to_owned() }
}

fn memory_v1(all: &mut Writes, memory: &LinuxMemory) {
    all.add("memory", "memory.limit_in_bytes", memory.limit());
    // After the limit, which it includes.
    all.add("memory", "memory.memsw.limit_in_bytes", memory.swap().filter(|swap| *swap != 0));
    all.add("memory", "memory.soft_limit_in_bytes", memory.reservation().filter(|bytes| *bytes != 0));
    all.add("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp().filter(|bytes| *bytes > 0));
    all.add("memory", "memory.swappiness", memory.swappiness());
    all.add("memory", "memory.oom_control", memory.disable_oom_killer().filter(|off| *off).map(|_| 1));
}

fn memory_v2(all: &mut Writes, memory: &LinuxMemory) -> Result<(), OciError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    all.add("memory", "memory.max", limit.map(or_max));
    // The specification's number includes memory, the kernel's does not.
    let swap = match (memory.swap().filter(|swap| *swap != 0), limit) {
        (Some(-1), _) => Some("max".to_owned()),
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => Some((swap - limit).to_string()),
        (Some(_), _) => {
            return Err(OciError::refused(
                "linux.resources.memory.swap",
                "includes memory: it needs a limit that is not larger",
            ));
        }
        (None, _) => None,
    };
    all.add("memory", "memory.swap.max", swap);
    all.add("memory", "memory.low", memory.reservation().filter(|bytes| *bytes != 0).map(or_max));
    Ok(())
}

fn cpu_v1(all: &mut Writes, cpu: &LinuxCpu) {
    all.add("cpu", "cpu.shares", cpu.shares().filter(|shares| *shares != 0));
    all.add("cpu", "cpu.cfs_period_us", cpu.period().filter(|period| *period != 0));
    all.add("cpu", "cpu.cfs_quota_us", cpu.quota().filter(|quota| *quota != 0));
    all.add("cpu", "cpu.cfs_burst_us", cpu.burst());
    all.add("cpu", "cpu.rt_period_us", cpu.realtime_period().filter(|period| *period != 0));
    all.add("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime().filter(|runtime| *runtime != 0));
    all.add("cpu", "cpu.idle", cpu.idle());
    cpus(all, cpu);
}

fn cpu_v2(all: &mut Writes, cpu: &LinuxCpu) {
    all.add("cpu", "cpu.weight", cpu.shares().filter(|shares| *shares != 0).map(weight));
    if cpu.quota().is_some() || cpu.period().is_some() {
        let quota = cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        all.add("cpu", "cpu.max", Some(format!("{quota} {}", cpu.period().filter(|p| *p != 0).unwrap_or(100_000))));
    }
    all.add("cpu", "cpu.max.burst", cpu.burst());
    all.add("cpu", "cpu.idle", cpu.idle());
    cpus(all, cpu);
}

fn cpus(all: &mut Writes, cpu: &LinuxCpu) {
    all.add("cpuset", "cpuset.cpus", cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()));
    all.add("cpuset", "cpuset.mems", cpu.mems().as_ref().filter(|mems| !mems.is_empty()));
}

/// Shares from 2 to 262,144 as a weight from 1 to 10,000, as the field converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn throttles(io: &LinuxBlockIo) -> [(&'static str, &'static str, &Option<Vec<LinuxThrottleDevice>>); 4] {
    [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
}

fn io_v1(all: &mut Writes, io: &LinuxBlockIo) {
    all.add("blkio", "blkio.weight", io.weight().filter(|weight| *weight != 0));
    for device in io.weight_device().iter().flatten() {
        let line = device.weight().map(|weight| format!("{}:{} {weight}", device.major(), device.minor()));
        all.add("blkio", "blkio.weight_device", line);
    }
    for (file, _, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            all.add("blkio", file, Some(format!("{}:{} {}", device.major(), device.minor(), device.rate())));
        }
    }
}

fn io_v2(all: &mut Writes, io: &LinuxBlockIo) {
    all.add("io", "io.weight", io.weight().filter(|weight| *weight != 0).map(|weight| weight.max(1)));
    for device in io.weight_device().iter().flatten() {
        let line = device.weight().map(|weight| format!("{}:{} {weight}", device.major(), device.minor()));
        all.add("io", "io.weight", line);
    }
    for (_, key, devices) in throttles(io) {
        for device in devices.iter().flatten() {
            all.add("io", "io.max", Some(format!("{}:{} {key}={}", device.major(), device.minor(), device.rate())));
        }
    }
}

fn rdma(all: &mut Writes, resources: &LinuxResources) {
    for (device, limit) in resources.rdma().iter().flatten() {
        let handles = limit.hca_handles().map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limit.hca_objects().map(|n| format!(" hca_object={n}")).unwrap_or_default();
        all.add("rdma", "rdma.max", Some(format!("{device}{handles}{objects}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resources(value: Value) -> LinuxResources {
        serde_json::from_value(value).expect("resources")
    }

    fn said(writes: Result<Vec<Write>, OciError>) -> Vec<String> {
        let line = |write: Write| format!("{} {}={}", write.controller, write.file, write.value);
        writes.expect("writes").into_iter().map(line).collect()
    }

    #[test]
    fn one_section_in_both_shapes() {
        let section = || {
            resources(json!({
                "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
                "cpu": {"shares": 1024, "quota": 20000, "period": 100000, "cpus": "0-1"},
                "pids": {"limit": 0},
                "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 9}]
            }))
        };
        assert_eq!(
            said(many_trees(&section())),
            [
                "memory memory.limit_in_bytes=1000",
                "memory memory.memsw.limit_in_bytes=1500",
                "memory memory.soft_limit_in_bytes=500",
                "cpu cpu.shares=1024",
                "cpu cpu.cfs_period_us=100000",
                "cpu cpu.cfs_quota_us=20000",
                "cpuset cpuset.cpus=0-1",
                "pids pids.max=max",
                "blkio blkio.weight=10",
                "blkio blkio.throttle.read_bps_device=8:0 600",
                "hugetlb hugetlb.2MB.limit_in_bytes=9",
            ]
        );
        assert_eq!(
            said(one_tree(&section())),
            [
                "memory memory.max=1000",
                "memory memory.swap.max=500",
                "memory memory.low=500",
                "cpu cpu.weight=39",
                "cpu cpu.max=20000 100000",
                "cpuset cpuset.cpus=0-1",
                "pids pids.max=max",
                "io io.weight=10",
                "io io.max=8:0 rbps=600",
                "hugetlb hugetlb.2MB.max=9",
            ]
        );
    }

    #[test]
    fn device_rules_keep_their_order_and_end_with_what_everybody_has() {
        let rules = resources(json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 8}
        ]}));
        let writes = said(many_trees(&rules));
        assert_eq!(writes[0], "devices devices.deny=a");
        assert_eq!(writes[1], "devices devices.allow=c 10:229 rw");
        assert_eq!(writes[2], "devices devices.allow=b 8:* rwm");
        assert_eq!(writes[3], "devices devices.allow=c *:* m");
        assert_eq!(writes.len(), 3 + MAKING.len() + ALLOWED.len());
        assert_eq!(device_rules(&resources(json!({}))).expect("no rules"), []);
    }

    #[test]
    fn what_is_no_device_rule_is_refused() {
        for rule in [json!({"allow": true, "type": "p"}), json!({"allow": true, "type": "c", "access": "rx"})] {
            assert!(device_rules(&resources(json!({"devices": [rule]}))).is_err(), "{rule}");
        }
    }

    #[test]
    fn what_a_shape_does_not_have_is_refused() {
        assert!(many_trees(&resources(json!({"unified": {"memory.high": "1"}}))).is_err());
        assert!(one_tree(&resources(json!({"unified": {"../x": "1"}}))).is_err());
        assert!(one_tree(&resources(json!({"memory": {"swap": 5}}))).is_err());
    }
}
