//! Whoever enters a container that runs: a fork of the launcher, one for each errand, that joins, does what it was sent for, and tells its runtime over
//! a socket of their own.
//!
//! ```text
//!   launcher ──fork──> attendant ──joins all namespaces──> fork ──into the cgroups──> steps ──> the program
//!      └─ back to work     └─ waits for the program, and for the runtime: when that closes its socket, the program and its group are killed
//! ```
//!
//! The attendant itself stays outside of the container's PID namespace and cgroups: nothing inside can see it, signal it, or count it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::copy;
use super::home::Home;
use super::join::{self, Cgroups};
use super::program::{self, ABOUT_TO_EXECUTE, Streams, WAITING};
use super::setup::{Prepared, failure};
use super::terminal;
use super::weaken::Weaken;
use super::wire::{self, EnterRequest, Errand, Failure, Told};
use crate::kernel::process::ends_within;
use crate::steps::{self, EnterStep, Surroundings};

/// What came with a request.
struct Descriptors {
    control: OwnedFd,
    container: OwnedFd,
    streams: Option<Streams>,
    cgroups: Vec<OwnedFd>,
}

impl Descriptors {
    fn sort(errand: &Errand, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (control, container) = (fds.next()?, fds.next()?);
        let streams = match errand {
            Errand::Execute | Errand::Unpack { .. } | Errand::Pack(_) => {
                Some(Streams([fds.next()?, fds.next()?, fds.next()?]))
            }
            Errand::ExecuteOnTerminal(_) => None,
        };
        Some(Self { control, container, streams, cgroups: fds.collect() })
    }

    fn numbers(&self) -> Vec<i32> {
        let streams = self.streams.iter().flat_map(|streams| &streams.0);
        let all = [&self.control, &self.container].into_iter().chain(streams).chain(&self.cgroups);
        all.map(AsRawFd::as_raw_fd).collect()
    }
}

/// Sends somebody in; returns its pidfd at once.
pub fn start(home: &Home, request: &EnterRequest, fds: Vec<OwnedFd>) -> Result<OwnedFd, Failure> {
    let missing = || failure("read the request".to_owned(), &io::Error::other("descriptors are missing"));
    let fds = Descriptors::sort(&request.errand, fds).ok_or_else(missing)?;
    let forked = fork().map_err(|error| failure("start a process that enters".to_owned(), &error))?;
    match forked {
        Some((_, pidfd)) => Ok(pidfd),
        None => attend(home, request, fds),
    }
}

/// The child's number and pidfd, nothing in the child.
fn fork() -> io::Result<Option<(i32, OwnedFd)>> {
    let mut pidfd = -1_i32;
    let args = crate::kernel::sys::CloneArgs {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    // SAFETY: a fork of a single-threaded process: the child may do whatever the parent may.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
        0 => Ok(None),
        // SAFETY: the kernel has just made it for us.
        pid @ 1.. => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Never returns. A runtime that is gone needs to be told nothing.
fn attend(home: &Home, request: &EnterRequest, fds: Descriptors) -> ! {
    let apart = stand_apart(&fds);
    let Descriptors { control, container, streams, cgroups } = fds;
    let told = match apart.and_then(|()| run(home, request, &control, container, streams, cgroups)) {
        Ok(status) => Told::Ended(status),
        Err(failure) => Told::Failed(failure),
    };
    let code = i32::from(wire::send(control.as_fd(), &told, &[]).is_err());
    // SAFETY: ends this process at once, without the destructors of its launcher's memory.
    unsafe { libc::_exit(code) }
}

/// With nothing of the launcher's. Ends of children are waited for here, where the launcher lets the kernel bury its own.
fn stand_apart(fds: &Descriptors) -> Result<(), Failure> {
    // SAFETY: a plain call.
    let waits = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } != libc::SIG_ERR;
    let waits = if waits { Ok(()) } else { Err(io::Error::last_os_error()) };
    let apart = waits.and_then(|()| join::close_all_but(&fds.numbers()));
    apart.map_err(|error| failure("stand apart from the launcher".to_owned(), &error))
}

fn run(
    home: &Home,
    request: &EnterRequest,
    control: &OwnedFd,
    container: OwnedFd,
    streams: Option<Streams>,
    cgroups: Vec<OwnedFd>,
) -> Result<i32, Failure> {
    let at = |step: &'static str| move |error: io::Error| failure(step.to_owned(), &error);
    let cgroups = Cgroups::of(cgroups, request.into_cgroup).map_err(at("open the container's cgroups"))?;
    let shared = if home.without.contains(&Weaken::UserNamespace) { libc::CLONE_NEWUSER } else { 0 };
    join::namespaces(container.as_fd(), shared).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => at("enter the container")(io::Error::other("it has ended")),
        _ => at("enter the container")(error),
    })?;
    let (terminal, streams) = match (streams, &request.errand) {
        (Some(streams), _) => (None, streams),
        (None, Errand::ExecuteOnTerminal(window)) => {
            let opened = on_terminal(*window, request.spec.user.uid).map_err(at("open a terminal in the container"))?;
            (Some(opened.0), opened.1)
        }
        (None, _) => return Err(at("connect its standard streams")(io::ErrorKind::NotFound.into())),
    };
    let program = start_program(home, request, &container, &cgroups, streams)?;
    drop(container);
    let beside: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    if wire::send(control.as_fd(), &Told::Started, &beside).is_err() {
        program.kill();
    }
    drop(terminal);
    let status = program.wait(Some(control));
    if let Errand::Unpack { path, must_be_folder } = &request.errand {
        copy::clean(path, *must_be_folder, number());
    }
    Ok(status)
}

/// What the folder is called in which somebody unpacks: the attendant's number, which no other has at this time.
fn number() -> u32 {
    std::process::id()
}

fn on_terminal(window: wire::Window, owner: u32) -> io::Result<(OwnedFd, Streams)> {
    let (outer, inner) = terminal::open(window, owner)?;
    let streams = Streams([inner.try_clone()?, inner.try_clone()?, inner]);
    Ok((outer, streams))
}

/// A program that runs beside the app.
struct Program {
    pid: i32,
    pidfd: OwnedFd,
}

/// Returns when the program has been executed. Of one that could not be nothing is left.
fn start_program(
    home: &Home,
    request: &EnterRequest,
    container: &OwnedFd,
    cgroups: &Cgroups,
    streams: Streams,
) -> Result<Program, Failure> {
    let at = |step: &'static str| move |error: io::Error| failure(step.to_owned(), &error);
    let around = Surroundings {
        address: std::net::Ipv4Addr::UNSPECIFIED,
        nameservers: Vec::new(),
        present: Vec::new(),
        most_open_files: home.most_open_files,
        bare: false,
    };
    let plan = steps::plan(&request.spec, &around);
    let steps = match request.errand {
        Errand::Execute => steps::execution(&plan, false),
        Errand::ExecuteOnTerminal(_) => steps::execution(&plan, true),
        Errand::Unpack { .. } | Errand::Pack(_) => steps::errand(&plan),
    };
    let number = number();
    let prepared = Prepared::of(&plan, &request.spec);
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| at("make a pipe")(error.into()));
    let ((wait, go), (told, report)) = (pipe()?, pipe()?);
    let forked = fork().map_err(|error| {
        // Of a PID namespace that has lost its init the kernel says that there is no memory.
        let ended = error.raw_os_error() == Some(libc::ENOMEM)
            && ends_within(container.as_fd(), Duration::ZERO).unwrap_or(false);
        at("start a process in the container")(if ended { io::Error::other("it has ended") } else { error })
    })?;
    let Some((pid, pidfd)) = forked else {
        drop((go, told));
        let work = program::Work { home, plan: &plan, steps: &steps, prepared: &prepared, streams: &streams };
        work.begin(&wait, &report, || program::errand(&request.errand, owner(request), number))
    };
    drop((wait, report, streams));
    let program = Program { pid, pidfd };
    let counted = cgroups.take(pid);
    if let Err(error) = counted.and_then(|()| Ok(rustix::io::write(&go, b"g").map(drop)?)) {
        program.kill();
        program.wait(None);
        // It may have failed itself, and have said so.
        let own = outcome(&told, &steps).filter(|failure| failure.errno.is_some());
        return Err(own.unwrap_or_else(|| at("put the program into the container's cgroups")(error)));
    }
    match outcome(&told, &steps) {
        None => Ok(program),
        Some(failure) => {
            program.kill();
            program.wait(None);
            Err(failure)
        }
    }
}

/// Files that come in are the app's.
fn owner(request: &EnterRequest) -> copy::Owner {
    copy::Owner { uid: request.spec.user.uid, gid: request.spec.user.gid }
}

/// What the report says; nothing when the program has been executed.
fn outcome(told: &OwnedFd, steps: &[EnterStep]) -> Option<Failure> {
    let mut said = Vec::new();
    let mut piece = [0_u8; 16];
    loop {
        match rustix::io::read(told, &mut piece) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&piece[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Some(failure("hear of the program's start".to_owned(), &error.into())),
        }
    }
    let about_to_execute = said.first() == Some(&ABOUT_TO_EXECUTE);
    let rest = if about_to_execute { &said[1..] } else { &said[..] };
    if rest.is_empty() && about_to_execute {
        return None;
    }
    let number = |at: usize| rest.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    Some(match (number(0), number(4)) {
        (Some(step), Some(errno)) => {
            let step = match step {
                WAITING => "wait for the container's cgroups".to_owned(),
                step => steps.get(step as usize).map_or_else(String::new, program::describe),
            };
            failure(step, &io::Error::from_raw_os_error(errno))
        }
        _ => failure("start a process in the container".to_owned(), &io::Error::other("it was killed")),
    })
}

impl Program {
    /// The program and its group; who left the group stays.
    fn kill(&self) {
        // SAFETY: plain calls; the number is a child's that was not waited for yet. Before it has a group, or when all have ended, there is none.
        unsafe {
            libc::kill(-self.pid, libc::SIGKILL);
            libc::kill(self.pid, libc::SIGKILL);
        }
    }

    /// Its wait status. While it runs, the end of the other side of `control` is its end.
    fn wait(&self, control: Option<&OwnedFd>) -> i32 {
        let mut control = control;
        loop {
            let mut polls = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            polls.extend(control.map(|socket| PollFd::new(socket, PollFlags::IN)));
            match poll(&mut polls, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) => {}
            }
            if !polls[0].revents().is_empty() {
                break;
            }
            if polls.get(1).is_some_and(|socket| !socket.revents().is_empty()) {
                self.kill();
                control = None;
            }
        }
        let mut status = 0;
        // SAFETY: our own child; the status is ours.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        status
    }
}
