//! The launcher processes of a runtime: started, lent to one launch at a time, replaced when they die.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use super::config::LauncherCommand;
use super::here::Here;
use super::machine;
use crate::kernel::cgroup::{CgroupError, Cgroups};
use crate::launch::wire::{self, Failure, Message, Reply};
use crate::launch::{CPU_VARIABLE, LAUNCHER_VARIABLE, Moment, SOCKET_FD};

/// Why a launcher did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The process could not be started.
    #[error("cannot start the launcher {program}")]
    Start {
        /// What was to be executed.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It could not make its surroundings.
    #[error("the launcher could not {}: {}", .0.step, .0.cause)]
    Home(Failure),
    /// It ended in the midst of a launch, or before the first.
    #[error("the launcher {program} ended unexpectedly; does it call launcher_main?")]
    Gone {
        /// What it was.
        program: String,
    },
    /// The socket failed.
    #[error("cannot speak with the launcher")]
    Socket(#[source] io::Error),
    /// Its cgroups could not be set.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// What a launcher said.
#[derive(Debug)]
pub enum Outcome {
    /// The program has been executed.
    Started { pid: u32, pidfd: OwnedFd, started_unix_ms: u64, moments_ns: Vec<(Moment, u64)> },
    /// Somebody is on the way into a container.
    Entered(OwnedFd),
    /// Nothing is left.
    Failed(Failure),
}

#[derive(Debug)]
struct Launcher {
    /// The CPU it keeps to.
    cpu: usize,
    socket: OwnedFd,
    process: Child,
    buffer: Vec<u8>,
}

/// All launchers; those not in the list are at work.
#[derive(Debug)]
pub struct Launchers {
    command: LauncherCommand,
    idle: Mutex<Vec<Launcher>>,
    available: Condvar,
}

impl Launchers {
    /// Starts `count` launchers.
    pub fn start(command: LauncherCommand, count: usize, cgroups: &Cgroups) -> Result<Self, LauncherError> {
        let all = Self { command, idle: Mutex::new(Vec::new()), available: Condvar::new() };
        let cpus = allowed_cpus();
        for cpu in cpus.iter().cycle().take(count.max(1)) {
            let launcher = Launcher::start(&all.command, *cpu, cgroups)?;
            all.give_back(launcher);
        }
        Ok(all)
    }

    /// Hands one request to a launcher and waits for the outcome. A launcher that has ended is replaced; the request is repeated only where it cannot
    /// have been read: a reset connection tells that it was not.
    pub fn ask(
        &self,
        request: &impl Message,
        fds: &[BorrowedFd<'_>],
        cgroups: &Cgroups,
    ) -> Result<Outcome, LauncherError> {
        let mut launcher = self.take();
        let _near = (launcher.cpu == rustix::thread::sched_getcpu()).then(Here::stay);
        let mut answer = launcher.exchange(request, fds);
        if answer.as_ref().is_err_and(was_not_read) {
            launcher = self.replacement(launcher, cgroups)?;
            answer = launcher.exchange(request, fds);
        }
        if !matches!(answer, Ok(Some(_))) {
            launcher = self.replacement(launcher, cgroups)?;
        }
        self.give_back(launcher);
        match answer {
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) => Err(LauncherError::Gone { program: self.command.program.display().to_string() }),
            Err(error) => Err(LauncherError::Socket(error)),
        }
    }

    /// Process numbers of the idle ones.
    pub fn pids(&self) -> Vec<u32> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|launcher| launcher.process.id()).collect()
    }

    fn take(&self) -> Launcher {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match nearest(&mut idle) {
                Some(launcher) => return launcher,
                None => idle = self.available.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, launcher: Launcher) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(launcher);
        self.available.notify_one();
    }

    /// If no new one can be started the old one goes back, so that the next launch tries again instead of waiting for ever.
    fn replacement(&self, old: Launcher, cgroups: &Cgroups) -> Result<Launcher, LauncherError> {
        match Launcher::start(&self.command, old.cpu, cgroups) {
            Ok(fresh) => {
                let pid = old.process.id();
                tracing::warn!(pid, "a launcher had ended and was replaced");
                drop(old);
                machine::bury_orphans(pid);
                Ok(fresh)
            }
            Err(error) => {
                self.give_back(old);
                Err(error)
            }
        }
    }
}

impl Launcher {
    fn start(command: &LauncherCommand, cpu: usize, cgroups: &Cgroups) -> Result<Self, LauncherError> {
        let program = command.program.display().to_string();
        let (ours, theirs) = pair().map_err(LauncherError::Socket)?;
        let inherited = theirs.as_raw_fd();
        let mut child = Command::new(&command.program);
        child.args(&command.args).stdin(Stdio::null()).stdout(Stdio::null()).env(LAUNCHER_VARIABLE, "1");
        child.env(CPU_VARIABLE, cpu.to_string());
        // Its own group: what it leaves when it dies is known by it, and a terminal's signals are for this process, not for containers.
        child.process_group(0);
        // SAFETY: only async-signal-safe calls; dup2 clears close-on-exec, fcntl does when the number is right already.
        unsafe {
            child.pre_exec(move || {
                let result = if inherited == SOCKET_FD {
                    libc::fcntl(SOCKET_FD, libc::F_SETFD, 0)
                } else {
                    libc::dup2(inherited, SOCKET_FD)
                };
                if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let process = child.spawn().map_err(|source| LauncherError::Start { program: program.clone(), source })?;
        drop(theirs);
        let mut launcher = Self { cpu, socket: ours, process, buffer: Vec::new() };
        cgroups.adopt_launcher(launcher.process.id())?;
        match wire::receive::<Reply>(launcher.socket.as_fd(), &mut launcher.buffer).map_err(LauncherError::Socket)? {
            Some((Reply::Ready, _)) => Ok(launcher),
            Some((Reply::Failed(failure), _)) => Err(LauncherError::Home(failure)),
            _ => Err(LauncherError::Gone { program }),
        }
    }

    fn exchange(&mut self, request: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Outcome>> {
        wire::send(self.socket.as_fd(), request, fds)?;
        let Some((reply, fds)) = wire::receive::<Reply>(self.socket.as_fd(), &mut self.buffer)? else {
            return Ok(None);
        };
        Ok(match (reply, fds.into_iter().next()) {
            (Reply::Started { pid, started_unix_ms, moments_ns }, Some(pidfd)) => {
                Some(Outcome::Started { pid, pidfd, started_unix_ms, moments_ns })
            }
            (Reply::Entered, Some(pidfd)) => Some(Outcome::Entered(pidfd)),
            (Reply::Failed(failure), _) => Some(Outcome::Failed(failure)),
            _ => None,
        })
    }
}

impl Drop for Launcher {
    /// A launcher ends when its socket closes; its containers do not.
    fn drop(&mut self) {
        let shut = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Err(error) = shut.map_err(io::Error::from).and_then(|()| self.process.wait()) {
            tracing::debug!(%error, "a launcher had ended before");
        }
    }
}

/// CPUs that this process may use; one at least.
fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    let all: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if all.is_empty() { vec![0] } else { all }
}

/// The one that keeps to the CPU this thread runs on, if it is idle: handing over to it wakes no other CPU. Else any.
fn nearest(idle: &mut Vec<Launcher>) -> Option<Launcher> {
    let here = rustix::thread::sched_getcpu();
    let near = idle.iter().rposition(|launcher| launcher.cpu == here);
    near.map(|at| idle.swap_remove(at)).or_else(|| idle.pop())
}

/// The kernel says "reset" when the other end closed with something unread in it, "broken pipe" when it had closed before.
fn was_not_read(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

/// Packets, kept whole, with room for the longest.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for socket in [&ours, &theirs] {
        sockopt::set_socket_send_buffer_size(socket, wire::PACKET_BYTES * 2)?;
    }
    Ok((ours, theirs))
}
