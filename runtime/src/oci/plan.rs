//! From a configuration to the steps of a launch: pure, so that it is tested without a kernel.

use std::ffi::CStr;
use std::path::PathBuf;

use oci_spec::runtime::{Hook, Linux, LinuxNamespace, LinuxNamespaceType, Spec};

use super::config::{self, Bundle};
use super::filesystem::{self, Host, Part, Tree};
use super::process::{self, Around, c_string};
use super::seccomp::{self, Compiled};
use super::{BundleStep, ChildHook, OciError, mounts, names};
use crate::steps::{ChildStep, Plan, ProgramStep};

/// The stages at which child and launching process meet.
pub mod stage {
    /// The child exists and waits for its ids.
    pub const BORN: u32 = 1;
    /// All is mounted that can be without cgroups; the child waits to be in them.
    pub const GROUPED: u32 = 2;
    /// All is mounted; the host's hooks run.
    pub const MOUNTED: u32 = 3;
    /// All is done but waiting for `start` and executing.
    pub const READY: u32 = 4;
}

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `create`, whose program begins with `start`.
    pub awaits_start: bool,
    /// Descriptors above the three streams that are passed on.
    pub preserved: u32,
}

/// Everything that is to be done, and with what.
#[derive(Debug)]
pub struct BundlePlan {
    /// Child and program.
    pub steps: Plan,
    /// The root file system's tree.
    pub root: Option<Part>,
    /// Trees to be opened.
    pub trees: Vec<Tree>,
    /// Those to be opened when the cgroups are there.
    pub sent: Vec<Part>,
    /// Namespaces by path, in the order of entering: path and CLONE_NEW*.
    pub namespaces: Vec<(PathBuf, i32)>,
    /// The descriptor of a process whose namespaces are entered at once, before any by path.
    pub first_process: Option<i32>,
    /// The launching process enters this one before the clone, as only children can be in it.
    pub pid_namespace: Option<PathBuf>,
    /// CLONE_NEW* of the clone.
    pub new_namespaces: i32,
    /// Mappings of users and groups, of a new user namespace.
    pub ids: Option<[String; 2]>,
    /// The system call filter.
    pub filter: Option<Compiled>,
    /// Written before the program runs.
    pub oom_score: Option<i32>,
    /// Whether the host has hooks to run when all is mounted.
    pub pauses_mounted: bool,
    /// Whether hooks run in the container.
    pub has_child_hooks: bool,
}

/// Computes every step.
pub fn plan(bundle: &Bundle, asked: &Asked, host: &Host) -> Result<BundlePlan, OciError> {
    let spec = &bundle.spec;
    let (Some(linux), Some(root)) = (spec.linux(), spec.root()) else {
        return Err(OciError::refused("linux", "is missing"));
    };
    let Some(process) = spec.process() else {
        return Err(OciError::refused("process", "is missing: there is nothing to execute"));
    };
    let files = filesystem::files(spec, linux, &bundle.folder, host)?;
    let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
    let around = Around {
        ready: stage::READY,
        awaits_start: asked.awaits_start,
        preserved: asked.preserved,
        hooks: child_hooks("startContainer", spec.hooks().as_ref().and_then(|h| h.start_container().as_ref()))?,
        filter: filter.as_ref().map(|compiled| compiled.flags),
    };
    let (namespaces, new_namespaces) = namespaces(linux);
    let path = bundle.folder.join(root.path());
    let paused = pauses_mounted(spec);
    let child = child(spec, linux, Child { root: &path, files: files.steps, paused })?;
    Ok(BundlePlan {
        steps: Plan { host: Vec::new(), child, program: process::steps(process, around)? },
        root: Some(root_part(path)),
        trees: files.trees,
        sent: files.sent,
        namespaces,
        first_process: None,
        pid_namespace: config::namespace_path(linux, LinuxNamespaceType::Pid).flatten().map(PathBuf::from),
        new_namespaces: if enters_user(linux) { 0 } else { new_namespaces },
        ids: ids(linux),
        filter,
        oom_score: process.oom_score_adj(),
        pauses_mounted: paused,
        has_child_hooks: has_child_hooks(spec),
    })
}

/// Then new namespaces are made in there, after the clone.
fn enters_user(linux: &Linux) -> bool {
    matches!(config::namespace_path(linux, LinuxNamespaceType::User), Some(Some(_)))
}

/// Whether there is a new network that belongs to the host's user namespace: it can be made beside the container's
/// first process.
pub fn network_apart(namespaces: &[LinuxNamespace]) -> bool {
    let new = config::path_among(namespaces, LinuxNamespaceType::Network) == Some(None);
    new && config::path_among(namespaces, LinuxNamespaceType::User).is_none()
}

/// Nothing that is mounted in it is seen by the host.
fn root_part(source: PathBuf) -> Part {
    let propagation = libc::MS_PRIVATE | libc::MS_REC;
    Part { source, recursive: true, top: (0, 0), deep: (0, 0), propagation, shifted: None }
}

fn ids(linux: &Linux) -> Option<[String; 2]> {
    match config::namespace_path(linux, LinuxNamespaceType::User) {
        Some(None) => {
            let of = |maps: &Option<Vec<_>>| filesystem::lines(maps.as_deref().unwrap_or_default());
            Some([of(linux.uid_mappings()), of(linux.gid_mappings())])
        }
        _ => None,
    }
}

/// Those by path, the user namespace first as it is what allows to enter the others, and those that are new. The cgroup namespace is made later, a
/// network apart by [`super::network`].
fn namespaces(linux: &Linux) -> (Vec<(PathBuf, i32)>, i32) {
    let (mut entered, mut new) = (Vec::new(), 0);
    let named = linux.namespaces().as_deref().unwrap_or_default();
    for namespace in named {
        let (kind, _) = names::namespace(namespace.typ());
        match (namespace.typ(), config::path_among(named, namespace.typ()).flatten()) {
            (LinuxNamespaceType::Pid, Some(_)) => {}
            (LinuxNamespaceType::User, Some(path)) => entered.insert(0, (path.to_owned(), kind)),
            (_, Some(path)) => entered.push((path.to_owned(), kind)),
            (LinuxNamespaceType::Cgroup, None) => {}
            (LinuxNamespaceType::Network, None) if network_apart(named) => {}
            (_, None) => new |= kind,
        }
    }
    (entered, new)
}

fn pauses_mounted(spec: &Spec) -> bool {
    let some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty());
    spec.hooks().as_ref().is_some_and(|hooks| some(hooks.prestart()) || some(hooks.create_runtime()))
}

fn has_child_hooks(spec: &Spec) -> bool {
    let some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty());
    spec.hooks().as_ref().is_some_and(|hooks| some(hooks.create_container()) || some(hooks.start_container()))
}

struct Child<'a> {
    root: &'a std::path::Path,
    files: Vec<BundleStep>,
    paused: bool,
}

/// The first process. It waits for new ids at once, as what it mounts belongs to the container's root; for its cgroups when it cannot go on without.
fn child(spec: &Spec, linux: &Linux, with: Child<'_>) -> Result<Vec<ChildStep>, OciError> {
    let bundle = ChildStep::Bundle;
    let mut steps = vec![ChildStep::DieWithLauncher];
    let (entered, new) = namespaces(linux);
    let enter =
        |(place, (_, kind)): (usize, &(PathBuf, i32))| bundle(BundleStep::Enter { namespace: place, kind: *kind });
    steps.extend(entered.iter().enumerate().map(enter));
    let user = config::namespace_path(linux, LinuxNamespaceType::User);
    if enters_user(linux) {
        steps.push(bundle(BundleStep::Unshare(new)));
    }
    if user == Some(None) {
        steps.push(bundle(BundleStep::Wait(stage::BORN)));
    }
    steps.push(bundle(BundleStep::Propagation(outer_propagation(linux)?)));
    steps.push(bundle(BundleStep::AttachRoot(c_string(with.root.as_os_str().as_encoded_bytes()))));
    if user.is_some() {
        // The kernel forgets it when the user changes.
        steps.extend([ChildStep::BecomeRoot, ChildStep::DieWithLauncher]);
    }
    steps.push(bundle(BundleStep::Umask(0o022)));
    let mut files = with.files;
    if network_apart(linux.namespaces().as_deref().unwrap_or_default()) {
        let place = files.iter().position(shows_network).unwrap_or(files.len());
        files.insert(place, BundleStep::EnterNetwork);
    }
    let grouped = files.iter().position(shows_cgroups).unwrap_or(files.len());
    let after = files.split_off(grouped);
    steps.extend(files.into_iter().map(bundle));
    steps.push(bundle(BundleStep::Wait(stage::GROUPED)));
    if config::namespace_path(linux, LinuxNamespaceType::Cgroup) == Some(None) {
        steps.push(ChildStep::CgroupNamespace);
    }
    steps.extend(after.into_iter().map(bundle));
    steps.extend(sysctls(linux).map(bundle));
    if with.paused {
        steps.push(bundle(BundleStep::Wait(stage::MOUNTED)));
    }
    let hooks = child_hooks("createContainer", spec.hooks().as_ref().and_then(|h| h.create_container().as_ref()))?;
    steps.extend(hooks.into_iter().map(|hook| bundle(BundleStep::Hook { hook, created: false })));
    steps.extend([ChildStep::Pivot, ChildStep::DropHost]);
    steps.extend(inside(spec, linux)?);
    steps.push(ChildStep::BecomeProgram);
    Ok(steps)
}

/// Whether a step must not come before the container is in its network: what is mounted may show it, as sysfs does.
fn shows_network(step: &BundleStep) -> bool {
    const BLIND: [&CStr; 6] = [c"proc", c"tmpfs", c"devpts", c"mqueue", c"cgroup", c"cgroup2"];
    matches!(step, BundleStep::Mount { kind, .. } if !BLIND.contains(&kind.as_c_str()))
}

/// Whether a step must not come before the container is in its cgroups.
fn shows_cgroups(step: &BundleStep) -> bool {
    match step {
        BundleStep::AttachSent(_) => true,
        BundleStep::Mount { kind, .. } => matches!(kind.to_bytes(), b"cgroup" | b"cgroup2"),
        _ => false,
    }
}

/// With the host's tree gone.
fn inside(spec: &Spec, linux: &Linux) -> Result<Vec<ChildStep>, OciError> {
    let mut steps = Vec::new();
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        steps.push(ChildStep::Hostname(c_string(name.as_bytes())));
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        steps.push(ChildStep::Bundle(BundleStep::Domainname(c_string(name.as_bytes()))));
    }
    let path = |text: &String| c_string(text.as_bytes());
    steps
        .extend(linux.readonly_paths().iter().flatten().map(|text| ChildStep::Bundle(BundleStep::Protect(path(text)))));
    steps.extend(linux.masked_paths().iter().flatten().map(|text| ChildStep::Bundle(BundleStep::Mask(path(text)))));
    if let Some(flags) = named_propagation(linux)? {
        steps.push(ChildStep::Bundle(BundleStep::RootPropagation(flags)));
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        steps.push(ChildStep::Bundle(BundleStep::RootReadOnly));
    }
    if let Some(personality) = linux.personality() {
        use oci_spec::runtime::LinuxPersonalityDomain::{PerLinux, PerLinux32};
        let persona = match personality.domain() {
            PerLinux => 0,
            PerLinux32 => PER_LINUX_32,
        };
        steps.push(ChildStep::Bundle(BundleStep::Personality(persona)));
    }
    Ok(steps)
}

/// `PER_LINUX32` of the kernel.
const PER_LINUX_32: u32 = 8;

fn named_propagation(linux: &Linux) -> Result<Option<u64>, OciError> {
    let Some(name) = linux.rootfs_propagation().as_ref().filter(|name| !name.is_empty()) else { return Ok(None) };
    match mounts::propagation(name) {
        Some(flags) => Ok(Some(flags)),
        None => Err(OciError::refused("linux.rootfsPropagation", format!("{name:?} is no way for mounts to spread"))),
    }
}

/// Of the copy of the host's tree that goes: what the host mounts meanwhile may come in, nothing goes out.
fn outer_propagation(linux: &Linux) -> Result<u64, OciError> {
    let private = named_propagation(linux)?.is_some_and(|flags| flags & libc::MS_PRIVATE != 0);
    Ok(libc::MS_REC | if private { libc::MS_PRIVATE } else { libc::MS_SLAVE })
}

/// By name, as the order of a JSON object is nobody's.
fn sysctls(linux: &Linux) -> impl Iterator<Item = BundleStep> {
    let mut all: Vec<(&String, &String)> = linux.sysctl().iter().flatten().collect();
    all.sort();
    all.into_iter().map(|(name, value)| {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let file = c_string(format!("/proc/sys/{path}").as_bytes());
        BundleStep::Sysctl { file, value: c_string(value.as_bytes()) }
    })
}

fn child_hooks(phase: &str, hooks: Option<&Vec<Hook>>) -> Result<Vec<ChildHook>, OciError> {
    let hooks = hooks.into_iter().flatten().enumerate();
    hooks
        .map(|(number, hook)| {
            let args = hook.args().iter().flatten();
            let mut args = process::strings(args);
            let path = c_string(hook.path().as_os_str().as_encoded_bytes());
            if args.is_empty() {
                args.push(path.clone());
            }
            let env = process::strings(hook.env().iter().flatten());
            let name = format!("{phase} hook {} ({})", number + 1, hook.path().display());
            let most = crate::launch::bundle::MOST_WORDS;
            if args.len() >= most || env.len() >= most {
                return Err(OciError::refused(format!("hooks.{phase}"), format!("more than {} words", most - 1)));
            }
            let timeout_s = hook.timeout().and_then(|s| u64::try_from(s).ok());
            Ok(ChildHook { name, path, args, env, timeout_s })
        })
        .collect()
}

/// What the last step executes.
pub fn execution(plan: &Plan) -> (&[std::ffi::CString], &[std::ffi::CString]) {
    match plan.program.last() {
        Some(ProgramStep::Execute { args, env, .. }) => (args, env),
        _ => (&[], &[]),
    }
}
