//! `exec`: one more program in a container that runs, beside its first, by the same steps.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, LinuxNamespaceType, Process, Spec};
use rustix::fd::AsRawFd;

use super::{begin, control, wait};
use crate::oci::Sealed;
use crate::oci::aside::Aside;
use crate::oci::create::{self, Console, Given};
use crate::oci::plan::{BundlePlan, stage};
use crate::oci::process::{self, Around};
use crate::oci::state::{Files, Record};
use crate::oci::{BundleStep, OciError, capabilities, config, names, seccomp};
use crate::steps::{ChildStep, Plan};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct ExecuteOptions {
    /// A file with the whole process; what follows is not asked then.
    pub process: Option<PathBuf>,
    /// Program and arguments, in place of the container's own.
    pub args: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// `UID[:GID]`.
    pub user: Option<String>,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// Where it starts.
    pub cwd: Option<PathBuf>,
    /// More environment.
    pub env: Vec<String>,
    /// More capabilities.
    pub capabilities: Vec<String>,
    /// It may gain none.
    pub no_new_privileges: bool,
    /// The socket that takes the terminal.
    pub console_socket: Option<PathBuf>,
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// End when it runs.
    pub detach: bool,
    /// Descriptors above the three streams that are passed on.
    pub preserve_fds: u32,
}

/// Runs it; what it ended with, as a shell tells it, or 0 at once when detached. `sealed` will have been closed by then.
pub fn execute(root: &Path, id: &str, options: &ExecuteOptions, sealed: Option<Sealed>) -> Result<i32, OciError> {
    let before = sealed.and_then(Sealed::close);
    wait::check_preserved(options.preserve_fds)?;
    let files = Files::open(root, id)?;
    let record = files.whole("execute a program in")?;
    let status = files.status(&record);
    if !matches!(status, ContainerState::Running | ContainerState::Created) || record.groups.is_frozen() {
        let status = if record.groups.is_frozen() { "paused".to_owned() } else { status.to_string() };
        return Err(OciError::Status { what: "execute a program in", id: id.to_owned(), status });
    }
    let spec = files.config()?;
    let process = process_of(&spec, options)?;
    config::check_process(&process)?;
    let terminal = process.terminal().unwrap_or(false);
    let relayed = terminal && options.console_socket.is_none() && !options.detach;
    let (console, ours) = match relayed {
        true => {
            let (theirs, ours) = wait::pair()?;
            (Some(Console::Pair(theirs)), Some(ours))
        }
        false => (wait::console(terminal, options.console_socket.as_deref())?, None),
    };
    let signals = if options.detach { None } else { Some(wait::Signals::take()?) };
    let live = launch(&record, &spec, &process, options, console, before)?;
    let Some(signals) = signals else { return Ok(0) };
    wait::foreground(&live, &signals, ours)
}

fn launch(
    record: &Record,
    spec: &Spec,
    process: &Process,
    options: &ExecuteOptions,
    console: Option<Console<'_>>,
    before: Option<Aside>,
) -> Result<create::Live, OciError> {
    let ended = || OciError::Status {
        what: "execute a program in",
        id: record.id.clone(),
        status: ContainerState::Stopped.to_string(),
    };
    let pidfd = control::pidfd(record)?.ok_or_else(ended)?;
    let plan = plan(record, spec, process, options.preserve_fds, &pidfd)?;
    let given = Given { console, later: None, network: None, before, rootfs: Path::new("/") };
    let mut live = create::bear(plan, given)?;
    let guided = live.settle().and_then(|()| live.join(&record.groups)).and_then(|()| {
        live.meet(stage::READY)?;
        live.await_execution()?;
        begin::write_pid(options.pid_file.as_deref(), live.pid)
    });
    match guided {
        Ok(()) => Ok(live),
        Err(error) => Err(live.give_up(error)),
    }
}

/// All namespaces at once by the first process's descriptor, then the program's steps.
fn plan(
    record: &Record,
    spec: &Spec,
    process: &Process,
    preserved: u32,
    pidfd: &impl AsRawFd,
) -> Result<BundlePlan, OciError> {
    let linux = spec.linux().as_ref().ok_or_else(|| OciError::refused("linux", "is missing"))?;
    let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
    let around = Around {
        ready: stage::READY,
        preserved,
        filter: filter.as_ref().map(|compiled| compiled.flags),
        ..Around::default()
    };
    let named = linux.namespaces().iter().flatten().map(|namespace| names::namespace(namespace.typ()).0);
    let all = named.fold(0, |all, kind| all | kind) & !libc::CLONE_NEWPID;
    let bundle = ChildStep::Bundle;
    let mut child = vec![
        ChildStep::DieWithLauncher,
        bundle(BundleStep::Enter { namespace: 0, kind: all }),
        bundle(BundleStep::Wait(stage::GROUPED)),
    ];
    if config::has(linux, LinuxNamespaceType::User) {
        child.push(ChildStep::BecomeRoot);
    }
    child.push(ChildStep::BecomeProgram);
    let pid = config::has(linux, LinuxNamespaceType::Pid);
    Ok(BundlePlan {
        steps: Plan { host: Vec::new(), child, program: process::steps(process, around)? },
        root: None,
        trees: Vec::new(),
        sent: Vec::new(),
        namespaces: Vec::new(),
        first_process: Some(pidfd.as_raw_fd()),
        pid_namespace: pid.then(|| PathBuf::from(format!("/proc/{}/ns/pid", record.pid))),
        new_namespaces: 0,
        ids: None,
        filter,
        oom_score: process.oom_score_adj(),
        pauses_mounted: false,
        has_child_hooks: false,
    })
}

/// The process of a file, or the container's own with what the command line changes.
fn process_of(spec: &Spec, options: &ExecuteOptions) -> Result<Process, OciError> {
    if let Some(path) = &options.process {
        return config::parse(&std::fs::read(path).map_err(OciError::file("read", path))?, path);
    }
    let mut process = spec.process().clone().ok_or_else(|| OciError::refused("process", "is missing"))?;
    process.set_terminal(Some(options.tty)).set_args(Some(options.args.clone()));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let env = process.env().iter().flatten().chain(&options.env).cloned().collect();
    process.set_env(Some(env));
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    set_user(&mut process, options)?;
    add_capabilities(&mut process, options)?;
    Ok(process)
}

fn set_user(process: &mut Process, options: &ExecuteOptions) -> Result<(), OciError> {
    let mut user = process.user().clone();
    if let Some(text) = &options.user {
        let wrong = || OciError::refused("--user", format!("{text:?} is not UID or UID:GID"));
        let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(uid.parse().map_err(|_| wrong())?);
        if let Some(gid) = gid {
            user.set_gid(gid.parse().map_err(|_| wrong())?);
        }
    }
    if !options.additional_gids.is_empty() {
        let groups = user.additional_gids().iter().flatten().chain(&options.additional_gids).copied().collect();
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

fn add_capabilities(process: &mut Process, options: &ExecuteOptions) -> Result<(), OciError> {
    if options.capabilities.is_empty() {
        return Ok(());
    }
    let mut named = process.capabilities().clone().unwrap_or_default();
    for name in &options.capabilities {
        let unknown = || OciError::refused("--cap", format!("{name:?} is no capability"));
        capabilities::bit(name).ok_or_else(unknown)?;
        let bare = name.to_ascii_uppercase();
        let one = bare.strip_prefix("CAP_").unwrap_or(&bare).parse().map_err(|_| unknown())?;
        let add = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(one);
            Some(set)
        };
        let (bounding, effective, permitted) = (add(named.bounding()), add(named.effective()), add(named.permitted()));
        named.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    }
    process.set_capabilities(Some(named));
    Ok(())
}
