//! A specification as an ordered list of set-up steps: computed first, performed second.
//!
//! Three actors perform them: the launcher (on the host), the container's first process (in all its namespaces, sharing memory with the launcher),
//! and the program's process just before it executes. Everything a step needs is computed here, as after clone nothing can be allocated.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;

use crate::kernel::capability;
use crate::launch::Moment;
use crate::oci::BundleStep;
use crate::spec::ContainerSpec;

/// Performed by the launcher, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStep {
    /// The writable layer: a tmpfs of bounded size. First, as all that follows is written into it or laid over it, and as dropping it undoes them.
    Scratch {
        /// Its size.
        size_bytes: u64,
    },
    /// A file of `/etc`, written into the writable layer before the overlay exists: no bind mount per file.
    EtcFile {
        /// Its name below `/etc`.
        name: &'static CStr,
        /// What it says.
        content: Vec<u8>,
    },
    /// The overlay of image, device layer and writable layer. After the files: names must not come into an overlay's upper layer
    /// underneath it. In a root that was made ahead they are there, empty, and their content, which nobody has read yet, is written underneath.
    Root,
    /// The container's output pipes. Before clone, as the child inherits them.
    Pipes,
    /// Into the network slot, `/sys` of that network made (a sysfs shows the network of whoever makes it, and inside it could not be
    /// made), the first process cloned there, and back.
    Clone,
    /// Ids inside to ids outside. Only the parent may write them, and only after clone.
    MapIds,
    /// Into the cgroups, so that all that follows is counted and bounded. While the child mounts; it waits before it goes on to the program.
    Join,
    /// The container's `/proc`, of its PID namespace, on the overlay before that is attached: into a mount namespace that holds nothing the child could
    /// not mount one, as that is allowed only where a whole one is visible.
    Proc,
}

/// Performed by the container's first process, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildStep {
    /// Die if the launcher dies, as nobody would ever say "go". First of all; from [`Self::BecomeRoot`] on (the kernel forgets it there) the process is in
    /// the container's cgroups, where its runtime finds it.
    DieWithLauncher,
    /// Attach the overlay inside the launcher's tiny tree and go there. The mount namespace is a copy of the launcher's and private already.
    AttachRoot,
    /// A file system on a directory of the new root. Before pivot_root: a new `/proc` is allowed only where a whole one is visible.
    Mount {
        /// Its type.
        kind: &'static CStr,
        /// Where, relative to the new root.
        target: &'static CStr,
        /// MS_*.
        flags: u64,
        /// Its options.
        data: &'static CStr,
    },
    /// The `/sys` that the launcher made.
    AttachSys,
    /// Cover a file with `/dev/null`, as OCI runtimes do for what tells of the host. Hiding comes before the host's tree is let go, as it needs
    /// nothing of it, and before capabilities go.
    HideFile(&'static CStr),
    /// Cover a directory with an empty read-only one.
    HideDirectory(&'static CStr),
    /// Make a part of a file system read-only.
    ReadOnly(&'static CStr),
    /// The overlay becomes the root; the launcher's tree lands on top of it.
    Pivot,
    /// And goes: from here on nothing of the host can be reached by a path.
    DropHost,
    /// In place of the last two in a mount namespace that holds nothing: there is no host to let go of, and waiting until it is gone would be the longest of
    /// all steps. (And where the escape suite shows what those two are good for.)
    ChangeRoot,
    /// The host name.
    Hostname(CString),
    /// Wait until ids are mapped and cgroups joined: everything above needs neither, so both sides work at the same time.
    AwaitGo,
    /// A cgroup namespace of its own, made after joining so that its root is the container's group and names nothing above it.
    CgroupNamespace,
    /// Become root of the container's user namespace: without a mapping, before, this was nobody.
    BecomeRoot,
    /// Whose the directory of terminals is depends on whether ids were mapped when it was mounted, which is a matter of microseconds: from now on it is
    /// root's.
    OwnTerminals,
    /// A resource limit, soft and hard. Before capabilities go, as some only root may raise.
    Limit {
        /// RLIMIT_*.
        resource: u32,
        /// Soft and hard.
        value: u64,
    },
    /// Standard streams in place, all else closed on exec.
    Descriptors,
    /// Out of the bounding set with all capabilities that are not in the mask, then only the mask stays. After all mounts, which need CAP_SYS_ADMIN.
    Capabilities(u64),
    /// No program may gain what this process lost. After capabilities, before the filter, which needs it.
    NoNewPrivileges,
    /// The system call filter. Last of all set-up, as it refuses most of the calls above.
    Filter,
    /// The program, as process 2: it runs before the init has even been executed.
    StartProgram,
    /// This process becomes the init, unless there is nothing left for one to do.
    BecomeInit,
    /// What only a bundle asks for.
    Bundle(BundleStep),
    /// This very process goes on to the program's steps, as a bundle's program has no init above it.
    BecomeProgram,
}

const HOSTS: &CStr = c"hosts";
const HOSTNAME: &CStr = c"hostname";
const RESOLV_CONF: &CStr = c"resolv.conf";
/// All files of `/etc` that every container gets.
pub const ETC_FILES: [&CStr; 3] = [HOSTS, HOSTNAME, RESOLV_CONF];

impl HostStep {
    /// What its end is written down as.
    pub fn moment(&self) -> Moment {
        match self {
            Self::Scratch { .. } | Self::EtcFile { .. } => Moment::ScratchReady,
            Self::Root => Moment::RootReady,
            Self::Pipes => Moment::PipesReady,
            Self::Clone => Moment::Cloned,
            Self::MapIds => Moment::Mapped,
            Self::Join => Moment::Joined,
            Self::Proc => Moment::ProcMounted,
        }
    }
}

impl ChildStep {
    /// What its end is written down as.
    pub fn moment(&self) -> Moment {
        match self {
            Self::DieWithLauncher => Moment::Began,
            Self::AttachRoot => Moment::RootAttached,
            Self::Mount { kind, .. } if *kind == c"proc" => Moment::ProcMounted,
            Self::Mount { .. } => Moment::OtherMounted,
            Self::AttachSys => Moment::SysAttached,
            Self::HideFile(_) | Self::HideDirectory(_) => Moment::Hidden,
            Self::ReadOnly(_) => Moment::Protected,
            Self::Pivot | Self::ChangeRoot => Moment::Pivoted,
            Self::DropHost | Self::Hostname(_) => Moment::HostDropped,
            Self::AwaitGo => Moment::Told,
            Self::CgroupNamespace | Self::BecomeRoot | Self::OwnTerminals | Self::Limit { .. } => Moment::Limited,
            Self::Descriptors => Moment::Connected,
            Self::Capabilities(_) | Self::NoNewPrivileges => Moment::Lowered,
            Self::Filter | Self::StartProgram | Self::BecomeInit => Moment::Filtered,
            // Bundles are launched by a process of their own, which keeps no moments.
            Self::Bundle(_) | Self::BecomeProgram => Moment::Limited,
        }
    }
}

/// Performed by the program's process, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramStep {
    /// A session of its own: signals go to its group and not to the init.
    Session,
    /// All descriptors but the standard streams. Before any path of the container's is followed: while they are open, `/proc/self/fd` leads to the
    /// host's files, whatever the descriptors' own flags (CVE-2024-21626).
    CloseRest,
    /// Leaves this descriptor open for the program, where the escape suite shows what closing them is good for.
    Leak(i32),
    /// Supplementary groups, then group, then user: each needs the privileges that the next one gives up.
    Groups(Vec<u32>),
    /// Group id.
    Group(u32),
    /// User id.
    User(u32),
    /// Where it starts. As the user, so that a directory it may not enter is an error here; made if missing.
    WorkingDir(Vec<CString>),
    /// Off the CPU that the launcher keeps to. Late: until here launcher, child and this process hand over to each other at once on one CPU,
    /// where waking another one costs as much as three of these steps.
    AnyCpu,
    /// Signals as a program expects them: nothing blocked, nothing ignored.
    Signals,
    /// Execute the first of these that exists.
    Execute {
        /// Where it may be.
        candidates: Vec<CString>,
        /// Its arguments.
        args: Vec<CString>,
        /// Its environment.
        env: Vec<CString>,
    },
    /// What only a bundle asks for.
    Bundle(BundleStep),
}

/// Performed by the process of a program that is executed in a running container, in this order. It is in the container's namespaces and cgroups already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnterStep {
    /// Standard streams in place; everything else is closed at once and not only on exec, as a working directory may be named through a descriptor.
    Streams,
    /// Its terminal becomes the one of its session. After the session, which must be without one.
    Terminal,
    /// As the app's own first process has it.
    Own(ChildStep),
    /// As the app's own program has it.
    Program(ProgramStep),
    /// Where it starts. Not made if missing: the app's own directory is there, and any other is a mistake.
    WorkingDir(CString),
    /// Die with whoever waits for this. After the change of user, which makes the kernel forget it.
    DieWithAttendant,
}

/// All steps of one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// On the host.
    pub host: Vec<HostStep>,
    /// In the container.
    pub child: Vec<ChildStep>,
    /// In the program's process.
    pub program: Vec<ProgramStep>,
}

/// What the node adds to the specification.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The container's address.
    pub address: Ipv4Addr,
    /// For resolv.conf.
    pub nameservers: Vec<IpAddr>,
    /// Which of [`HIDDEN_FILES`], [`HIDDEN_DIRECTORIES`] and [`READ_ONLY`] exist on this kernel.
    pub present: Vec<&'static CStr>,
    /// The launcher's own limit of open files: more cannot be given.
    pub most_open_files: u64,
    /// Whether the launcher's mount namespace holds nothing but an empty directory.
    pub bare: bool,
}

/// Files that OCI runtimes hide.
pub const HIDDEN_FILES: [&CStr; 8] = [
    c"proc/interrupts",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"proc/sched_debug",
    c"proc/kallsyms",
];
/// Directories that OCI runtimes hide.
pub const HIDDEN_DIRECTORIES: [&CStr; 5] =
    [c"proc/acpi", c"proc/asound", c"proc/scsi", c"sys/firmware", c"sys/devices/virtual/powercap"];
/// What OCI runtimes make read-only.
pub const READ_ONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

const SAFE: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Computes every step. The specification has passed its check.
pub fn plan(spec: &ContainerSpec, around: &Surroundings) -> Plan {
    Plan { host: host(spec, around), child: child(spec, around), program: program(spec) }
}

/// The steps of a program beside the app: what a launch of the same specification would do to it, less what stands already.
pub fn execution(plan: &Plan, terminal: bool) -> Vec<EnterStep> {
    let bounds = |step: &&ChildStep| {
        matches!(
            step,
            ChildStep::Limit { .. } | ChildStep::Capabilities(_) | ChildStep::NoNewPrivileges | ChildStep::Filter
        )
    };
    let mut steps = vec![EnterStep::Streams, EnterStep::Program(ProgramStep::Session)];
    if terminal {
        steps.push(EnterStep::Terminal);
    }
    steps.extend(plan.child.iter().filter(bounds).cloned().map(EnterStep::Own));
    // With the streams all was closed but the report.
    let program = plan.program.iter().filter(|step| !matches!(step, ProgramStep::Session | ProgramStep::CloseRest));
    for step in program {
        match step {
            ProgramStep::WorkingDir(dirs) => {
                steps.push(EnterStep::DieWithAttendant);
                steps.extend(dirs.last().cloned().map(EnterStep::WorkingDir));
            }
            other => steps.push(EnterStep::Program(other.clone())),
        }
    }
    steps
}

/// The steps of whoever works inside without executing anything: bounded as the app is, and root of the container, as it works for whoever operates it.
pub fn errand(plan: &Plan) -> Vec<EnterStep> {
    let mut steps = execution(plan, false);
    steps.retain(|step| match step {
        EnterStep::Program(step) => matches!(step, ProgramStep::Session | ProgramStep::AnyCpu),
        EnterStep::WorkingDir(_) | EnterStep::Terminal => false,
        EnterStep::Streams | EnterStep::Own(_) | EnterStep::DieWithAttendant => true,
    });
    steps
}

fn host(spec: &ContainerSpec, around: &Surroundings) -> Vec<HostStep> {
    let mut resolv = String::new();
    for server in &around.nameservers {
        resolv.push_str(&format!("nameserver {server}\n"));
    }
    let hosts = format!("127.0.0.1\tlocalhost\n{}\t{}\n", around.address, spec.hostname);
    let mut steps = vec![
        HostStep::Scratch { size_bytes: spec.limits.scratch_bytes },
        HostStep::EtcFile { name: HOSTS, content: hosts.into_bytes() },
        HostStep::EtcFile { name: HOSTNAME, content: format!("{}\n", spec.hostname).into_bytes() },
        HostStep::EtcFile { name: RESOLV_CONF, content: resolv.into_bytes() },
        HostStep::Root,
        HostStep::Pipes,
        HostStep::Clone,
        HostStep::MapIds,
        HostStep::Join,
    ];
    if around.bare {
        steps.push(HostStep::Proc);
    }
    steps
}

fn child(spec: &ContainerSpec, around: &Surroundings) -> Vec<ChildStep> {
    let mount = |kind, target, flags, data| ChildStep::Mount { kind, target, flags, data };
    let present = |path: &&'static CStr| around.present.contains(path);
    let mut steps = vec![ChildStep::DieWithLauncher];
    if around.bare {
        steps.extend([ChildStep::AwaitGo, ChildStep::AttachRoot]);
    } else {
        steps.extend([ChildStep::AttachRoot, mount(c"proc", c"proc", SAFE, c"")]);
    }
    steps.extend([
        ChildStep::AttachSys,
        mount(c"devpts", c"dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, c"newinstance,ptmxmode=0666,mode=0620,max=256"),
        mount(c"mqueue", c"dev/mqueue", SAFE, c""),
    ]);
    steps.extend(HIDDEN_FILES.into_iter().filter(present).map(ChildStep::HideFile));
    steps.extend(HIDDEN_DIRECTORIES.into_iter().filter(present).map(ChildStep::HideDirectory));
    steps.extend(READ_ONLY.into_iter().filter(present).map(ChildStep::ReadOnly));
    let hostname = ChildStep::Hostname(c_string(spec.hostname.as_bytes()));
    if around.bare {
        steps.extend([ChildStep::ChangeRoot, hostname]);
    } else {
        steps.extend([ChildStep::Pivot, ChildStep::DropHost, hostname, ChildStep::AwaitGo]);
    }
    steps.extend([
        ChildStep::CgroupNamespace,
        ChildStep::BecomeRoot,
        ChildStep::OwnTerminals,
        ChildStep::Limit { resource: libc::RLIMIT_NOFILE, value: spec.limits.open_files.min(around.most_open_files) },
        ChildStep::Limit { resource: libc::RLIMIT_CORE, value: 0 },
        ChildStep::Descriptors,
        ChildStep::Capabilities(capability::kept(&spec.drop_capabilities, &spec.add_capabilities)),
        ChildStep::NoNewPrivileges,
        ChildStep::Filter,
        ChildStep::StartProgram,
        ChildStep::BecomeInit,
    ]);
    steps
}

fn program(spec: &ContainerSpec) -> Vec<ProgramStep> {
    let env = environment(spec);
    vec![
        ProgramStep::Session,
        ProgramStep::CloseRest,
        ProgramStep::Groups(spec.user.groups.clone()),
        ProgramStep::Group(spec.user.gid),
        ProgramStep::User(spec.user.uid),
        ProgramStep::WorkingDir(prefixes(spec)),
        ProgramStep::AnyCpu,
        ProgramStep::Signals,
        ProgramStep::Execute {
            candidates: candidates(&spec.args[0], &env),
            args: spec.args.iter().map(|a| c_string(a.as_bytes())).collect(),
            env: env.iter().map(|e| c_string(e.as_bytes())).collect(),
        },
    ]
}

fn environment(spec: &ContainerSpec) -> Vec<String> {
    let mut env = spec.env.clone();
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOSTNAME", &spec.hostname)] {
        if !env.iter().any(|e| e.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// Where a program may be: itself when it has a slash, else in each directory of PATH.
fn candidates(name: &str, env: &[String]) -> Vec<CString> {
    if name.contains('/') {
        return vec![c_string(name.as_bytes())];
    }
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let in_dir = |dir: &str| c_string(format!("{}/{name}", if dir.is_empty() { "." } else { dir }).as_bytes());
    path.split(':').map(in_dir).collect()
}

/// `/a`, `/a/b`, ... up to the working directory.
fn prefixes(spec: &ContainerSpec) -> Vec<CString> {
    let mut all: Vec<CString> = spec.working_dir.ancestors().map(|dir| c_string(dir.as_os_str().as_bytes())).collect();
    all.reverse();
    all
}

/// Bytes that were checked to hold no NUL; what follows one, were it there, would be cut off.
fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ContainerId;

    fn made(change: impl FnOnce(&mut ContainerSpec)) -> Plan {
        made_in(false, change)
    }

    fn made_in(bare: bool, change: impl FnOnce(&mut ContainerSpec)) -> Plan {
        let id = ContainerId::new("web-1").expect("an id");
        let mut spec = ContainerSpec::new(id, "/img", &["app", "-x"]);
        change(&mut spec);
        let present = vec![c"proc/keys", c"proc/sys", c"sys/firmware"];
        let around = Surroundings {
            address: Ipv4Addr::new(10, 1, 0, 5),
            nameservers: vec![IpAddr::from([9, 9, 9, 9])],
            present,
            most_open_files: 4096,
            bare,
        };
        plan(&spec, &around)
    }

    fn place(steps: &[ChildStep], which: impl Fn(&ChildStep) -> bool) -> usize {
        steps.iter().position(which).expect("the step is in the plan")
    }

    #[test]
    fn what_needs_privileges_comes_before_they_go() {
        let steps = made(|_| {}).child;
        let capabilities = place(&steps, |s| matches!(s, ChildStep::Capabilities(_)));
        let privileged = |s: &ChildStep| {
            !matches!(
                s,
                ChildStep::Capabilities(_)
                    | ChildStep::NoNewPrivileges
                    | ChildStep::Filter
                    | ChildStep::StartProgram
                    | ChildStep::BecomeInit
            )
        };
        assert!(steps[..capabilities].iter().all(privileged));
        assert_eq!(
            steps[capabilities + 1..],
            [ChildStep::NoNewPrivileges, ChildStep::Filter, ChildStep::StartProgram, ChildStep::BecomeInit]
        );
    }

    #[test]
    fn proc_is_mounted_while_the_hosts_is_visible_and_the_group_joined_before_its_namespace() {
        let steps = made(|_| {}).child;
        let proc = place(&steps, |s| matches!(s, ChildStep::Mount { kind, .. } if *kind == c"proc"));
        assert!(proc < place(&steps, |s| *s == ChildStep::DropHost));
        assert!(place(&steps, |s| *s == ChildStep::AwaitGo) < place(&steps, |s| *s == ChildStep::CgroupNamespace));
    }

    #[test]
    fn in_a_bare_namespace_nothing_of_the_host_is_dropped_as_there_is_nothing() {
        let plan = made_in(true, |_| {});
        assert_eq!(plan.host.last(), Some(&HostStep::Proc));
        let steps = plan.child;
        assert!(place(&steps, |s| *s == ChildStep::AwaitGo) < place(&steps, |s| *s == ChildStep::AttachRoot));
        let of_the_host = |s: &ChildStep| {
            matches!(s, ChildStep::Pivot | ChildStep::DropHost)
                || matches!(s, ChildStep::Mount { kind, .. } if *kind == c"proc")
        };
        assert!(!steps.iter().any(of_the_host));
        let root = place(&steps, |s| *s == ChildStep::ChangeRoot);
        assert!(place(&steps, |s| matches!(s, ChildStep::ReadOnly(_))) < root);
        assert!(root < place(&steps, |s| *s == ChildStep::BecomeRoot));
    }

    #[test]
    fn only_what_the_kernel_has_is_hidden() {
        let steps = made(|_| {}).child;
        let hidden: Vec<_> = steps
            .iter()
            .filter(|s| matches!(s, ChildStep::HideFile(_) | ChildStep::HideDirectory(_) | ChildStep::ReadOnly(_)))
            .collect();
        assert_eq!(
            hidden,
            [
                &ChildStep::HideFile(c"proc/keys"),
                &ChildStep::HideDirectory(c"sys/firmware"),
                &ChildStep::ReadOnly(c"proc/sys")
            ]
        );
    }

    #[test]
    fn a_program_without_a_slash_is_looked_up_in_the_specs_path() {
        let plan = made(|s| s.env = vec!["PATH=/a::/b".into(), "HOSTNAME=mine".into()]);
        let Some(ProgramStep::Execute { candidates, args, env }) = plan.program.last() else {
            panic!("execution comes last")
        };
        assert_eq!(candidates, &[c"/a/app".to_owned(), c"./app".to_owned(), c"/b/app".to_owned()]);
        assert_eq!(args, &[c"app".to_owned(), c"-x".to_owned()]);
        assert_eq!(env, &[c"PATH=/a::/b".to_owned(), c"HOSTNAME=mine".to_owned()]);
    }

    #[test]
    fn path_and_hostname_are_added_where_missing() {
        let plan = made(|s| s.env = vec!["PATHS=x".into()]);
        let Some(ProgramStep::Execute { env, .. }) = plan.program.last() else { panic!("execution comes last") };
        let said: Vec<_> = env.iter().map(|e| e.to_str().expect("text")).collect();
        assert_eq!(said, ["PATHS=x", &format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web-1"]);
    }

    #[test]
    fn privileges_are_given_up_in_the_only_order_that_works() {
        let plan = made(|s| s.user = crate::spec::User { uid: 33, gid: 44, groups: vec![5] });
        assert_eq!(plan.program[2..5], [ProgramStep::Groups(vec![5]), ProgramStep::Group(44), ProgramStep::User(33)]);
    }

    #[test]
    fn a_program_beside_the_app_is_bounded_as_the_app_is() {
        let plan = made(|s| s.user = crate::spec::User { uid: 33, gid: 44, groups: vec![5] });
        let steps = execution(&plan, true);
        let bounds: Vec<_> = steps.iter().filter(|s| matches!(s, EnterStep::Own(_))).collect();
        let app = |kind: fn(&ChildStep) -> bool| plan.child.iter().filter(|s| kind(s)).count();
        assert_eq!(app(|s| matches!(s, ChildStep::Limit { .. })) + 3, bounds.len());
        let place = |wanted: &EnterStep| steps.iter().position(|s| s == wanted).expect("the step is there");
        assert_eq!(steps[0], EnterStep::Streams, "closed before anything can be reached through a descriptor");
        assert!(place(&EnterStep::Terminal) > place(&EnterStep::Program(ProgramStep::Session)));
        let user = place(&EnterStep::Program(ProgramStep::User(33)));
        assert!(place(&EnterStep::Own(ChildStep::Filter)) < user);
        assert!(place(&EnterStep::DieWithAttendant) > user, "the kernel forgets it with a change of user");
        assert!(matches!(steps.last(), Some(EnterStep::Program(ProgramStep::Execute { .. }))));
        assert!(!execution(&plan, false).contains(&EnterStep::Terminal));
    }

    #[test]
    fn files_of_etc_are_written_before_the_overlay() {
        let plan = made(|s| s.hostname = "web".into());
        let root = plan.host.iter().position(|s| *s == HostStep::Root).expect("a root");
        let files: Vec<_> = plan.host[..root].iter().filter(|s| matches!(s, HostStep::EtcFile { .. })).collect();
        assert_eq!(files.len(), 3);
        let hosts = HostStep::EtcFile { name: c"hosts", content: b"127.0.0.1\tlocalhost\n10.1.0.5\tweb\n".to_vec() };
        assert_eq!(files[0], &hosts);
    }
}
