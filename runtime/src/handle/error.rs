//! What can go wrong, for which container.

use std::io;
use std::path::PathBuf;

use super::launchers::LauncherError;
use super::slots::SlotError;
use crate::kernel::cgroup::CgroupError;
use crate::launch::wire::Failure;
use crate::net::NetError;
use crate::spec::{ContainerId, SpecError};

/// What went wrong, for which container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification cannot work.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No container of this name is known here.
    #[error("no container {0} is known to this runtime")]
    NoSuchContainer(ContainerId),
    /// The container has ended already.
    #[error("container {0} has ended")]
    HasEnded(ContainerId),
    /// The container still runs.
    #[error("container {0} still runs: end and reap it first")]
    StillRuns(ContainerId),
    /// The name is taken, by a running container or one not yet forgotten.
    #[error("a container {0} exists already; forget it first")]
    Exists(ContainerId),
    /// A set-up step was refused. Everything was undone, but for what is named.
    #[error("container {id} was not started: cannot {}: {}{}", .failure.step, .failure.cause, undone(.failure))]
    Step {
        /// Which container.
        id: ContainerId,
        /// Which step, and why.
        failure: Failure,
    },
    /// Somebody could not enter a container, or not do there what they were sent for. Nothing is left of it.
    #[error("cannot {} in container {id}: {}", .failure.step, .failure.cause)]
    Enter {
        /// Which container.
        id: ContainerId,
        /// Which step, and why.
        failure: Failure,
    },
    /// All its processes are stopped in their tracks, and so would be whoever enters.
    #[error("container {0} is frozen: thaw it first")]
    Frozen(ContainerId),
    /// Who wanted it frozen does so no longer.
    #[error("container {0} was told to go on, or to end, before it was frozen")]
    Overtaken(ContainerId),
    /// The image's tree cannot be used.
    #[error("container {id} was not started: cannot use the image tree {root}")]
    Image {
        /// Which container.
        id: ContainerId,
        /// Which tree.
        root: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The launcher failed.
    #[error("container {id} was not started")]
    Launcher {
        /// Which container.
        id: ContainerId,
        /// How.
        #[source]
        source: LauncherError,
    },
    /// The launcher failed to send somebody in.
    #[error("cannot enter container {id}")]
    EnterLauncher {
        /// Which container.
        id: ContainerId,
        /// How.
        #[source]
        source: LauncherError,
    },
    /// No launcher could be started.
    #[error("cannot start the runtime")]
    Start(#[source] LauncherError),
    /// There is no slot.
    #[error("no room to prepare a container")]
    Slot(#[from] SlotError),
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A file of the state folder.
    #[error("cannot {what} {path}{}", remedy(source))]
    State {
        /// Doing what.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A container's record was written by a program that speaks with its init in another way.
    #[error(
        "{path} is the record of a container of version {found}, and this program knows {known}: start the program that wrote it, whose containers run on until then, or end them and remove that folder"
    )]
    RecordVersion {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// A container runs where this runtime would not look for it.
    #[error(
        "container {id} runs in cgroup {found}, not in one of {parent}: start with the cgroup that it was started with (--cgroup), or end its process {pid} first"
    )]
    Elsewhere {
        /// Which container.
        id: ContainerId,
        /// Its init.
        pid: u32,
        /// Where it is, below the root of the tree.
        found: PathBuf,
        /// Where it should be.
        parent: String,
    },
    /// A signal could not be sent.
    #[error("cannot send signal {signal} to container {id}")]
    Signal {
        /// To whom.
        id: ContainerId,
        /// Which.
        signal: i32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Processes that an unfinished launch left do not go, though killed.
    #[error(
        "cannot end processes {pids:?} of a launch that was never finished; what they wait for is in /proc/PID/stack: mend that, then start the runtime again"
    )]
    Unfinished {
        /// Which.
        pids: Vec<u32>,
    },
    /// A counter of the machine.
    #[error("cannot read {0}")]
    Machine(&'static str, #[source] io::Error),
}

/// How to mend what people can mend.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (make room on that disk)",
        io::ErrorKind::ReadOnlyFilesystem => " (make that file system writable)",
        _ => "",
    }
}

fn undone(failure: &Failure) -> String {
    failure.undo.as_ref().map_or_else(String::new, |undo| format!("; and it could not be undone: {undo}"))
}
