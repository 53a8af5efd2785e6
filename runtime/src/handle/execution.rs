//! A program that is executed in a running container, as its user holds it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::containers::Life;
use super::launchers::{Launchers, Outcome};
use super::types::Exit;
use super::{Error, machine};
use crate::kernel::cgroup::{Cgroups, Joining};
pub use crate::launch::wire::Window;
use crate::launch::wire::{self, EnterOrder, Errand, Failure, Told};
use crate::spec::{ContainerId, ContainerSpec};

/// From the order to the program's execution: a few milliseconds, on a machine that is short of everything some hundreds.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long whoever held a program's end may take to end itself.
const END_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How a program is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execute {
    /// Three pipes.
    Piped,
    /// A terminal of this size.
    OnTerminal(Window),
}

/// Files in or out of a container, as a tar archive with one top entry. It returns 0, or says on standard error what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// Read from standard input. Owned by the app's user.
    In {
        /// A folder takes what comes under its own name; else the last part becomes its name.
        path: PathBuf,
        /// Refuse what is not.
        must_be_folder: bool,
    },
    /// Written to standard output.
    Out {
        /// What.
        path: PathBuf,
    },
}

/// A program in a container. Dropping it kills the program and its process group.
#[derive(Debug)]
pub struct Execution {
    id: ContainerId,
    /// What it reads and writes.
    pub streams: ExecutionStreams,
    tie: Tie,
}

/// Our ends of a program's streams.
#[derive(Debug)]
pub enum ExecutionStreams {
    /// Dropping `input` is the end of its standard input.
    Piped {
        /// Standard input, to be written.
        input: Option<OwnedFd>,
        /// Standard output, to be read.
        output: OwnedFd,
        /// Standard error, to be read.
        errors: OwnedFd,
    },
    /// To be read and written; reading fails with EIO when nobody has the terminal open any more.
    Terminal(OwnedFd),
}

impl ExecutionStreams {
    /// Tells a terminal its new size; nothing without one.
    pub fn resize(&self, window: Window) -> io::Result<()> {
        match self {
            Self::Piped { .. } => Ok(()),
            Self::Terminal(terminal) => crate::launch::resize(terminal, window),
        }
    }
}

/// The socket that keeps it alive, and who holds its other end.
#[derive(Debug)]
struct Tie {
    control: Option<OwnedFd>,
    attendant: OwnedFd,
}

impl Drop for Tie {
    /// Waits until program and attendant are gone. If the launcher died or dies meanwhile, the attendant is our child, and a zombie until it is waited for.
    fn drop(&mut self) {
        drop(self.control.take());
        let mut polls = [PollFd::new(&self.attendant, PollFlags::IN)];
        if poll(&mut polls, Some(&END_PATIENCE)).is_ok_and(|ready| ready > 0) {
            machine::bury(self.attendant.as_fd());
        }
    }
}

impl AsFd for Execution {
    /// Readable when it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tie.as_fd()
    }
}

impl Tie {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_ref().map_or_else(|| self.attendant.as_fd(), AsFd::as_fd)
    }

    fn hear(&self) -> io::Result<Option<(Told, Vec<OwnedFd>)>> {
        wire::receive::<Told>(self.as_fd(), &mut Vec::new())
    }
}

impl Execution {
    /// How it ended; waits for the end.
    pub fn wait(&self) -> Result<Exit, Error> {
        match self.tie.hear() {
            Ok(Some((Told::Ended(status), _))) => Ok(exit(status)),
            Ok(Some((Told::Failed(failure), _))) => Err(Error::Enter { id: self.id.clone(), failure }),
            // Its attendant was killed, and it with that.
            Ok(Some((Told::Started, _)) | None) => Ok(Exit::Unknown),
            Err(error) => Err(Error::Machine("how a program ended", error)),
        }
    }
}

fn exit(status: i32) -> Exit {
    if libc::WIFEXITED(status) { Exit::Code(libc::WEXITSTATUS(status)) } else { Exit::Signal(libc::WTERMSIG(status)) }
}

/// Our ends and the program's.
struct Pipes {
    ours: [OwnedFd; 3],
    theirs: [OwnedFd; 3],
}

/// Owned by whom the program runs as, so that it can open `/dev/stdout`.
fn pipes(owner: (u32, u32)) -> io::Result<Pipes> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((input, to_input), (from_output, output), (from_errors, errors)) = (pipe()?, pipe()?, pipe()?);
    let theirs = [input, output, errors];
    for end in &theirs {
        rustix::fs::fchown(end, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    }
    Ok(Pipes { ours: [to_input, from_output, from_errors], theirs })
}

/// Sends somebody in to copy.
pub fn copy(
    launchers: &Launchers,
    cgroups: &Cgroups,
    life: &Life,
    spec: &ContainerSpec,
    what: Copy,
) -> Result<Execution, Error> {
    let errand = match what {
        Copy::In { path, must_be_folder } => Errand::Unpack { path, must_be_folder },
        Copy::Out { path } => Errand::Pack(path),
    };
    let pipes = pipes((0, 0)).map_err(|source| Error::Machine("pipes", source))?;
    let theirs: Vec<BorrowedFd<'_>> = pipes.theirs.iter().map(AsFd::as_fd).collect();
    let tie = send_in(launchers, cgroups, life, spec, &errand, &theirs)?;
    started(&spec.id, tie, Some(pipes.ours))
}

/// Sends somebody in and waits until the program has been executed.
pub fn start(
    launchers: &Launchers,
    cgroups: &Cgroups,
    life: &Life,
    spec: &ContainerSpec,
    how: Execute,
) -> Result<Execution, Error> {
    let pipes = match how {
        Execute::OnTerminal(_) => None,
        Execute::Piped => {
            let first = life.with_slot(&spec.id, |slot| Ok(slot.first_id))?;
            let made = pipes((first + spec.user.uid, first + spec.user.gid));
            Some(made.map_err(|source| Error::Machine("pipes", source))?)
        }
    };
    let errand = match how {
        Execute::Piped => Errand::Execute,
        Execute::OnTerminal(window) => Errand::ExecuteOnTerminal(window),
    };
    let theirs: Vec<BorrowedFd<'_>> = pipes.iter().flat_map(|pipes| &pipes.theirs).map(AsFd::as_fd).collect();
    let tie = send_in(launchers, cgroups, life, spec, &errand, &theirs)?;
    let ours = pipes.map(|pipes| pipes.ours);
    started(&spec.id, tie, ours)
}

fn send_in(
    launchers: &Launchers,
    cgroups: &Cgroups,
    life: &Life,
    spec: &ContainerSpec,
    errand: &Errand,
    beside: &[BorrowedFd<'_>],
) -> Result<Tie, Error> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| Error::Machine("a socket", error.into()))?;
    let outcome = life.with_slot(&spec.id, |slot| {
        if slot.group.is_frozen()? {
            return Err(Error::Frozen(spec.id.clone()));
        }
        let joining = slot.group.joining()?;
        let mut fds = vec![theirs.as_fd(), life.pidfd()];
        fds.extend(beside);
        match &joining {
            Joining::Write(procs) => fds.extend(procs.iter().map(|procs| procs.as_fd())),
            Joining::Into(dir) => fds.push(dir.as_fd()),
        }
        let order = EnterOrder { spec, errand, into_cgroup: matches!(joining, Joining::Into(_)) };
        let asked = launchers.ask(&order, &fds, cgroups);
        asked.map_err(|source| Error::EnterLauncher { id: spec.id.clone(), source })
    })?;
    match outcome {
        Outcome::Entered(attendant) => Ok(Tie { control: Some(ours), attendant }),
        Outcome::Failed(failure) => Err(Error::Enter { id: spec.id.clone(), failure }),
        Outcome::Started { .. } => Err(Error::Machine("the launcher's answer", io::ErrorKind::InvalidData.into())),
    }
}

fn started(id: &ContainerId, tie: Tie, pipes: Option<[OwnedFd; 3]>) -> Result<Execution, Error> {
    let failed = |step: &str, cause: &str| {
        let failure = Failure { step: step.to_owned(), cause: cause.to_owned(), errno: None, undo: None };
        Error::Enter { id: id.clone(), failure }
    };
    let patience = Timespec { tv_sec: START_PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut polls = [PollFd::from_borrowed_fd(tie.as_fd(), PollFlags::IN)];
    if poll(&mut polls, Some(&patience)).is_ok_and(|ready| ready == 0) {
        // Only this ends one that waits for a program which cannot begin.
        let ended = rustix::process::pidfd_send_signal(&tie.attendant, rustix::process::Signal::KILL);
        tracing::warn!(%id, ?ended, "a program did not begin");
        return Err(failed("start a program", "it did not begin within 10 s; is the container frozen?"));
    }
    match tie.hear().map_err(|source| Error::Machine("how a program began", source))? {
        Some((Told::Started, mut fds)) => {
            let streams = match pipes {
                Some([input, output, errors]) => ExecutionStreams::Piped { input: Some(input), output, errors },
                None => {
                    ExecutionStreams::Terminal(fds.pop().ok_or_else(|| failed("open a terminal", "none came back"))?)
                }
            };
            Ok(Execution { id: id.clone(), streams, tie })
        }
        Some((Told::Failed(failure), _)) => Err(Error::Enter { id: id.clone(), failure }),
        Some((Told::Ended(_), _)) | None => Err(failed("start a program", "whoever was sent in was killed")),
    }
}
