//! The launching process of one bundle: it opens what the steps need, clones the first process, and meets it at each stage.
//!
//! As in a cluster's launcher the child runs in this process's memory, which therefore is never given back: with `create` this process ends first, and
//! the memory lives on with the child until it executes its program.

use std::ffi::c_char;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use oci_spec::runtime::State;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::aside::{self, Aside};
use super::cgroup::Groups;
use super::describe;
use super::network::Network;
use super::plan::{self, BundlePlan, stage};
use super::{OciError, trees};
use crate::kernel::namespace;
use crate::kernel::sys::{CloneArgs, clone3_on_stack};
use crate::launch::bundle::{Bundled, pass};
use crate::launch::child::{self, Shared};
use crate::launch::wire::Failure;

const STACK_BYTES: usize = 64 << 10;

/// What a launch gets beside its plan.
#[derive(Debug)]
pub struct Given<'a> {
    /// The socket that takes the terminal.
    pub console: Option<Console<'a>>,
    /// Where the fifo of `start` is to be, and the file for failures after this process has ended.
    pub later: Option<(PathBuf, PathBuf)>,
    /// The network that is being made apart, and where it comes out. That, with what it closes, and what is `before` have ended before the child goes on
    /// to what may run programs; what the child has inherited meanwhile goes with all that is not the program's.
    pub network: Option<(Network, OwnedFd)>,
    /// Must have ended before the child is seen by anybody in the container, too.
    pub before: Option<Aside>,
    /// Where the container's root file system is, for what is taken out of it.
    pub rootfs: &'a Path,
}

/// Who takes the terminal.
#[derive(Debug)]
pub enum Console<'a> {
    /// Whoever listens there.
    Socket(&'a Path),
    /// The other end of this one.
    Pair(OwnedFd),
}

/// A container whose first process exists.
#[derive(Debug)]
pub struct Live {
    shared: &'static Shared<'static>,
    bundled: &'static Bundled,
    plan: &'static BundlePlan,
    states: Option<[File; 2]>,
    network: Option<Network>,
    before: Option<Aside>,
    later: Option<OwnedFd>,
    mounts: Option<OwnedFd>,
    /// Of the first process.
    pub pid: u32,
    /// The same.
    pub pidfd: OwnedFd,
}

/// Descriptors that live until the clone, which inherits them.
struct Opened {
    root: Option<OwnedFd>,
    trees: Vec<OwnedFd>,
    namespaces: Vec<OwnedFd>,
    network: Option<OwnedFd>,
    later: Option<(OwnedFd, OwnedFd)>,
    console: Option<OwnedFd>,
    start: Option<OwnedFd>,
    outcome: Option<OwnedFd>,
    states: Option<[File; 2]>,
    own: OwnedFd,
}

/// Opens everything and clones. The child goes on as far as it can: to [`plan::stage::BORN`] or [`plan::stage::GROUPED`].
pub fn bear(plan: BundlePlan, mut given: Given<'_>) -> Result<Live, OciError> {
    let (network, network_end) = given.network.take().unzip();
    // Where others live, or the container's own hooks come first, they may reach what the child inherits of it until it closes all that is not the program's.
    let is_alone = plan.new_namespaces & libc::CLONE_NEWPID != 0 && !plan.has_child_hooks;
    let before = given.before.take().filter(|_| is_alone);
    if let Some(network) = network.as_ref().filter(|_| !is_alone) {
        network.settle();
    }
    let opened = Opened { network: network_end, ..open(&plan, given)? };
    let plan: &'static BundlePlan = Box::leak(Box::new(plan));
    let bundled: &'static Bundled = Box::leak(Box::new(bundled(plan, &opened)));
    // In one piece, as of that size the allocator asks the kernel, whose pages are zero already.
    let stacks: &'static [u128] = Box::leak(vec![0; 2 * STACK_BYTES / size_of::<u128>()].into_boxed_slice());
    let (child_stack, program_stack) = stacks.split_at(stacks.len() / 2);
    let top = program_stack.as_ptr() as usize + STACK_BYTES;
    let shared: &'static Shared<'static> = Box::leak(Box::new(shared(plan, bundled, &opened, top)));
    if let Some(path) = &plan.pid_namespace {
        enter_pid(path)?;
    }
    // SAFETY: a plain call; whoever dumped this process would find the host in it.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    let (pid, pidfd) = clone(plan, shared, child_stack)?;
    let later = opened.later.map(|(ours, _)| ours);
    Ok(Live { shared, bundled, plan, states: opened.states, network, before, later, mounts: None, pid, pidfd })
}

fn open(plan: &BundlePlan, given: Given<'_>) -> Result<Opened, OciError> {
    let by_path =
        |path: &PathBuf| File::open(path).map(OwnedFd::from).map_err(OciError::file("open the namespace", path));
    let own =
        pidfd_open(getpid(), PidfdFlags::empty()).map_err(|error| OciError::kernel("open a pidfd")(error.into()))?;
    let (start, outcome) = match &given.later {
        Some((start, outcome)) => (Some(fifo(start)?), Some(file(outcome)?)),
        None => (None, None),
    };
    Ok(Opened {
        root: plan.root.as_ref().map(trees::open_part).transpose()?,
        trees: plan.trees.iter().map(|tree| trees::open(tree, given.rootfs)).collect::<Result<_, _>>()?,
        namespaces: plan.namespaces.iter().map(|(path, _)| by_path(path)).collect::<Result<_, _>>()?,
        network: None,
        later: (!plan.sent.is_empty()).then(|| pair("make a socket for the container's cgroups")).transpose()?,
        console: given.console.map(console).transpose()?,
        start,
        outcome,
        states: if plan.has_child_hooks { Some([memory()?, memory()?]) } else { None },
        own,
    })
}

/// Two ends of one socket, for what the error says.
pub fn pair(what: &str) -> Result<(OwnedFd, OwnedFd), OciError> {
    let made = std::os::unix::net::UnixStream::pair();
    made.map(|(ours, theirs)| (ours.into(), theirs.into())).map_err(OciError::kernel(what))
}

/// Open for both ways: see [`super::BundleStep::AwaitStart`].
fn fifo(path: &Path) -> Result<OwnedFd, OciError> {
    let made = rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    made.map_err(|error| OciError::file("make", path)(error.into()))?;
    let opened = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| OciError::file("open", path)(error.into()))
}

fn file(path: &Path) -> Result<OwnedFd, OciError> {
    File::create(path).map(OwnedFd::from).map_err(OciError::file("make", path))
}

fn memory() -> Result<File, OciError> {
    let made = rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC);
    made.map(File::from).map_err(|error| OciError::kernel("make a file in memory")(error.into()))
}

fn console(console: Console<'_>) -> Result<OwnedFd, OciError> {
    let path = match console {
        Console::Pair(socket) => return Ok(socket),
        Console::Socket(path) => path,
    };
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.map(OwnedFd::from).map_err(OciError::file("connect to the console socket", path))
}

fn bundled(plan: &BundlePlan, opened: &Opened) -> Bundled {
    let fd = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let states = opened.states.as_ref().map_or([-1; 2], |states| states.each_ref().map(AsRawFd::as_raw_fd));
    let (start, outcome) = (fd(&opened.start), fd(&opened.outcome));
    let mut kept: Vec<i32> = [start, outcome, states[1]].into_iter().filter(|fd| *fd >= 0).collect();
    kept.sort_unstable();
    Bundled {
        reached: AtomicU32::new(0),
        hook_status: AtomicI32::new(0),
        namespaces: plan.first_process.into_iter().chain(opened.namespaces.iter().map(AsRawFd::as_raw_fd)).collect(),
        network: fd(&opened.network),
        trees: opened.trees.iter().map(AsRawFd::as_raw_fd).collect(),
        later: opened.later.as_ref().map_or(-1, |(_, theirs)| theirs.as_raw_fd()),
        start,
        console: fd(&opened.console),
        states,
        outcome,
        kept,
    }
}

fn shared(plan: &'static BundlePlan, bundled: &'static Bundled, opened: &Opened, top: usize) -> Shared<'static> {
    let pointers = |strings: &[std::ffi::CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = plan::execution(&plan.steps);
    Shared {
        launcher: opened.own.as_raw_fd(),
        root: opened.root.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        filter: plan.filter.as_ref().map_or(&[], |compiled| &compiled.program),
        program_stack_top: top,
        bundle: Some(bundled),
        ..Shared::new(&plan.steps, pointers(args), pointers(env))
    }
}

fn enter_pid(path: &Path) -> Result<(), OciError> {
    let fd = File::open(path).map_err(OciError::file("open the namespace", path))?;
    // SAFETY: a plain call; only children of this process are affected.
    let result = unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWPID) };
    if result == 0 { Ok(()) } else { Err(OciError::file("enter the namespace", path)(std::io::Error::last_os_error())) }
}

fn clone(
    plan: &BundlePlan,
    shared: &'static Shared<'static>,
    stack: &'static [u128],
) -> Result<(u32, OwnedFd), OciError> {
    let mut pidfd = -1_i32;
    let flags = plan.new_namespaces | libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
    let args = CloneArgs {
        flags: flags as u32 as u64,
        pidfd: &raw mut pidfd as u64,
        child_tid: shared.alive.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_ptr() as u64,
        stack_size: STACK_BYTES as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the stack is the child's alone and, as `shared` is, never given back; `body` keeps the rules of a child in shared memory.
    let pid = unsafe { clone3_on_stack(&args, child::body, shared as *const Shared<'_> as usize) };
    if pid < 0 {
        let error = std::io::Error::from_raw_os_error(-pid as i32);
        return Err(OciError::kernel("create the container's first process in its namespaces")(error));
    }
    // SAFETY: the kernel has just made it for us.
    Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

impl Live {
    /// Maps ids, and sets what only others can set of a process.
    pub fn settle(&self) -> Result<(), OciError> {
        let pid = self.pid;
        let write = |file: &str, text: &str| {
            let path = PathBuf::from(format!("/proc/{pid}/{file}"));
            std::fs::write(&path, text).map_err(OciError::file("write", path))
        };
        if let Some([users, groups]) = &self.plan.ids {
            write("uid_map", users)?;
            write("gid_map", groups)?;
        }
        if let Some(score) = self.plan.oom_score {
            write("oom_score_adj", &score.to_string())?;
        }
        self.go(stage::BORN);
        Ok(())
    }

    /// Puts it into its cgroups and gives it what it shows of them.
    pub fn join(&mut self, groups: &Groups) -> Result<(), OciError> {
        groups.join(self.pid)?;
        drop(self.before.take());
        if let Some(network) = &self.network {
            network.settle();
        }
        self.go(stage::GROUPED);
        let trees: Vec<OwnedFd> = self.plan.sent.iter().map(trees::open_part).collect::<Result<_, _>>()?;
        let Some(socket) = self.later.take() else { return Ok(()) };
        for tree in &trees {
            match pass::send(socket.as_raw_fd(), tree.as_raw_fd(), c"tree") as i32 {
                0.. => {}
                // Whoever is gone tells why.
                gone if [-libc::EPIPE, -libc::ECONNRESET].contains(&gone) => return self.meet(stage::READY),
                error => {
                    let error = std::io::Error::from_raw_os_error(-error);
                    return Err(OciError::kernel("send a tree of the container's cgroups")(error));
                }
            }
        }
        Ok(())
    }

    /// Gives the container's hooks its state: as it is while it is created, and afterwards.
    pub fn tell_state(&mut self, states: [&State; 2]) -> Result<(), OciError> {
        for (file, state) in self.states.iter_mut().flatten().zip(states) {
            let text = serde_json::to_vec(state).unwrap_or_default();
            file.write_all(&text).map_err(OciError::kernel("write the container's state for its hooks"))?;
        }
        Ok(())
    }

    /// Waits until the network has been sent to the child, where that is made apart.
    pub fn await_network(&mut self) -> Result<(), OciError> {
        self.network.take().map_or(Ok(()), Network::finish)
    }

    /// The stage is over: the child may go on.
    pub fn go(&self, stage: u32) {
        self.shared.go.store(stage, Ordering::Release);
        child::wake(&self.shared.go);
    }

    /// Waits until the child has reached the stage; or tells which step failed.
    pub fn meet(&self, stage: u32) -> Result<(), OciError> {
        loop {
            let reached = self.bundled.reached.load(Ordering::Acquire);
            if reached >= stage {
                return Ok(());
            }
            if self.has_failed() || self.shared.alive.load(Ordering::Acquire) == 0 {
                return Err(self.failure());
            }
            child::wait_while(&self.bundled.reached, reached);
        }
    }

    /// Waits until the program has been executed, or tells which step failed.
    pub fn await_execution(&self) -> Result<(), OciError> {
        loop {
            match self.shared.alive.load(Ordering::Acquire) {
                0 if self.has_failed() => return Err(self.failure()),
                0 => return Ok(()),
                value => child::wait_while(&self.shared.alive, value),
            }
        }
    }

    /// Keeps its file trees beyond its end, where the kernel gives them out (Linux 6.11): to take them apart would delay that.
    pub fn keep_mounts(&mut self) {
        self.mounts = namespace::mounts_of(self.pidfd.as_fd()).ok();
    }

    /// Lets go of them, aside. Before they are gone, they use what was given to the container.
    pub fn let_go_of_mounts(&mut self) -> Option<Aside> {
        self.mounts.take().and_then(aside::close)
    }

    /// Whether the host has hooks to run when all is mounted.
    pub fn pauses_mounted(&self) -> bool {
        self.plan.pauses_mounted
    }

    /// Whether one of its steps failed, up to and with the execution.
    pub fn has_failed(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == child::FAILED
    }

    /// Which step failed and why.
    pub fn failure(&self) -> OciError {
        if !self.has_failed() {
            let (step, cause) = ("set the container up".to_owned(), "its first process was killed".to_owned());
            return OciError::Step(Failure { step, cause, errno: None, undo: None });
        }
        let number = self.shared.failed_step.load(Ordering::Acquire) as usize;
        let errno = self.shared.failed_errno.load(Ordering::Acquire);
        let in_program = self.shared.failed_in_program.load(Ordering::Acquire) != 0;
        let step = describe::numbered(&self.plan.steps, in_program, number);
        let cause = describe::cause(
            &self.plan.steps,
            in_program,
            number,
            errno,
            self.bundled.hook_status.load(Ordering::Acquire),
        );
        OciError::Step(Failure { step, cause, errno: Some(errno), undo: None })
    }

    /// Ends what was begun and waits until it is gone. Gives why: the network's failure, which the child could not know, or the child's own, else `error`.
    pub fn give_up(&mut self, error: OciError) -> OciError {
        let network = self.await_network().err();
        let child = self.has_failed().then(|| self.failure());
        self.abandon();
        network.or(child).unwrap_or(error)
    }

    /// Ends what was begun and waits until it is gone.
    pub fn abandon(&self) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::error!(%error, pid = self.pid, "a process that was begun cannot be ended");
            return;
        }
        let mut look = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        while poll(&mut look, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
    }
}
