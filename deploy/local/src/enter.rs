//! Into a host: the process that holds its namespace, and how another process gets in.
//!
//! A holder is `bellows local-host CLUSTER HOST`: it made the namespace and does nothing else but be there, so that the host is there whatever
//! becomes of its agent. Its command line and its cgroup say whose it is; nothing has to be remembered.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup;
use crate::names::{ClusterName, HostName, WIRE};
use crate::processes::{self, Pid};

/// Hidden verb: a holder.
pub const HOLD: &str = "local-host";
/// Hidden verb: goes into a host and becomes another program there.
pub const ENTER: &str = "local-enter";
/// What a holder says when its namespace is there.
pub const READY: &str = "ready";

/// Where a host's own processes are, next to those of its replicas: no process may be in a directory that divides its resources (v2).
const SYSTEM: &str = "system";

/// No noise of its own from a network that is there to be watched.
const SYSCTLS: [&str; 2] = ["/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6"];

/// Why a process did not get in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody holds it.
    #[error("no process holds host {host} of local cluster {cluster}; is the cluster up?")]
    NotHeld {
        /// Which cluster.
        cluster: ClusterName,
        /// Which host.
        host: HostName,
    },
    /// Its file.
    #[error("cannot open the namespace {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The step itself.
    #[error("cannot {what} a network namespace")]
    Namespace {
        /// Make, or enter.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The hidden verbs.
    #[error("this verb is for Bellows itself: {0}")]
    Words(&'static str),
    /// What was to be executed.
    #[error("cannot execute {program}")]
    Execute {
        /// What.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Output.
    #[error("cannot say that the namespace is there")]
    Say(#[source] io::Error),
}

/// Where the holders of a cluster are.
pub fn holders_cgroup(cluster: &ClusterName) -> String {
    format!("{}/{WIRE}", cluster.cgroup())
}

/// Where a host's own processes are.
pub fn system_cgroup(cluster: &ClusterName, host: &HostName) -> String {
    format!("{}/{host}/{SYSTEM}", cluster.cgroup())
}

/// Every holder of a cluster, as its command line names it.
pub fn holders(cluster: &ClusterName) -> Vec<(String, Pid)> {
    let pids: BTreeSet<Pid> = cgroup::members(&holders_cgroup(cluster));
    let named = |pid: Pid| match &processes::command(pid)[..] {
        [_, verb, _, host] if verb == HOLD => Some((host.clone(), pid)),
        _ => None,
    };
    pids.into_iter().filter_map(named).collect()
}

/// A descriptor of a host's namespace, or of the wire's.
pub fn namespace(cluster: &ClusterName, host: &HostName) -> Result<File, Error> {
    let held = holders(cluster).into_iter().find(|(name, _)| name == host.as_str());
    let not_held = || Error::NotHeld { cluster: cluster.clone(), host: host.clone() };
    let (_, pid) = held.ok_or_else(not_held)?;
    open(&format!("/proc/{pid}/ns/net"))
}

/// A descriptor of the namespace that this thread is in.
pub fn own_namespace() -> Result<File, Error> {
    open("/proc/thread-self/ns/net")
}

fn open(path: &str) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Open { path: path.into(), source })
}

/// Does `work` on a thread that is in this namespace and ends afterwards, so that none has to come back.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("in a host".to_owned()).spawn_scoped(scope, || {
            step_into(namespace)?;
            Ok(work())
        });
        let joined = thread.map_err(Error::Thread)?.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn step_into(namespace: &File) -> Result<(), Error> {
    let failed = |errno: nix::Error| Error::Namespace { what: "enter", source: errno.into() };
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(failed)
}

/// Moves this process into a host: its network and its cgroup.
pub fn enter(cluster: &ClusterName, host: &HostName) -> Result<(), Error> {
    let namespace = namespace(cluster, host)?;
    cgroup::join(&system_cgroup(cluster, host))?;
    step_into(&namespace)
}

/// Becomes another program; returns only when that fails.
pub fn become_program(words: &[OsString]) -> Error {
    let Some((program, arguments)) = words.split_first() else { return Error::Words("a program is missing") };
    let source = Command::new(program).args(arguments).exec();
    Error::Execute { program: program.to_string_lossy().into_owned(), source }
}

/// `local-host CLUSTER HOST`: makes a namespace, says so, and holds it until it is killed. One thread.
pub fn hold_main() -> ExitCode {
    report(hold())
}

fn hold() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let [cluster, _host] = &words[..] else { return Err(Error::Words("CLUSTER HOST")) };
    let cluster: ClusterName = cluster.parse().map_err(|_| Error::Words("CLUSTER is no name"))?;
    cgroup::join(&holders_cgroup(&cluster))?;
    leave_terminal();
    let failed = |errno: nix::Error| Error::Namespace { what: "make", source: errno.into() };
    unshare(CloneFlags::CLONE_NEWNET).map_err(failed)?;
    quiet();
    let mut out = io::stdout();
    writeln!(out, "{READY}").and_then(|()| out.flush()).map_err(Error::Say)?;
    loop {
        nix::unistd::pause();
    }
}

/// A kernel without IPv6 has no such files, and then there is no noise either.
fn quiet() {
    for path in SYSCTLS {
        let _ = std::fs::write(path, "1");
    }
}

/// `local-enter CLUSTER HOST PROGRAM ARGUMENTS...`: for servers, which outlive the terminal. One thread until the other program begins.
pub fn enter_main() -> ExitCode {
    report(enter_and_become())
}

fn enter_and_become() -> Result<(), Error> {
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let [cluster, host, program @ ..] = &words[..] else { return Err(Error::Words("CLUSTER HOST PROGRAM")) };
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let cluster: ClusterName = text(cluster).parse().map_err(|_| Error::Words("CLUSTER is no name"))?;
    let host: HostName = text(host).parse().map_err(|_| Error::Words("HOST is no name"))?;
    leave_terminal();
    enter(&cluster, &host)?;
    Err(become_program(program))
}

/// Ctrl-C and a closing terminal are for the tool, not for what it started. Refused only to who leads a group already, and that has left.
fn leave_terminal() {
    let _ = nix::unistd::setsid();
}

fn report(result: Result<(), Error>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    eprintln!("{}", words.join(": "));
    ExitCode::FAILURE
}
