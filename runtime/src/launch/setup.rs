//! One launch, the launcher's side: the host steps of the plan, the clone, and what happens when a step fails.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Shared};
use super::describe;
use super::devices;
use super::home::Home;
use super::layers::Layers;
use super::moments::Moment;
use super::root::{self, Origin, Root};
use super::weaken::{self, Weaken};
use super::wire::{Failure, Request};
use crate::kernel::mount;
use crate::kernel::namespace;
use crate::kernel::seccomp::{self, Instruction};
use crate::kernel::sys::{CLONE_INTO_CGROUP, CloneArgs, clone3_on_stack};
use crate::spec::ContainerSpec;
use crate::steps::{self, ChildStep, HostStep, Plan, ProgramStep, Surroundings};

/// The kernel hands a group's CPU time out to CPUs 5 ms at a time, of what it has for 100 ms: with this much, two of them have some.
const AMPLE_CPU_MILLI: u64 = 100;

/// What came with a request.
#[derive(Debug)]
pub struct Descriptors {
    image: OwnedFd,
    network: OwnedFd,
    sys: OwnedFd,
    /// Two log files and the record.
    kept: [OwnedFd; 3],
    /// With [`Layers::Detached`].
    devices: Option<OwnedFd>,
    /// One that is there.
    root: Option<Root>,
    cgroups: Vec<OwnedFd>,
}

impl Descriptors {
    /// In the order that [`super::wire::Order`] tells; `None` when some are missing.
    pub fn sort(fds: Vec<OwnedFd>, request: &Request) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self {
            image: fds.next()?,
            network: fds.next()?,
            sys: fds.next()?,
            kept: [fds.next()?, fds.next()?, fds.next()?],
            devices: if request.layers == Layers::Detached { Some(fds.next()?) } else { None },
            root: match request.root {
                Origin::Launch => None,
                Origin::Given | Origin::Lent | Origin::LentAgain => {
                    Some(Root { scratch: fds.next()?, tree: fds.next()? })
                }
            },
            cgroups: fds.collect(),
        })
    }
}

/// A container whose program has been executed.
#[derive(Debug)]
pub struct Started {
    /// Of its init.
    pub pid: u32,
    /// The same.
    pub pidfd: OwnedFd,
    /// On the system-wide clock.
    pub started_unix_ms: u64,
    /// On the monotonic clock.
    pub moments_ns: Vec<(Moment, u64)>,
}

/// Plans and performs one launch. `tell` is called as soon as the program runs; the launch itself is over a little later, when the child has
/// let go of the launcher's memory.
pub fn launch(home: &Home, request: &Request, mut fds: Descriptors, tell: impl FnOnce(Started)) -> Result<(), Failure> {
    let around = Surroundings {
        address: request.address,
        nameservers: request.nameservers.clone(),
        present: home.present.clone(),
        most_open_files: home.most_open_files,
        bare: home.bare,
    };
    let mut plan = steps::plan(&request.spec, &around);
    weaken::apply(&home.without, home.proc.as_raw_fd(), &mut plan);
    let made = fds.root.take().filter(|_| !home.without.contains(&Weaken::Places));
    let mut under_way = UnderWay {
        home,
        request,
        fds: &fds,
        made,
        scratch: None,
        root: None,
        sys: None,
        pipes: None,
        moments_ns: Vec::with_capacity(48),
    };
    under_way.note(Moment::Planned);
    let shared = under_way.before_clone(&plan)?;
    under_way.clone_and_guide(&plan, shared, tell)
}

struct UnderWay<'a> {
    home: &'a Home,
    request: &'a Request,
    fds: &'a Descriptors,
    /// A root that is there, until it is this container's.
    made: Option<Root>,
    scratch: Option<OwnedFd>,
    root: Option<OwnedFd>,
    sys: Option<OwnedFd>,
    pipes: Option<[(OwnedFd, OwnedFd); 2]>,
    moments_ns: Vec<(Moment, u64)>,
}

fn writable(scratch: &Option<OwnedFd>) -> io::Result<&OwnedFd> {
    scratch.as_ref().ok_or(io::ErrorKind::NotFound.into())
}

/// What a clone gave back.
struct Cloned {
    pid: u32,
    pidfd: OwnedFd,
}

impl<'a> UnderWay<'a> {
    /// Of several of a kind, the last.
    fn note(&mut self, what: Moment) {
        match self.moments_ns.last_mut() {
            Some(last) if last.0 == what => last.1 = now_ns(),
            _ => self.moments_ns.push((what, now_ns())),
        }
    }

    fn without(&self, protection: Weaken) -> bool {
        self.home.without.contains(&protection)
    }

    /// Performs the steps up to the clone. Dropping what they made is their undoing: nothing is attached anywhere.
    fn before_clone(&mut self, plan: &Plan) -> Result<Prepared, Failure> {
        for step in plan.host.iter().take_while(|step| **step != HostStep::Clone) {
            self.perform(step).map_err(|error| failure(describe::host(step), &error))?;
            self.note(step.moment());
        }
        self.make_sys().map_err(|error| failure("make the container's /sys".to_owned(), &error))?;
        self.note(Moment::SysReady);
        Ok(Prepared::of(plan, &self.request.spec))
    }

    fn perform(&mut self, step: &HostStep) -> io::Result<()> {
        match step {
            HostStep::Scratch { size_bytes } => match self.made.take() {
                Some(Root { scratch, tree }) => {
                    let own = match self.request.root {
                        Origin::Lent | Origin::LentAgain => mount::copy_of(tree.as_fd(), c"")?,
                        Origin::Launch | Origin::Given => tree,
                    };
                    (self.scratch, self.root) = (Some(scratch), Some(own));
                }
                None => self.scratch = Some(self.scratch(*size_bytes)?),
            },
            HostStep::EtcFile { name, content } => self.etc_file(name, content)?,
            HostStep::Root => self.lay()?,
            HostStep::Pipes => self.pipes = Some([output_pipe()?, output_pipe()?]),
            HostStep::Clone | HostStep::MapIds | HostStep::Join | HostStep::Proc => {}
        }
        Ok(())
    }

    fn scratch(&self, size_bytes: u64) -> io::Result<OwnedFd> {
        let scratch = self.home.scratch.take(size_bytes)?;
        root::give(&scratch, self.request.first_id)?;
        if self.request.layers == Layers::Attached && !self.without(Weaken::Places) {
            let upper = rustix::fs::openat(&scratch, c"upper", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            devices::fill(upper.as_fd())?;
            devices::give(upper.as_fd(), self.request.first_id)?;
        }
        Ok(scratch)
    }

    fn etc_file(&self, name: &CStr, content: &[u8]) -> io::Result<()> {
        let scratch = writable(&self.scratch)?;
        let file = match self.root {
            // As it was made, or made again.
            Some(_) if content.is_empty() => return Ok(()),
            Some(_) => root::open_etc_file(scratch, name)?,
            None => root::make_etc_file(scratch, self.request.first_id, name)?,
        };
        root::write_etc_file(&file, content)
    }

    /// The writable layer over the image, where that was not done ahead.
    fn lay(&mut self) -> io::Result<()> {
        if self.root.is_some() {
            return Ok(());
        }
        let (scratch, image) = (writable(&self.scratch)?, self.fds.image.as_fd());
        root::resemble(scratch, image, &[root::ETC, root::TOP])?;
        let devices = self.fds.devices.as_ref().filter(|_| !self.without(Weaken::Places));
        self.root = Some(self.request.layers.overlay_of(devices.map(AsFd::as_fd), image, scratch)?);
        Ok(())
    }

    /// A copy of the slot's, or another one of the same network where the kernel copies only what is attached (before Linux 6.15).
    fn make_sys(&mut self) -> io::Result<()> {
        let sys = match mount::copy_of(self.fds.sys.as_fd(), c"") {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                namespace::inside_from(self.home.network.as_fd(), self.fds.network.as_fd(), mount::sysfs)?
            }
            other => other,
        };
        let sys = sys?;
        if self.without(Weaken::ReadOnly) {
            mount::make_writable(sys.as_fd())?;
        }
        self.sys = Some(sys);
        Ok(())
    }

    fn clone_and_guide(mut self, plan: &Plan, prepared: Prepared, tell: impl FnOnce(Started)) -> Result<(), Failure> {
        let Some(shared) = self.shared(plan, &prepared) else {
            return Err(failure("prepare the clone".to_owned(), &io::ErrorKind::NotFound.into()));
        };
        let cloned = self
            .clone_child(&shared)
            .map_err(|error| failure("create the container's first process".to_owned(), &error))?;
        self.note(Moment::Cloned);
        if let Err(error) = self.map_ids(cloned.pid) {
            return Err(self.abandon(&cloned, &shared, plan, failure(describe::host(&HostStep::MapIds), &error)));
        }
        self.note(Moment::Mapped);
        if let Err(failure) = self.join(cloned.pid) {
            return Err(self.abandon(&cloned, &shared, plan, failure));
        }
        self.note(Moment::Joined);
        if self.home.bare {
            if let Err(error) = self.make_proc(cloned.pidfd.as_fd()) {
                return Err(self.abandon(&cloned, &shared, plan, failure(describe::host(&HostStep::Proc), &error)));
            }
            self.note(Moment::ProcMounted);
        }
        shared.go.store(1, Ordering::Release);
        child::wake(&shared.go);
        match has_started(&shared) {
            true => {
                // Once it is told its CPU limit stands: with little of that, its init would be held up before it is executed, and we with it.
                if self.request.spec.limits.cpu_milli < AMPLE_CPU_MILLI {
                    await_release(&shared);
                }
                let started = self.started(cloned, &shared, plan);
                tell(started);
                await_release(&shared);
                // The program and its init go first: what is left to do here can be done while they end.
                // SAFETY: a plain call.
                unsafe { libc::sched_yield() };
                Ok(())
            }
            false => {
                let told = child_failure(&shared, plan);
                Err(self.end(&cloned, &shared, told))
            }
        }
    }

    fn shared<'b>(&self, plan: &'b Plan, prepared: &'b Prepared) -> Option<Shared<'b>>
    where
        'a: 'b,
    {
        let pipes = self.pipes.as_ref()?;
        let [log, other_log, record] = &self.fds.kept;
        Some(Shared {
            init_argv: [super::INIT_NAME.as_ptr(), prepared.half_log.as_ptr(), std::ptr::null(), std::ptr::null()],
            launcher: self.home.own.as_raw_fd(),
            root: self.root.as_ref()?.as_raw_fd(),
            scratch: match (self.request.layers, self.request.root) {
                (Layers::Attached, _) | (_, Origin::LentAgain) => None,
                (Layers::Detached, _) => self.scratch.as_ref().map(AsRawFd::as_raw_fd),
            },
            place: if self.home.bare { c"/" } else { c"/mnt" },
            empty: if self.home.bare { c"/" } else { c"/empty" },
            sys: self.sys.as_ref()?.as_raw_fd(),
            outputs: [pipes[0].1.as_raw_fd(), pipes[1].1.as_raw_fd()],
            init_fds: [&pipes[0].0, &pipes[1].0, log, other_log, record].map(AsRawFd::as_raw_fd),
            init: self.home.init.as_raw_fd(),
            filter: prepared.filter(self.home),
            cpus: &self.home.cpus,
            program_stack_top: self.home.program_stack_top(),
            ..Shared::new(plan, prepared.argv.clone(), prepared.envp.clone())
        })
    }

    fn clone_child(&self, shared: &Shared<'_>) -> io::Result<Cloned> {
        let flags = self.namespaces() | libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
        let mut pidfd = -1_i32;
        let (stack, stack_size) = self.home.child_stack();
        let mut args = CloneArgs {
            flags: flags as u32 as u64,
            pidfd: &raw mut pidfd as u64,
            child_tid: shared.alive.as_ptr() as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack as u64,
            stack_size: stack_size as u64,
            ..CloneArgs::default()
        };
        if self.request.into_cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = self.fds.cgroups.first().map_or(0, |dir| dir.as_raw_fd() as u64);
        }
        let context = shared as *const Shared<'_> as usize;
        // SAFETY: the stack belongs to one child at a time (the launcher waits for `alive` before the next), `body` keeps the rules of a
        // child in shared memory, and `shared` lives until `alive` is 0: every path from here waits for that.
        let clone = || unsafe { clone3_on_stack(&args, child::body, context) };
        // Whoever makes a user namespace pays for what is counted per user in it (inotify instances, queued signals): the container's own root, not
        // the host's, which would pay for all.
        let owner = if self.without(Weaken::UserNamespace) { 0 } else { self.request.first_id };
        let clone = || namespace::as_user(owner, clone);
        let network = if self.without(Weaken::NetworkNamespace) { &self.home.network } else { &self.fds.network };
        let pid = namespace::inside_from(self.home.network.as_fd(), network.as_fd(), clone)??;
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        // SAFETY: the kernel has just made it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Cloned { pid: pid as u32, pidfd })
    }

    fn namespaces(&self) -> libc::c_int {
        let mut all = libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        for (protection, flag) in
            [(Weaken::UserNamespace, libc::CLONE_NEWUSER), (Weaken::IpcNamespace, libc::CLONE_NEWIPC)]
        {
            if self.without(protection) {
                all &= !flag;
            }
        }
        if self.without(Weaken::CgroupNamespace) { all & !libc::CLONE_NEWCGROUP } else { all }
    }

    fn map_ids(&self, pid: u32) -> io::Result<()> {
        if self.without(Weaken::UserNamespace) {
            return Ok(());
        }
        let map = format!("0 {} 65536", self.request.first_id);
        for file in ["uid_map", "gid_map"] {
            let path = format!("{pid}/{file}");
            let fd = rustix::fs::openat(&self.home.proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(fd, map.as_bytes())?;
        }
        Ok(())
    }

    fn join(&self, pid: u32) -> Result<(), Failure> {
        let own: &[OwnedFd] = if self.request.into_cgroup { &[] } else { &self.fds.cgroups };
        let text = pid.to_string();
        own.iter().chain(&self.home.all_devices).try_for_each(|procs| match rustix::io::write(procs, text.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(self.joining(procs), &error.into())),
        })
    }

    /// With the path below the root of its tree: nothing else of it is seen from here.
    fn joining(&self, procs: &OwnedFd) -> String {
        let path = rustix::fs::readlinkat(&self.home.proc, format!("self/fd/{}", procs.as_raw_fd()), Vec::new());
        let path = path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        format!("{} by {path}", describe::host(&HostStep::Join))
    }

    /// On the overlay, which is attached nowhere yet.
    fn make_proc(&self, process: BorrowedFd<'_>) -> io::Result<()> {
        let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let proc = mount::proc_of(namespace::pids_of(process)?.as_fd())?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(proc.as_fd(), c"", root.as_fd(), c"proc", flags)?)
    }

    fn started(&mut self, cloned: Cloned, shared: &Shared<'_>, plan: &Plan) -> Started {
        self.note(Moment::Executed);
        let mut moments_ns = std::mem::take(&mut self.moments_ns);
        for (step, at) in plan.child.iter().zip(&shared.moments) {
            let (moment, at) = (step.moment(), at.load(Ordering::Relaxed));
            match moments_ns.last_mut() {
                _ if at == 0 => {}
                // Of several of a kind, the last.
                Some(last) if last.0 == moment => last.1 = at,
                _ => moments_ns.push((moment, at)),
            }
        }
        // In this order: in between time may pass, and nothing ends before it starts.
        let now_unix_ns = clock_ns(libc::CLOCK_REALTIME);
        let since_ns = now_ns().saturating_sub(program_began_ns(shared, plan));
        let started_unix_ms = now_unix_ns.saturating_sub(since_ns) / 1_000_000;
        Started { pid: cloned.pid, pidfd: cloned.pidfd, started_unix_ms, moments_ns }
    }

    /// After a step of ours that failed. Where the child had ended by itself before, that is why, and what it could not do is told.
    fn abandon(&self, cloned: &Cloned, shared: &Shared<'_>, plan: &Plan, failure: Failure) -> Failure {
        let ours = self.end(cloned, shared, failure);
        if shared.state.load(Ordering::Acquire) == child::FAILED {
            return Failure { undo: ours.undo, ..child_failure(shared, plan) };
        }
        ours
    }

    /// Ends what was begun and waits until it is gone; what cannot be undone is told with the failure.
    fn end(&self, cloned: &Cloned, shared: &Shared<'_>, mut failure: Failure) -> Failure {
        let killed = rustix::process::pidfd_send_signal(&cloned.pidfd, rustix::process::Signal::KILL);
        if let Err(error) = killed
            && error != rustix::io::Errno::SRCH
        {
            failure.undo = Some(format!("cannot end its first process {}: {error}", cloned.pid));
        }
        await_release(shared);
        await_end(cloned.pidfd.as_fd());
        failure
    }
}

/// When all was ready for the program: it may have ended before anybody looks at the clock again.
fn program_began_ns(shared: &Shared<'_>, plan: &Plan) -> u64 {
    let steps = plan.child.iter().take_while(|step| !matches!(step, ChildStep::StartProgram));
    steps.zip(&shared.moments).last().map_or_else(now_ns, |(_, at)| at.load(Ordering::Relaxed))
}

/// What the child points to, computed before clone.
pub struct Prepared {
    /// Arguments, null at the end.
    pub argv: Vec<*const std::ffi::c_char>,
    /// Environment, null at the end.
    pub envp: Vec<*const std::ffi::c_char>,
    half_log: CString,
    filter: Option<Vec<Instruction>>,
}

impl Prepared {
    /// Points into `plan`, which outlives the launch.
    pub fn of(plan: &Plan, spec: &ContainerSpec) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        let (argv, envp) = match plan.program.last() {
            Some(ProgramStep::Execute { args, env, .. }) => (pointers(args), pointers(env)),
            _ => (pointers(&[]), pointers(&[])),
        };
        let half_log = CString::new((spec.limits.log_bytes / 2).to_string()).unwrap_or_default();
        let is_own = !spec.deny_calls.is_empty() || !spec.add_calls.is_empty();
        let filter = is_own.then(|| seccomp::filter(&spec.deny_calls, &spec.add_calls));
        Self { argv, envp, half_log, filter }
    }

    /// Its own, or the one that most have.
    pub fn filter<'a>(&'a self, home: &'a Home) -> &'a [Instruction] {
        self.filter.as_deref().unwrap_or(&home.filter)
    }
}

/// The init reads without blocking; the program's end is an ordinary one.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}

/// Waits until the program has been executed, or will not be.
fn has_started(shared: &Shared<'_>) -> bool {
    while shared.state.load(Ordering::Acquire) == child::WAITING && shared.alive.load(Ordering::Acquire) != 0 {
        child::wait_while(&shared.state, child::WAITING);
    }
    shared.state.load(Ordering::Acquire) == child::RELEASED && shared.failed_in_program.load(Ordering::Acquire) == 0
}

/// Until the child has executed the init or is gone: then nobody else uses our memory.
fn await_release(shared: &Shared<'_>) {
    loop {
        match shared.alive.load(Ordering::Acquire) {
            0 => return,
            value => child::wait_while(&shared.alive, value),
        }
    }
}

fn await_end(pidfd: BorrowedFd<'_>) {
    let mut polls = [PollFd::new(&pidfd, PollFlags::IN)];
    while poll(&mut polls, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
}

fn child_failure(shared: &Shared<'_>, plan: &Plan) -> Failure {
    let number = shared.failed_step.load(Ordering::Acquire) as usize;
    let errno = shared.failed_errno.load(Ordering::Acquire);
    let step = if shared.failed_in_program.load(Ordering::Acquire) == 0 {
        plan.child.get(number).map(describe::child)
    } else {
        plan.program.get(number).map(describe::program)
    };
    match step {
        Some(step) => failure(step, &io::Error::from_raw_os_error(errno)),
        None => Failure {
            step: "set the container up".to_owned(),
            cause: "its first process was killed".to_owned(),
            errno: None,
            undo: None,
        },
    }
}

/// A step and the kernel's answer to it.
pub fn failure(step: String, error: &io::Error) -> Failure {
    Failure { step, cause: error.to_string(), errno: error.raw_os_error(), undo: None }
}

/// The monotonic clock, which all processes share.
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// A clock that every Linux has.
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
