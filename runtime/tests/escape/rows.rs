//! The table: what is tried, what it meets with, what stands against it.

use bellows_runtime::ContainerSpec;
use bellows_runtime::launch::Weaken;
use libc::{EACCES, EINVAL, ENOENT, ENOSYS, EPERM, ESRCH, SIGSYS};

use Control::{InMachine, Outside, Without};
use Seen::{Killed, NotStarted, Nothing, Refused};
use Weaken::{
    Capabilities, CgroupNamespace, Descriptors, Devices, Filter, Hidden, NoNewPrivileges, Pivot, Places, ReadOnly,
    UserNamespace,
};

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It got what it wanted.
    Got,
    /// The kernel refused it.
    Refused(i32),
    /// Nobody refused it, and there was nothing to be had.
    Nothing,
    /// A signal ended it.
    Killed(i32),
    /// It took more than its share of memory.
    OutOfMemory,
    /// The container was not even started.
    NotStarted(i32),
}

/// Where the same try succeeds.
#[derive(Debug, Clone, Copy)]
pub enum Control {
    /// In a container that lacks these, and only these.
    Without(&'static [Weaken]),
    /// The same, where no harm can be done.
    InMachine(&'static [Weaken]),
    /// On this machine, outside of any container.
    Outside,
}

/// One try.
#[derive(Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    /// For the program; `VICTIM` is a process of this machine, `DISK` the major number of one.
    pub words: &'static [&'static str],
    pub met: Seen,
    pub control: Control,
    needs: Option<&'static str>,
    pub change: fn(&mut ContainerSpec),
}

impl Control {
    pub fn is_run_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Without(these), Without(those)) | (InMachine(these), InMachine(those)) => these == those,
            (Outside, Outside) => true,
            _ => false,
        }
    }
}

impl Row {
    const fn on(mut self, path: &'static str) -> Self {
        self.needs = Some(path);
        self
    }

    const fn with(mut self, change: fn(&mut ContainerSpec)) -> Self {
        self.change = change;
        self
    }

    /// What this machine has not, and the try is about.
    pub fn missing(&self) -> Option<&'static str> {
        self.needs.filter(|path| !std::path::Path::new(path).exists())
    }
}

const fn row(name: &'static str, words: &'static [&'static str], met: Seen, control: Control) -> Row {
    Row { name, words, met, control, needs: None, change: |_| {} }
}

pub const ROWS: &[Row] = &[
    row("keyctl", &["keyctl"], Refused(EPERM), Without(&[Filter])),
    row("add_key", &["add_key"], Refused(EPERM), Without(&[Filter])),
    row("request_key", &["request_key"], Refused(EPERM), Without(&[Filter])),
    row("userfaultfd", &["userfaultfd"], Refused(EPERM), Without(&[Filter])),
    row("perf_event", &["perf_event"], Refused(EPERM), Without(&[Filter])),
    row("io_uring", &["io_uring"], Refused(EPERM), Without(&[Filter])),
    row("unshare_user", &["unshare_user"], Refused(EPERM), Without(&[Filter])),
    row("clone_user", &["clone_user"], Refused(EPERM), Without(&[Filter])),
    row("kcmp", &["kcmp"], Refused(EPERM), Without(&[Filter])),
    row("fanotify", &["fanotify"], Refused(EPERM), Without(&[Filter])),
    row("personality", &["personality"], Refused(EPERM), Without(&[Filter])),
    row("vsock", &["vsock"], Refused(EPERM), Without(&[Filter])),
    row("kernel_cryptography", &["kernel_cryptography"], Refused(EPERM), Without(&[Filter])),
    row("clone3_user", &["clone3_user"], Refused(ENOSYS), Without(&[Filter])),
    row("other_architecture", &["other_architecture"], Killed(SIGSYS), Without(&[Filter])),
    row("setns", &["setns"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("mount_tmpfs", &["mount_tmpfs"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("fsopen", &["fsopen"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("open_tree", &["open_tree"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("pivot_root", &["pivot_root"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("sethostname", &["sethostname"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("move_a_mount", &["move_mount", "/proc/sys"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("make_writable", &["make_writable", "/proc/sys"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("unmount_what_hides", &["unmount", "/proc/keys"], Refused(EPERM), Without(&[Filter, Capabilities]))
        .on("/proc/keys"),
    row("bpf", &["bpf"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("accounting", &["accounting"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("kernel_log", &["kernel_log"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("swapon", &["swapon"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("vhangup", &["vhangup"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("ports", &["ports"], Refused(EPERM), InMachine(&[Filter, Capabilities, UserNamespace])),
    row("set_clock", &["set_clock"], Refused(EPERM), Without(&[Capabilities, UserNamespace])),
    row("release_agent", &["mount_cgroup", "memory"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace]))
        .on("/sys/fs/cgroup/memory"),
    row("mount_cgroup2", &["mount_cgroup2"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("shocker", &["handle", "/sys/firmware"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace]))
        .on("/sys/firmware"),
    row("kexec", &["kexec"], Refused(EPERM), InMachine(&[Filter, Capabilities, UserNamespace]))
        .on("/sys/kernel/kexec_loaded"),
    row("load_module", &["load_module"], Refused(EPERM), InMachine(&[Filter, Capabilities, UserNamespace]))
        .on("/proc/modules"),
    row("unload_module", &["unload_module"], Refused(EPERM), InMachine(&[Filter, Capabilities, UserNamespace]))
        .on("/proc/modules"),
    row("reboot", &["reboot"], Refused(EPERM), Without(&[Filter, Capabilities])),
    row("denied_call", &["ping", "2130706433"], Refused(EPERM), Without(&[Filter]))
        .with(|spec| spec.deny_calls = vec![libc::SYS_socket as u32]),
    row(
        "core_pattern",
        &["open_to_write", "/proc/sys/kernel/core_pattern"],
        Refused(EACCES),
        Without(&[UserNamespace, ReadOnly]),
    ),
    row(
        "modprobe_path",
        &["open_to_write", "/proc/sys/kernel/modprobe"],
        Refused(EACCES),
        Without(&[UserNamespace, ReadOnly]),
    )
    .on("/proc/sys/kernel/modprobe"),
    row("sysrq", &["open_to_write", "/proc/sysrq-trigger"], Refused(EACCES), Without(&[UserNamespace, ReadOnly]))
        .on("/proc/sysrq-trigger"),
    row("sysfs", &["open_to_write", "/sys/kernel/rcu_expedited"], Refused(EACCES), Without(&[UserNamespace, ReadOnly]))
        .on("/sys/kernel/rcu_expedited"),
    row("binfmt", &["mount_binfmt"], Refused(EPERM), Without(&[Filter, Capabilities, UserNamespace])),
    row("places_that_are_links", &["is_there", "/proc/self"], Nothing, Without(&[Places]))
        .with(|spec| spec.root.set_file_name("links")),
    row("keys", &["read", "/proc/keys"], Nothing, Without(&[Hidden, UserNamespace, Filter])).on("/proc/keys"),
    row("timers_of_all", &["read", "/proc/timer_list"], Nothing, Without(&[Hidden, UserNamespace]))
        .on("/proc/timer_list"),
    row("interrupts", &["read", "/proc/interrupts"], Nothing, Without(&[Hidden])),
    row("kernel_symbols", &["read", "/proc/kallsyms"], Nothing, Without(&[Hidden])).on("/proc/kallsyms"),
    row("kernel_memory", &["read", "/proc/kcore"], Nothing, Without(&[Hidden, UserNamespace, Capabilities]))
        .on("/proc/kcore"),
    row("firmware", &["list", "/sys/firmware"], Nothing, Without(&[Hidden])).on("/sys/firmware/acpi"),
    row("log_of_the_kernel", &["open", "/proc/kmsg"], Refused(EACCES), Without(&[UserNamespace, Capabilities]))
        .on("/proc/kmsg"),
    row("pages_of_all", &["open", "/proc/kpageflags"], Refused(EACCES), Without(&[UserNamespace, Capabilities]))
        .on("/proc/kpageflags"),
    row("init_environment", &["open", "/proc/1/environ"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_maps", &["open", "/proc/1/maps"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_memory", &["open", "/proc/1/mem"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_executable", &["open", "/proc/1/exe"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_files", &["list", "/proc/1/fd"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_root", &["list", "/proc/1/root"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("init_directory", &["list", "/proc/1/cwd"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("host_process", &["open", "/proc/VICTIM/environ"], Refused(ENOENT), Outside),
    row("host_kernel_log", &["open", "/dev/kmsg"], Refused(ENOENT), Outside).on("/dev/kmsg"),
    row("host_memory", &["lookup", "/dev/mem"], Refused(ENOENT), Outside).on("/dev/mem"),
    row("groups_of_others", &["list", "/sys/fs/cgroup"], Nothing, Outside),
    row("own_cgroup_path", &["says", "/proc/self/cgroup", "bellows-test"], Nothing, Without(&[CgroupNamespace])),
    row("leaked_descriptors", &["leaked_descriptors"], Nothing, Without(&[Descriptors])),
    row("leaked_directory", &["leaked_directory"], NotStarted(ENOENT), Without(&[Descriptors]))
        .with(|spec| spec.working_dir = "/proc/self/fd/9".into()),
    row("leaked_program", &["am_i_root"], NotStarted(ENOENT), Without(&[Descriptors]))
        .with(|spec| spec.args[0] = "/proc/self/fd/9/self/root/bin/escape".into()),
    row("out_of_chroot", &["out_of_chroot", "/writable"], Refused(ENOENT), Without(&[Pivot])),
    row(
        "mknod_disk",
        &["mknod_block", "DISK", "0"],
        Refused(EPERM),
        InMachine(&[Devices, UserNamespace, Capabilities]),
    )
    .on("/sys/block/vda"),
    row(
        "mknod_memory",
        &["mknod_character", "1", "1"],
        Refused(EPERM),
        InMachine(&[Devices, UserNamespace, Capabilities]),
    )
    .on("/dev/mem"),
    row(
        "mknod_kernel_log",
        &["mknod_character", "1", "11"],
        Refused(EPERM),
        Without(&[Devices, UserNamespace, Capabilities]),
    ),
    row("device_in_image", &["open", "/srv/fuse"], Refused(EPERM), Without(&[Devices])).on("/dev/fuse"),
    row("chown_outside", &["chown_outside"], Refused(EINVAL), Without(&[UserNamespace])),
    row("kill_host", &["kill", "VICTIM", "0"], Refused(ESRCH), Outside),
    row("pidfd_host", &["pidfd", "VICTIM"], Refused(ESRCH), Outside),
    row("trace_host", &["trace", "VICTIM"], Refused(ESRCH), Outside),
    row("memory_of_host", &["read_memory", "VICTIM"], Refused(ESRCH), Outside),
    row("see_processes", &["see_processes"], Nothing, Outside),
    row("trace_init", &["trace", "1"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("memory_of_init", &["read_memory", "1"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row(
        "descriptor_of_init",
        &["steal_descriptor", "1", "5"],
        Refused(EPERM),
        Without(&[Filter, UserNamespace, Capabilities]),
    ),
    row("nice", &["nice"], Refused(EACCES), Without(&[UserNamespace, Capabilities])),
    row("realtime", &["realtime"], Refused(EPERM), Outside),
    row("more_files", &["more_files", "2000"], Refused(EPERM), InMachine(&[UserNamespace, Capabilities]))
        .with(|spec| spec.limits.open_files = 1000),
    row("oom_score", &["oom_score"], Refused(EACCES), InMachine(&[UserNamespace, Capabilities])),
    row("setuid_outside", &["setuid_outside"], Refused(EINVAL), Without(&[UserNamespace])),
    row("all_capabilities", &["all_capabilities"], Refused(EPERM), Without(&[Capabilities])),
    row("ambient_capability", &["ambient_capability"], Refused(EPERM), Without(&[Capabilities])),
    row("setuid_program", &["setuid_program", "/bin/setuid"], Nothing, Without(&[NoNewPrivileges]))
        .with(|spec| spec.user.uid = 33),
    row("raw_socket", &["raw_socket"], Refused(EPERM), Without(&[UserNamespace])),
    row("packet_socket", &["packet_socket"], Refused(EPERM), Without(&[UserNamespace])),
    row("packet_mark", &["packet_mark"], Refused(EPERM), Without(&[UserNamespace])),
    row("new_address", &["new_address", "3232235777"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("new_neighbour", &["new_neighbour", "3232235777"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("link_down", &["link_down"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("new_route", &["new_route", "3232235777"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("firewall", &["firewall"], Refused(EPERM), Without(&[UserNamespace, Capabilities])),
    row("transparent", &["transparent"], Refused(EPERM), Without(&[UserNamespace])),
];
