//! Control groups: controllers, and what v2 adds.

use std::path::Path;

use super::{Row, Tried, optional, required};
use crate::kernel::cgroup;
use crate::launch::CGROUP_ROOT;

/// Controllers without which there is no container, and what for.
const NEEDED: [(&str, &str, &str); 3] = [
    ("cpu", "cgroup controller cpu", "CPU limits and weights"),
    ("memory", "cgroup controller memory", "memory limits and counters"),
    ("pids", "cgroup controller pids", "limits of processes"),
];
const MEND: &str = "mount cgroup2 at /sys/fs/cgroup with this controller (on Debian's ARM images boot with cgroup_enable=memory); a service needs Delegate=yes";

pub fn rows() -> Vec<Tried> {
    let root = Path::new(CGROUP_ROOT);
    let controller = |name: &str| cgroup::controller(root, name);
    let mut rows: Vec<Tried> =
        NEEDED.map(|(name, feature, needed_for)| (required(feature, needed_for, MEND), controller(name))).into();
    rows.push((
        required(
            "freezing cgroups",
            "freeze and thaw, ends of what is frozen",
            "cgroup v2, or the v1 controller freezer",
        ),
        cgroup::freezer(root),
    ));
    rows.push((optional("cgroup controller io", "limits of block devices", "no such limits"), controller("io")));
    rows.push((
        optional(
            "list of devices (v1 controller, or BPF program)",
            "keeping containers from device nodes that their image brings along",
            "nothing but the nodes' own modes and the user namespace, which refuses to make any",
        ),
        cgroup::device_list(root),
    ));
    rows.extend(v2(root));
    rows
}

/// Optional all of them: v1 has its own ways.
fn v2(root: &Path) -> Vec<Tried> {
    let row = |feature, needed_for, without| -> Row { optional(feature, needed_for, without) };
    vec![
        (
            row(
                "being created in a cgroup (CLONE_INTO_CGROUP)",
                "limits from the first moment on",
                "v1: the new process waits until it was moved",
            ),
            cgroup::clone_into(root),
        ),
        (
            row("cgroup.kill", "ending at once what a failed launch left", "processes are ended one by one"),
            cgroup::kill_file(root),
        ),
        (
            row(
                "quick moves between cgroups (favordynmods)",
                "starts and exec after idle time",
                "each costs 5 to 15 ms more after idle time (Linux 6.0 and later have it)",
            ),
            cgroup::quick::is_known(),
        ),
    ]
}
