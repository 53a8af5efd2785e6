//! A double of the kernel that records every system call of a runtime, its launcher and what they clone, and refuses one of them.
//!
//! It stands between them and the real one (ptrace), so the code under test knows nothing of it: whatever call somebody adds is refused in its turn too.
//! Not refused are calls that cannot fail, those that get memory for the allocator (a process that gets none ends: that is the death of a
//! launcher, told elsewhere), the wait for a futex, and the way back from a container's network (a thread that cannot come back must not go on, so
//! its process ends, and the next one adopts).

use std::collections::{BTreeMap, BTreeSet};

use libc::user_regs_struct;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Whose calls they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The thread that was told to launch.
    Runtime,
    /// What the runtime forks: the holder of an id mapping, or a launcher before it is executed.
    Fork,
    /// A thread of its, which is let go.
    Thread,
    /// The launcher.
    Launcher,
    /// A container's first process, until it becomes the init.
    Child,
    /// A container's program, until it is executed.
    Program,
}

/// The call to refuse: the `index`th of `actor`.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub actor: Actor,
    pub index: usize,
    pub with: Answer,
}

/// What the kernel is made to say to a call; nothing where it could not say that.
pub type Answer = fn(u64) -> Option<i32>;

/// No memory: possible everywhere, and nothing takes it for an answer to act on.
pub fn no_memory(_: u64) -> Option<i32> {
    Some(libc::ENOMEM)
}

/// What else goes wrong on a machine that is used up or broken: no descriptors, no room on the disk, no processes, a broken disk.
pub fn used_up(nr: u64) -> Option<i32> {
    match nr.cast_signed() {
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_open_tree
        | libc::SYS_fsopen
        | libc::SYS_fsmount
        | libc::SYS_socket
        | libc::SYS_socketpair
        | libc::SYS_pidfd_open
        | libc::SYS_dup
        | libc::SYS_pipe2
        | libc::SYS_eventfd2 => Some(libc::EMFILE),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_mkdir | libc::SYS_mkdirat | libc::SYS_ftruncate => {
            Some(libc::ENOSPC)
        }
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_getdents64 => Some(libc::EIO),
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_vfork | libc::SYS_unshare => Some(libc::EAGAIN),
        _ => None,
    }
}

/// What was seen of one order.
#[derive(Debug, Default)]
pub struct Seen {
    /// In order, for each actor.
    pub calls: BTreeMap<Actor, Vec<u64>>,
    /// Which call was refused, and how.
    pub refused: Option<(u64, i32)>,
    /// Whether that was after the launcher had said that the program runs.
    pub after_reply: bool,
    /// The runtime's thread is in a container's network.
    inside: bool,
}

impl Seen {
    /// Whether the runtime comes back from a container's network by this call: it goes in by one and back by the next.
    fn leads_back(&mut self, nr: u64) -> bool {
        let moves = nr == libc::SYS_setns.cast_unsigned();
        self.inside ^= moves;
        moves && !self.inside
    }

    /// Whether the actor made so many calls.
    pub fn reached(&self, actor: Actor, index: usize) -> bool {
        self.calls.get(&actor).is_some_and(|calls| calls.len() > index)
    }
}

#[derive(Debug)]
struct Task {
    actor: Actor,
    /// Between an order and its answer.
    counting: bool,
    /// The call it is in, and what it will be told in place of the kernel's answer.
    inside: Option<(u64, Option<i64>)>,
}

/// The tracer of one runtime; all calls from one thread, as the kernel wants it.
#[derive(Debug, Default)]
pub struct Tracer {
    tasks: BTreeMap<i32, Task>,
    /// Stopped before their parent's event said who they are.
    unnamed: BTreeSet<i32>,
    /// Ended before that.
    gone: BTreeSet<i32>,
    fault: Option<Fault>,
    seen: Seen,
    replied: bool,
}

/// `PTRACE_EVENT_STOP`.
const EVENT_STOP: i32 = 128;
const STANDARD_INPUT: u64 = 0;
const STANDARD_OUTPUT: u64 = 1;

impl Tracer {
    /// Begins to trace a process that waits for an order.
    pub fn seize(&mut self, pid: u32, actor: Actor) {
        let pid = Pid::from_raw(pid.cast_signed());
        if self.tasks.contains_key(&pid.as_raw()) {
            return;
        }
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(pid, options).expect("root may trace");
        ptrace::interrupt(pid).expect("it is traced");
        self.tasks.insert(pid.as_raw(), Task { actor, counting: false, inside: None });
        while !self.is_waiting(pid.as_raw()) {
            self.step();
        }
    }

    /// Watches until the order that `give` gives is answered and everybody waits for the next one.
    pub fn watch(&mut self, fault: Option<Fault>, give: impl FnOnce()) -> Seen {
        self.fault = fault;
        self.gone.clear();
        self.seen = Seen::default();
        self.replied = false;
        give();
        // The order is answered: then the runtime waits in another read than the one it is in now.
        self.until(|task| task.actor == Actor::Runtime && task.counting);
        while !self.tasks.iter().all(|(pid, task)| !task.counting && self.is_waiting(*pid)) || !self.unnamed.is_empty()
        {
            self.step();
        }
        std::mem::take(&mut self.seen)
    }

    fn until(&mut self, holds: impl Fn(&Task) -> bool) {
        while !self.tasks.values().any(&holds) {
            self.step();
        }
    }

    /// In the call in which the next order will find it.
    fn is_waiting(&self, pid: i32) -> bool {
        let Some(task) = self.tasks.get(&pid) else { return true };
        match (task.actor, task.inside) {
            (Actor::Runtime, Some((nr, _))) => nr == libc::SYS_read as u64 && !task.counting,
            (Actor::Launcher, Some((nr, _))) => nr == libc::SYS_recvmsg as u64,
            _ => false,
        }
    }

    /// One stop of one task.
    fn step(&mut self) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        match waitpid(None, Some(flags)).expect("something is traced") {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                let task = self.tasks.remove(&pid.as_raw());
                self.unnamed.remove(&pid.as_raw());
                if task.is_none() {
                    self.gone.insert(pid.as_raw());
                }
                let runtime = task.is_some_and(|task| task.actor == Actor::Runtime);
                assert!(!runtime, "the runtime ended, {:?} refused", self.seen.refused);
            }
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
            WaitStatus::Stopped(pid, signal) => go_on(ptrace::syscall(pid, signal)),
            other => panic!("{other:?}"),
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Ok(child) = ptrace::getevent(pid) {
                    self.name(pid, child as i32, event == libc::PTRACE_EVENT_CLONE);
                }
                go_on(ptrace::syscall(pid, None));
            }
            libc::PTRACE_EVENT_EXEC => self.let_go(pid),
            EVENT_STOP => match self.tasks.get(&pid.as_raw()).map(|task| task.actor) {
                None => drop(self.unnamed.insert(pid.as_raw())),
                Some(Actor::Thread) => self.let_go(pid),
                Some(_) => go_on(ptrace::syscall(pid, None)),
            },
            _ => go_on(ptrace::syscall(pid, None)),
        }
    }

    fn let_go(&mut self, pid: Pid) {
        self.tasks.remove(&pid.as_raw());
        go_on(ptrace::detach(pid, None));
    }

    fn name(&mut self, parent: Pid, child: i32, is_thread: bool) {
        if self.gone.remove(&child) {
            return;
        }
        let actor = match self.tasks.get(&parent.as_raw()).map(|task| task.actor) {
            _ if is_thread => Actor::Thread,
            Some(Actor::Launcher) => Actor::Child,
            Some(Actor::Child) => Actor::Program,
            _ => Actor::Fork,
        };
        self.tasks.insert(child, Task { actor, counting: true, inside: None });
        if self.unnamed.remove(&child) {
            match actor {
                Actor::Thread => self.let_go(Pid::from_raw(child)),
                _ => go_on(ptrace::syscall(Pid::from_raw(child), None)),
            }
        }
    }

    fn at_call(&mut self, pid: Pid) {
        // Killed meanwhile.
        let Ok(registers) = ptrace::getregs(pid) else { return };
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else { return };
        match task.inside.take() {
            None => self.enter(pid, registers),
            Some((nr, answer)) => {
                self.leave(pid, nr, answer, registers);
            }
        }
        go_on(ptrace::syscall(pid, None));
    }

    fn enter(&mut self, pid: Pid, mut registers: user_regs_struct) {
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else { return };
        let nr = registers.orig_rax;
        task.inside = Some((nr, None));
        task.counting &= !ends_order(task.actor, nr, registers.rdi);
        let is_luck = task.actor == Actor::Runtime && depends_on_its_cpu(nr);
        if !task.counting || !can_fail(nr) || is_luck || (task.actor == Actor::Runtime && self.seen.leads_back(nr)) {
            return;
        }
        let calls = self.seen.calls.entry(task.actor).or_default();
        let index = calls.len();
        calls.push(nr);
        let wanted = self.fault.filter(|fault| fault.actor == task.actor && fault.index == index);
        if let Some(errno) = wanted.and_then(|fault| (fault.with)(nr))
            && self.seen.refused.is_none()
        {
            self.seen.refused = Some((nr, errno));
            self.seen.after_reply = self.replied;
            task.inside = Some((nr, Some(-i64::from(errno))));
            // A descriptor is closed whatever close says.
            if nr != libc::SYS_close as u64 {
                registers.orig_rax = u64::MAX;
                go_on(ptrace::setregs(pid, registers));
            }
        }
        self.replied |= task.actor == Actor::Launcher && nr == libc::SYS_sendmsg as u64;
    }

    fn leave(&mut self, pid: Pid, nr: u64, answer: Option<i64>, mut registers: user_regs_struct) {
        let Some(task) = self.tasks.get_mut(&pid.as_raw()) else { return };
        if let Some(answer) = answer {
            registers.rax = answer.cast_unsigned();
            go_on(ptrace::setregs(pid, registers));
        }
        task.counting |= begins_order(task.actor, nr, registers);
    }
}

fn begins_order(actor: Actor, nr: u64, registers: user_regs_struct) -> bool {
    let got_something = registers.rax.cast_signed() > 0;
    match actor {
        Actor::Runtime => nr == libc::SYS_read as u64 && registers.rdi == STANDARD_INPUT && got_something,
        Actor::Launcher => nr == libc::SYS_recvmsg as u64 && got_something,
        _ => false,
    }
}

fn ends_order(actor: Actor, nr: u64, first: u64) -> bool {
    match actor {
        Actor::Runtime => nr == libc::SYS_write as u64 && first == STANDARD_OUTPUT,
        Actor::Launcher => nr == libc::SYS_recvmsg as u64,
        _ => false,
    }
}

/// Made or not as the scheduler has put the runtime's thread: counted, they would now and then move others out of their turn.
fn depends_on_its_cpu(nr: u64) -> bool {
    [libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity].contains(&nr.cast_signed())
}

fn can_fail(nr: u64) -> bool {
    let not = [
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_brk,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_futex,
        libc::SYS_exit,
        libc::SYS_wait4,
        libc::SYS_kill,
        libc::SYS_exit_group,
        libc::SYS_clock_gettime,
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_gettid,
        libc::SYS_sched_yield,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_umask,
        libc::SYS_getcpu,
    ];
    !not.contains(&nr.cast_signed())
}

/// A task that was killed meanwhile needs no leave to go on.
fn go_on(result: nix::Result<()>) {
    assert!(matches!(result, Ok(()) | Err(Errno::ESRCH)), "{result:?}");
}
