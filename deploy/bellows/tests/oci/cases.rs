//! The validation cases of the specification, as data.

use serde_json::{Value, json};

/// One configuration and what must be seen in it.
pub struct Case {
    /// File and section of the specification.
    pub section: &'static str,
    /// What is claimed.
    pub name: &'static str,
    /// Of a configuration like the one that `spec` writes.
    pub change: fn(&mut Value),
    /// By a shell in the container.
    pub script: &'static str,
    /// What it prints, or `refused: ` and what the runtime says.
    pub want: &'static str,
}

const fn case(
    section: &'static str,
    name: &'static str,
    change: fn(&mut Value),
    script: &'static str,
    want: &'static str,
) -> Case {
    Case { section, name, change, script, want }
}

fn push(list: &mut Value, more: Value) {
    list.as_array_mut().expect("a list").push(more);
}

fn mount(config: &mut Value, at: &str, kind: &str, source: &str, options: &[&str]) {
    push(&mut config["mounts"], json!({"destination": at, "type": kind, "source": source, "options": options}));
}

fn namespaces(config: &mut Value, without: &str) {
    config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|named| named["type"] != without);
}

/// A namespace of this test's own process.
fn own(kind: &str) -> String {
    format!("/proc/{}/ns/{kind}", std::process::id())
}

fn user_namespace(config: &mut Value) {
    push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

fn seccomp(config: &mut Value, rules: Value) {
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
}

/// Sections first, in the specification's order.
pub const CASES: &[Case] = &[
    case(
        "config: Specification version",
        "another major version is refused",
        |c| c["ociVersion"] = json!("2.0.0"),
        "",
        "refused: ociVersion",
    ),
    case("config: Root", "a writable root", |c| c["root"]["readonly"] = json!(false), "touch /x && echo made", "made"),
    case("config: Root", "a read-only root", |_| {}, "touch /x 2>/dev/null || echo read-only", "read-only"),
    case(
        "config: Mounts",
        "mounts are made in their order",
        |c| {
            mount(c, "/a", "tmpfs", "first", &[]);
            mount(c, "/a", "tmpfs", "second", &[]);
        },
        "grep ' /a ' /proc/mounts | cut -d' ' -f1 | tail -n1",
        "second",
    ),
    case(
        "config: Mounts",
        "options of the kernel and of the file system",
        |c| mount(c, "/a", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=700", "size=64k"]),
        // Some kernels say of each tmpfs how wide its inode numbers are.
        "grep ' /a ' /proc/mounts | cut -d' ' -f4 | sed s/,inode64//; stat -c %a /a",
        "rw,nosuid,noexec,relatime,size=64k,mode=700\n700",
    ),
    case(
        "config: Mounts",
        "a bind mount, read-only",
        |c| mount(c, "/a", "bind", "rootfs/etc", &["bind", "ro"]),
        "touch /a/x 2>/dev/null || echo read-only; grep -c ' /a ' /proc/mounts",
        "read-only\n1",
    ),
    case(
        "config: Mounts",
        "a file as a bind mount",
        |c| mount(c, "/tmp/file", "bind", "config.json", &["rbind"]),
        "head -c 1 /tmp/file",
        "{",
    ),
    case(
        "config: Mounts",
        "flags for everything below a bind mount",
        |c| mount(c, "/a", "bind", "/proc/self", &["rbind", "rro", "rnosuid"]),
        "grep ' /a ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1-2",
        "ro,nosuid",
    ),
    case(
        "config: Mounts",
        "a tmpfs that begins with the image's files",
        |c| mount(c, "/bin2", "tmpfs", "tmpfs", &["tmpcopyup"]),
        "ls /bin2 | head -n1; grep -c ' /bin2 tmpfs' /proc/mounts",
        "1",
    ),
    case(
        "config: Mounts",
        "a destination through a link stays inside",
        |c| {
            mount(c, "/etc", "tmpfs", "tmpfs", &[]);
            mount(c, "/proc/self/root/../../../tmp/inner", "tmpfs", "inner", &[]);
        },
        "grep -c ^inner /proc/mounts",
        "1",
    ),
    case(
        "config: Process",
        "arguments and environment, exactly",
        |c| c["process"]["env"] = json!(["A=1", "B=x y"]),
        "cat /proc/1/environ | tr '\\0' '\\n'",
        "A=1\nB=x y",
    ),
    case("config: Process", "the working directory", |c| c["process"]["cwd"] = json!("/etc"), "pwd", "/etc"),
    case("config: Process", "no program is refused", |c| c["process"]["args"] = json!([]), "", "refused: process.args"),
    case(
        "config: Process",
        "a program that is not there is refused",
        |c| c["process"]["args"] = json!(["/no/such"]),
        "",
        "refused: executable file not found",
    ),
    case(
        "config: POSIX process (rlimits)",
        "soft and hard limits",
        |c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 7, "hard": 9}, {"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}]);
        },
        "grep -E 'core|open files' /proc/self/limits | tr -s ' ' | sed -E 's/[^0-9]*([0-9]+) ([0-9]+).*/\\1 \\2/'",
        "7 9\n33 44",
    ),
    case(
        "config: POSIX process (rlimits)",
        "a limit given twice is refused",
        |c| {
            c["process"]["rlimits"] =
                json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_CORE", "soft": 2, "hard": 2}]);
        },
        "",
        "refused: RLIMIT_CORE is given twice",
    ),
    case(
        "config: Linux process (capabilities)",
        "all five sets",
        |c| {
            c["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
            c["process"]["user"] = json!({"uid": 5, "gid": 5});
        },
        "grep ^Cap /proc/self/status | tr -s '\\t' ' '",
        "CapInh: 0000000000000001\nCapPrm: 0000000000000001\nCapEff: 0000000000000001\nCapBnd: 00000000000000a1\nCapAmb: 0000000000000001",
    ),
    case(
        "config: Linux process (capabilities)",
        "none of a process that names none",
        |c| {
            c["process"].as_object_mut().expect("an object").remove("capabilities");
        },
        "grep -E '^Cap(Eff|Bnd)' /proc/self/status | tr -s '\\t' ' '",
        "CapEff: 0000000000000000\nCapBnd: 0000000000000000",
    ),
    case(
        "config: Linux process (noNewPrivileges)",
        "set",
        |_| {},
        "grep ^NoNewPrivs /proc/self/status | tr -s '\\t' ' '",
        "NoNewPrivs: 1",
    ),
    case(
        "config: Linux process (noNewPrivileges)",
        "not set",
        |c| c["process"]["noNewPrivileges"] = json!(false),
        "grep ^NoNewPrivs /proc/self/status | tr -s '\\t' ' '",
        "NoNewPrivs: 0",
    ),
    case(
        "config: Linux process (oomScoreAdj)",
        "written before the program runs",
        |c| c["process"]["oomScoreAdj"] = json!(321),
        "cat /proc/1/oom_score_adj",
        "321",
    ),
    case(
        "config: Linux process (apparmorProfile)",
        "what is not done is refused",
        |c| c["process"]["apparmorProfile"] = json!("x"),
        "",
        "refused: AppArmor",
    ),
    case(
        "config: Linux process (ioPriority)",
        "a class is taken",
        |c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
        "echo runs",
        "runs",
    ),
    case(
        "config: POSIX-platform user",
        "user, group, additional groups",
        |c| {
            c["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]});
        },
        "id -u; id -g; grep ^Groups /proc/self/status | tr -s '\\t' ' '",
        "5\n6\nGroups: 7 8",
    ),
    case(
        "config: POSIX-platform user",
        "umask",
        |c| {
            c["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o077});
            c["root"]["readonly"] = json!(false);
        },
        "umask; touch /tmp/umasked && stat -c %a /tmp/umasked",
        "0077\n600",
    ),
    case("config: Hostname", "is the container's", |c| c["hostname"] = json!("inside"), "hostname", "inside"),
    case(
        "config: Hostname",
        "without a uts namespace is refused",
        |c| namespaces(c, "uts"),
        "",
        "refused: uts namespace",
    ),
    case(
        "config: Domainname",
        "is the container's",
        |c| c["domainname"] = json!("example"),
        "cat /proc/sys/kernel/domainname",
        "example",
    ),
    case(
        "config-linux: Default filesystems",
        "types of /proc, /sys, /dev/pts, /dev/shm",
        |_| {},
        "grep -E ' (/proc|/sys|/dev/pts|/dev/shm) ' /proc/mounts | cut -d' ' -f2,3",
        "/proc proc\n/dev/pts devpts\n/dev/shm tmpfs\n/sys sysfs",
    ),
    case("config-linux: Namespaces", "its first process is number 1", |_| {}, "echo $$", "1"),
    case(
        "config-linux: Namespaces",
        "a kind that is not named is the host's",
        |c| {
            namespaces(c, "network");
            mount(c, "/tmp/ns", "bind", &own("net"), &["bind"]);
        },
        "test net:[$(stat -c %i /tmp/ns)] = $(readlink /proc/self/ns/net) && echo same",
        "same",
    ),
    case(
        "config-linux: Namespaces",
        "a kind given by path is that one",
        |c| {
            namespaces(c, "ipc");
            push(&mut c["linux"]["namespaces"], json!({"type": "ipc", "path": own("ipc")}));
            mount(c, "/tmp/ns", "bind", &own("ipc"), &["bind"]);
        },
        "test ipc:[$(stat -c %i /tmp/ns)] = $(readlink /proc/self/ns/ipc) && echo same",
        "same",
    ),
    case(
        "config-linux: Namespaces",
        "a path of another kind is refused",
        |c| {
            namespaces(c, "ipc");
            push(&mut c["linux"]["namespaces"], json!({"type": "ipc", "path": own("net")}));
        },
        "",
        "refused: enter a namespace",
    ),
    case(
        "config-linux: Namespaces",
        "a kind named twice is refused",
        |c| push(&mut c["linux"]["namespaces"], json!({"type": "pid"})),
        "",
        "refused: named twice",
    ),
    case(
        "config-linux: User namespace mappings",
        "ids inside and outside",
        user_namespace,
        "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '",
        "0\n 0 1000000 65536\n 0 1000000 65536",
    ),
    case(
        "config-linux: User namespace mappings",
        "devices and mounts work in one",
        user_namespace,
        "echo x > /dev/null && stat -c %t:%T /dev/null && grep -c ' /dev/mqueue ' /proc/mounts",
        "1:3\n1",
    ),
    case(
        "config-linux: User namespace mappings",
        "are needed by a new one",
        |c| push(&mut c["linux"]["namespaces"], json!({"type": "user"})),
        "",
        "refused: uidMappings",
    ),
    case(
        "config-linux: Devices",
        "a node with its mode and owner",
        |c| {
            c["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6}]);
        },
        "stat -c '%t:%T %a %u %g' /dev/mine",
        "1:3 640 5 6",
    ),
    case(
        "config-linux: Default Devices",
        "all of them",
        |_| {},
        "cd /dev && stat -c '%n %t:%T' null zero full random urandom tty; for link in ptmx fd stdin stdout stderr; do readlink $link; done",
        "null 1:3\nzero 1:5\nfull 1:7\nrandom 1:8\nurandom 1:9\ntty 5:0\npts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2",
    ),
    case(
        "config-linux: Control groups",
        "a limit of memory",
        |c| c["linux"]["resources"]["memory"] = json!({"limit": 67_108_864}),
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
        "67108864",
    ),
    case(
        "config-linux: Control groups",
        "a limit of processes",
        |c| c["linux"]["resources"]["pids"] = json!({"limit": 17}),
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max",
        "17",
    ),
    case(
        "config-linux: Control groups",
        "CPU quota and period",
        |c| c["linux"]["resources"]["cpu"] = json!({"quota": 20000, "period": 50000}),
        "if test -e /sys/fs/cgroup/cpu; then cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us | tr '\\n' ' '; else cat /sys/fs/cgroup/cpu.max; fi",
        "20000 50000",
    ),
    case(
        "config-linux: Control groups",
        "a path for systemd is refused",
        |c| c["linux"]["cgroupsPath"] = json!("a.slice:b:c"),
        "",
        "refused: systemd",
    ),
    case(
        "config-linux: Allowed Device list",
        "what is not allowed is refused",
        |c| {
            c["linux"]["devices"] = json!([{"path": "/dev/disk", "type": "b", "major": 7, "minor": 0}]);
        },
        "dd if=/dev/disk of=/dev/null count=1 2>&1 | grep -o 'Operation not permitted'",
        "Operation not permitted",
    ),
    case(
        "config-linux: Sysctl",
        "of the container's own namespaces",
        |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
        },
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced",
        "1\n1",
    ),
    case(
        "config-linux: Sysctl",
        "of the whole machine are refused",
        |c| c["linux"]["sysctl"] = json!({"kernel.panic": "1"}),
        "",
        "refused: whole machine",
    ),
    case(
        "config-linux: Seccomp",
        "a call is answered with the errno",
        |c| {
            seccomp(c, json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]));
        },
        "/bin/busybox pwd 2>&1 | grep -o 'Function not implemented'; grep ^Seccomp: /proc/self/status | tr -s '\\t' ' '",
        "Function not implemented\nSeccomp: 2",
    ),
    case(
        "config-linux: Seccomp",
        "an argument decides",
        |c| {
            seccomp(
                c,
                json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
            "args": [{"index": 1, "value": 28, "op": "SCMP_CMP_EQ"}]}]),
            );
        },
        "kill -0 $$ && echo zero; kill -WINCH $$ 2>/dev/null || echo refused",
        "zero\nrefused",
    ),
    case(
        "config-linux: Seccomp",
        "without no_new_privs as well",
        |c| {
            c["process"]["noNewPrivileges"] = json!(false);
            seccomp(c, json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]));
        },
        "grep ^Seccomp: /proc/self/status | tr -s '\\t' ' '",
        "Seccomp: 2",
    ),
    case(
        "config-linux: Rootfs Mount Propagation",
        "slave by default takes nothing out",
        |_| {},
        "grep -c ' / / .*shared' /proc/self/mountinfo",
        "0",
    ),
    case(
        "config-linux: Rootfs Mount Propagation",
        "shared",
        |c| c["linux"]["rootfsPropagation"] = json!("shared"),
        "grep -E '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ' /proc/self/mountinfo | grep -o shared",
        "shared",
    ),
    case(
        "config-linux: Masked Paths",
        "files and directories show nothing",
        |c| c["linux"]["maskedPaths"] = json!(["/proc/keys", "/sys/kernel", "/no/such"]),
        "cat /proc/keys; ls /sys/kernel; echo end",
        "end",
    ),
    case(
        "config-linux: Readonly Paths",
        "are",
        |c| {
            c["root"]["readonly"] = json!(false);
            c["linux"]["readonlyPaths"] = json!(["/etc", "/no/such"]);
        },
        "touch /etc/x 2>/dev/null || echo read-only",
        "read-only",
    ),
    case(
        "config-linux: Personality",
        "32 bit",
        |c| c["linux"]["personality"] = json!({"domain": "LINUX32"}),
        "cat /proc/self/personality",
        "00000008",
    ),
];
