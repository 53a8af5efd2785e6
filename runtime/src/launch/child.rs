//! The container's side of a launch: code that runs after clone in the launcher's own memory.
//!
//! Rules here: raw system calls only, no allocation, no thread-local data (so no `errno`), no panic, nothing dropped. All it needs was
//! prepared in [`Shared`]; all it tells goes there too. The clock alone is read by way of the C library, from a page of the kernel's and mostly
//! without a system call.

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::bundle::{self, Bundled};
use crate::kernel::capability;
use crate::kernel::seccomp::Instruction;
use crate::kernel::sys::{clone_on_stack, raw, trap};
use crate::steps::{ChildStep, Plan, ProgramStep};

/// Program not started yet.
pub const WAITING: u32 = 1;
/// The program's process has let go of this memory: it has executed the program, or ended ([`Shared::failed_in_program`] tells). The kernel writes this
/// and wakes who waits, at the very moment, where the child would have to be scheduled first.
pub const RELEASED: u32 = 0;
/// A step of the child failed; the child ends.
pub const FAILED: u32 = 2;

/// The init's descriptors begin here: two pipes, two logs, the record.
const INIT_FIRST_FD: usize = 3;
/// Out of the way of the numbers above while they are put in place.
const PARKED_FIRST_FD: usize = 64;

/// Where the end stands in a record, and how; the others are `handle/record.rs` and the init.
const RECORD_END: usize = 32;
#[repr(C)]
struct End {
    ended: u32,
    status: i32,
    unix_ms: u64,
}

/// For [`ProgramStep::Leak`].
const LEAKED_FD: usize = 9;

/// What launcher and child share during one launch.
#[derive(Debug)]
pub struct Shared<'a> {
    /// Set to 1 by the launcher when ids are mapped and cgroups joined; with a bundle, to the last stage that is over.
    pub go: AtomicU32,
    /// Not 0 while the child uses the launcher's memory; the kernel clears it.
    pub alive: AtomicU32,
    /// [`WAITING`], [`RELEASED`] or [`FAILED`].
    pub state: AtomicU32,
    /// Whether the failed step is one of the program's.
    pub failed_in_program: AtomicU32,
    /// Number of the step that failed.
    pub failed_step: AtomicU32,
    /// The kernel's answer.
    pub failed_errno: AtomicI32,
    /// When each of the child's steps was done, monotonic nanoseconds.
    pub moments: [AtomicU64; 48],
    /// What to do.
    pub plan: &'a Plan,
    /// Pointers to the program's arguments, null at the end.
    pub argv: Vec<*const c_char>,
    /// Pointers to its environment, null at the end.
    pub envp: Vec<*const c_char>,
    /// Log size of one file, as the init's argument.
    pub init_argv: [*const c_char; 4],
    /// A pidfd of the launcher.
    pub launcher: i32,
    /// The overlay.
    pub root: i32,
    /// The writable layer's own tree, where it is attached nowhere.
    pub scratch: Option<i32>,
    /// The directory of the launcher's tree that the root is attached to: `/` of a bare one.
    pub place: &'a CStr,
    /// An empty directory of that tree.
    pub empty: &'a CStr,
    /// The sysfs.
    pub sys: i32,
    /// Writing ends of standard output and error.
    pub outputs: [i32; 2],
    /// What the init gets, in order.
    pub init_fds: [i32; 5],
    /// The init's executable.
    pub init: i32,
    /// The system call filter.
    pub filter: &'a [Instruction],
    /// Where program and init may run.
    pub cpus: &'a [u64],
    /// Upper end of the program's first stack.
    pub program_stack_top: usize,
    /// What the steps of a bundle need.
    pub bundle: Option<&'a Bundled>,
}

impl<'a> Shared<'a> {
    /// Before anything was done, with no descriptor but those that whoever clones adds.
    pub fn new(plan: &'a Plan, argv: Vec<*const c_char>, envp: Vec<*const c_char>) -> Self {
        Self {
            go: AtomicU32::new(0),
            alive: AtomicU32::new(1),
            state: AtomicU32::new(WAITING),
            failed_in_program: AtomicU32::new(0),
            failed_step: AtomicU32::new(u32::MAX),
            failed_errno: AtomicI32::new(0),
            moments: [const { AtomicU64::new(0) }; 48],
            plan,
            argv,
            envp,
            init_argv: [std::ptr::null(); 4],
            launcher: -1,
            root: -1,
            scratch: None,
            place: c"/",
            empty: c"/",
            sys: -1,
            outputs: [-1; 2],
            init_fds: [-1; 5],
            init: -1,
            filter: &[],
            cpus: &[],
            program_stack_top: 0,
            bundle: None,
        }
    }
}

#[inline(always)]
pub fn call(nr: libc::c_long, args: [usize; 6]) -> isize {
    // SAFETY: every pointer passed in this file is to a C string or structure in `Shared` or on this stack, and outlives the call.
    unsafe { raw(nr, args) }
}

#[inline(always)]
pub fn at(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Wakes whoever waits for `word`.
pub fn wake(word: &AtomicU32) {
    call(libc::SYS_futex, [word.as_ptr() as usize, libc::FUTEX_WAKE as usize, 1, 0, 0, 0]);
}

/// Waits while `word` is `value`, at most 100 ms.
pub fn wait_while(word: &AtomicU32, value: u32) {
    let limit = [0_u64, 100_000_000];
    call(
        libc::SYS_futex,
        [word.as_ptr() as usize, libc::FUTEX_WAIT as usize, value as usize, &raw const limit as usize, 0, 0],
    );
}

/// Whatever a filter lets pass: the launcher waits for it.
pub fn exit(code: usize) -> ! {
    call(libc::SYS_exit_group, [code, 0, 0, 0, 0, 0]);
    call(libc::SYS_exit, [code, 0, 0, 0, 0, 0]);
    trap()
}

/// The container's first process.
///
/// # Safety
/// `shared` is the address of a [`Shared`] that lives until `alive` is 0.
pub unsafe extern "C" fn body(shared: usize) -> ! {
    // SAFETY: the launcher keeps it alive and changes only its atomics.
    let shared = unsafe { &*(shared as *const Shared<'_>) };
    for (number, step) in shared.plan.child.iter().enumerate() {
        let result = perform(shared, step);
        if let Some(moment) = shared.moments.get(number) {
            moment.store(super::now_ns(), Ordering::Relaxed);
        }
        if result < 0 {
            if shared.failed_in_program.load(Ordering::Relaxed) == 0 {
                shared.failed_step.store(number as u32, Ordering::Relaxed);
                shared.failed_errno.store(-result as i32, Ordering::Relaxed);
            }
            shared.state.store(FAILED, Ordering::Release);
            wake(&shared.state);
            exit(1);
        }
    }
    exit(1)
}

/// One step, as a system call answers.
pub fn perform(shared: &Shared<'_>, step: &ChildStep) -> isize {
    match step {
        ChildStep::DieWithLauncher => die_with_launcher(shared),
        ChildStep::AttachRoot => attach_root(shared),
        ChildStep::Mount { kind, target, flags, data } => {
            call(libc::SYS_mount, [at(kind), at(target), at(kind), *flags as usize, at(data), 0])
        }
        ChildStep::AttachSys => attach(shared.sys, c"sys"),
        ChildStep::HideFile(path) => {
            call(libc::SYS_mount, [at(c"dev/null"), at(path), 0, libc::MS_BIND as usize, 0, 0])
        }
        ChildStep::HideDirectory(path) => {
            call(libc::SYS_mount, [at(shared.empty), at(path), 0, libc::MS_BIND as usize, 0, 0])
        }
        ChildStep::ReadOnly(path) => read_only(path),
        ChildStep::Pivot => call(libc::SYS_pivot_root, [at(c"."), at(c"."), 0, 0, 0, 0]),
        ChildStep::ChangeRoot => call(libc::SYS_chroot, [at(c"."), 0, 0, 0, 0, 0]),
        ChildStep::DropHost => match call(libc::SYS_umount2, [at(c"."), libc::MNT_DETACH as usize, 0, 0, 0, 0]) {
            0 => call(libc::SYS_chdir, [at(c"/"), 0, 0, 0, 0, 0]),
            error => error,
        },
        ChildStep::Hostname(name) => call(libc::SYS_sethostname, [at(name), name.as_bytes().len(), 0, 0, 0, 0]),
        ChildStep::AwaitGo => {
            while shared.go.load(Ordering::Acquire) == 0 {
                wait_while(&shared.go, 0);
            }
            0
        }
        ChildStep::CgroupNamespace => call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize, 0, 0, 0, 0, 0]),
        ChildStep::BecomeRoot => become_root(),
        ChildStep::OwnTerminals => {
            call(libc::SYS_fchownat, [libc::AT_FDCWD as isize as usize, at(c"/dev/pts"), 0, 0, 0, 0])
        }
        ChildStep::Limit { resource, value } => {
            let both = [*value, *value];
            call(libc::SYS_prlimit64, [0, *resource as usize, &raw const both as usize, 0, 0, 0])
        }
        ChildStep::Descriptors => descriptors(shared),
        ChildStep::Capabilities(mask) => capabilities(*mask),
        ChildStep::NoNewPrivileges => call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]),
        ChildStep::Filter => filter(shared),
        ChildStep::StartProgram => start_program(shared),
        ChildStep::BecomeInit => become_init(shared),
        ChildStep::Bundle(step) => bundle::perform(shared, step),
        ChildStep::BecomeProgram => bundle::become_program(shared),
    }
}

/// The kernel's signal tells of deaths from now on only: a launcher that died before would be waited for without end.
fn die_with_launcher(shared: &Shared<'_>) -> isize {
    let set = call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
    if set < 0 {
        return set;
    }
    let mut look = libc::pollfd { fd: shared.launcher, events: libc::POLLIN, revents: 0 };
    let at_once = [0_u64; 2];
    match call(libc::SYS_ppoll, [&raw mut look as usize, 1, &raw const at_once as usize, 0, 8, 0]) {
        1.. => -(libc::ESRCH as isize),
        alive_or_error => alive_or_error,
    }
}

fn attach(tree: i32, target: &CStr) -> isize {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    let here = libc::AT_FDCWD as isize as usize;
    call(libc::SYS_move_mount, [tree as usize, at(c""), here, at(target), MOVE_MOUNT_F_EMPTY_PATH, 0])
}

/// The writable layer's own tree goes below the overlay, out of everybody's reach, and so ends with the others of this namespace: one that is attached
/// nowhere makes whoever closes it last wait for all CPUs.
fn attach_root(shared: &Shared<'_>) -> isize {
    if let Some(scratch) = shared.scratch {
        let attached = attach(scratch, shared.place);
        if attached < 0 {
            return attached;
        }
    }
    match attach(shared.root, shared.place) {
        0 => call(libc::SYS_fchdir, [shared.root as usize, 0, 0, 0, 0, 0]),
        error => error,
    }
}

fn read_only(path: &CStr) -> isize {
    match call(libc::SYS_mount, [at(path), at(path), 0, (libc::MS_BIND | libc::MS_REC) as usize, 0, 0]) {
        0 => {
            let keep = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            call(
                libc::SYS_mount,
                [0, at(path), 0, (libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | keep) as usize, 0, 0],
            )
        }
        error => error,
    }
}

fn become_root() -> isize {
    let group = call(libc::SYS_setresgid, [0, 0, 0, 0, 0, 0]);
    let groups = call(libc::SYS_setgroups, [0, 0, 0, 0, 0, 0]);
    let user = call(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0]);
    call(libc::SYS_umask, [0o022, 0, 0, 0, 0, 0]);
    let outlive = call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, 0, 0, 0, 0, 0]);
    group.min(groups).min(user).min(outlive).min(closed_to_others())
}

/// The launcher's memory, which this is, is nobody's to read or write: a change of ids has just left that to what the machine's administrator chose
/// (fs.suid_dumpable).
fn closed_to_others() -> isize {
    call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0, 0])
}

/// Standard input is the container's own `/dev/null`, output and error the pipes; everything above closes on exec.
fn descriptors(shared: &Shared<'_>) -> isize {
    let null =
        call(libc::SYS_openat, [libc::AT_FDCWD as isize as usize, at(c"/dev/null"), libc::O_RDWR as usize, 0, 0, 0]);
    if null < 0 {
        return null;
    }
    for (from, to) in [(null as i32, 0), (shared.outputs[0], 1), (shared.outputs[1], 2)] {
        let result = call(libc::SYS_dup3, [from as usize, to, 0, 0, 0, 0]);
        if result < 0 {
            return result;
        }
    }
    call(libc::SYS_close_range, [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize, 0, 0, 0])
}

fn capabilities(mask: u64) -> isize {
    for number in 0..=capability::LAST {
        if mask >> number & 1 == 0 {
            let result = call(libc::SYS_prctl, [libc::PR_CAPBSET_DROP as usize, number as usize, 0, 0, 0, 0]);
            // A kernel that does not know the number has nothing to drop.
            if result < 0 && result != -(libc::EINVAL as isize) {
                return result;
            }
        }
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let sets = [low, low, 0, high, high, 0];
    call(libc::SYS_capset, [&raw const header as usize, &raw const sets as usize, 0, 0, 0, 0])
}

fn filter(shared: &Shared<'_>) -> isize {
    #[repr(C)]
    struct Program {
        length: u16,
        first: *const Instruction,
    }
    let program = Program { length: shared.filter.len() as u16, first: shared.filter.as_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER as usize, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as usize);
    call(libc::SYS_seccomp, [mode, flags, &raw const program as usize, 0, 0, 0])
}

/// Returns when the program has been executed, or its process has ended without. SIGCHLD is ignored by the launcher: were it here too when the
/// program ends, its exit code would be thrown away.
fn start_program(shared: &Shared<'_>) -> isize {
    let default = [0_usize; 4];
    let told = call(libc::SYS_rt_sigaction, [libc::SIGCHLD as usize, &raw const default as usize, 0, 8, 0, 0]);
    if told < 0 {
        return told;
    }
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD) as usize;
    let context = shared as *const Shared<'_> as usize;
    // SAFETY: the stack is the program's own, `program_body` keeps this file's rules, and CLONE_VFORK keeps this process waiting.
    let pid = unsafe {
        clone_on_stack(flags, shared.program_stack_top, shared.state.as_ptr() as usize, program_body, context)
    };
    if pid < 0 {
        return pid;
    }
    if shared.failed_in_program.load(Ordering::Acquire) != 0 { -1 } else { 0 }
}

/// # Safety
/// As [`body`].
unsafe extern "C" fn program_body(shared: usize) -> ! {
    // SAFETY: as in `body`, whose process waits for this one.
    let shared = unsafe { &*(shared as *const Shared<'_>) };
    program_steps(shared);
    exit(1)
}

/// Returns only when one has failed, which is written down.
pub fn program_steps(shared: &Shared<'_>) -> isize {
    for (number, step) in shared.plan.program.iter().enumerate() {
        let result = perform_program(shared, step);
        if result < 0 {
            shared.failed_step.store(number as u32, Ordering::Relaxed);
            shared.failed_errno.store(-result as i32, Ordering::Relaxed);
            shared.failed_in_program.store(1, Ordering::Release);
            return result;
        }
    }
    -1
}

/// One step of the program's process, as a system call answers.
pub fn perform_program(shared: &Shared<'_>, step: &ProgramStep) -> isize {
    match step {
        ProgramStep::Session => call(libc::SYS_setsid, [0; 6]).min(0),
        ProgramStep::CloseRest => call(libc::SYS_close_range, [3, u32::MAX as usize, 0, 0, 0, 0]),
        ProgramStep::Leak(fd) => call(libc::SYS_dup3, [*fd as usize, LEAKED_FD, 0, 0, 0, 0]).min(0),
        ProgramStep::Groups(groups) => call(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]),
        ProgramStep::Group(id) => call(libc::SYS_setresgid, [*id as usize, *id as usize, *id as usize, 0, 0, 0]),
        ProgramStep::User(id) => {
            let user = call(libc::SYS_setresuid, [*id as usize, *id as usize, *id as usize, 0, 0, 0]);
            match closed_to_others() {
                // The app is to do without this call: its launch does, too.
                refused if refused == -(libc::EPERM as isize) => user,
                closed => user.min(closed),
            }
        }
        ProgramStep::WorkingDir(dirs) => working_dir(dirs),
        ProgramStep::AnyCpu => any_cpu(shared),
        ProgramStep::Signals => signals(),
        ProgramStep::Execute { candidates, .. } => execute(shared, candidates),
        ProgramStep::Bundle(step) => bundle::perform(shared, step),
    }
}

pub fn working_dir(dirs: &[std::ffi::CString]) -> isize {
    let Some(last) = dirs.last() else { return 0 };
    let result = call(libc::SYS_chdir, [at(last), 0, 0, 0, 0, 0]);
    if result != -(libc::ENOENT as isize) {
        return result;
    }
    for dir in dirs {
        let here = libc::AT_FDCWD as isize as usize;
        call(libc::SYS_mkdirat, [here, at(dir), 0o755, 0, 0, 0]);
    }
    call(libc::SYS_chdir, [at(last), 0, 0, 0, 0, 0])
}

/// Nothing blocked; the two signals that the launcher ignores as a program would have them.
fn signals() -> isize {
    let default = [0_usize; 4];
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        let result = call(libc::SYS_rt_sigaction, [signal as usize, &raw const default as usize, 0, 8, 0, 0]);
        if result < 0 {
            return result;
        }
    }
    let none = 0_u64;
    call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const none as usize, 0, 8, 0, 0])
}

/// As a shell looks a program up: the first candidate that is there; a refusal is kept in mind, "not there" is not.
fn execute(shared: &Shared<'_>, candidates: &[std::ffi::CString]) -> isize {
    let mut answer = -(libc::ENOENT as isize);
    for candidate in candidates {
        let result = call(
            libc::SYS_execve,
            [at(candidate), shared.argv.as_ptr() as usize, shared.envp.as_ptr() as usize, 0, 0, 0],
        );
        if result != -(libc::ENOENT as isize) && result != -(libc::ENOTDIR as isize) {
            answer = result;
        }
    }
    answer
}

/// Off the launcher's CPU. A refusal leaves the program there, which is slower at worst.
fn any_cpu(shared: &Shared<'_>) -> isize {
    let (length, mask) = (size_of_val(shared.cpus), shared.cpus.as_ptr() as usize);
    call(libc::SYS_sched_setaffinity, [0, length, mask, 0, 0, 0]);
    0
}

/// Becomes the init, with its descriptors in place; unless the program has ended meanwhile, as the shortest-lived have, and an init has nothing to do.
fn become_init(shared: &Shared<'_>) -> isize {
    let mut parked = [0_usize; 5];
    for (to, from) in parked.iter_mut().zip(shared.init_fds) {
        let result = call(libc::SYS_fcntl, [from as usize, libc::F_DUPFD_CLOEXEC as usize, PARKED_FIRST_FD, 0, 0, 0]);
        if result < 0 {
            return result;
        }
        *to = result as usize;
    }
    let executable =
        call(libc::SYS_fcntl, [shared.init as usize, libc::F_DUPFD_CLOEXEC as usize, PARKED_FIRST_FD, 0, 0, 0]);
    if executable < 0 {
        return executable;
    }
    for (place, from) in parked.iter().enumerate() {
        let result = call(libc::SYS_dup3, [*from, INIT_FIRST_FD.wrapping_add(place), 0, 0, 0, 0]);
        if result < 0 {
            return result;
        }
    }
    let mut digits = [0_u8; DIGITS];
    let mut argv = shared.init_argv;
    if let Some(status) = program_status() {
        end_with_program(status);
        argv[2] = decimal(status.cast_unsigned(), &mut digits);
    }
    any_cpu(shared);
    let empty = [0_usize; 1];
    let flags = libc::AT_EMPTY_PATH as usize;
    let (argv, empty) = (argv.as_ptr() as usize, &raw const empty as usize);
    call(libc::SYS_execveat, [executable as usize, at(c""), argv, empty, flags, 0])
}

/// Its wait status, if it has ended. From then on nobody else can ask for it.
fn program_status() -> Option<i32> {
    const PROGRAM: isize = 2;
    let mut status = 0_i32;
    let ended = call(libc::SYS_wait4, [PROGRAM as usize, &raw mut status as usize, libc::WNOHANG as usize, 0, 0, 0]);
    (ended == PROGRAM).then_some(status)
}

/// With the init's descriptors in place: does what it would, and ends; returns where the program has left processes or has written something, which is the
/// init's work. Whoever entered the container from outside ends with it, as with an init.
fn end_with_program(status: i32) {
    const OUT: i32 = INIT_FIRST_FD as i32;
    const ERR: i32 = OUT + 1;
    const RECORD: usize = INIT_FIRST_FD + 4;
    let anybody = -1_isize as usize;
    let alone = call(libc::SYS_wait4, [anybody, 0, libc::WNOHANG as usize, 0, 0, 0]) == -(libc::ECHILD as isize);
    let mut outputs = [OUT, ERR].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let at_once = [0_u64; 2];
    // This process can write there still, so it is not the end of them that is seen.
    let silent = call(libc::SYS_ppoll, [outputs.as_mut_ptr() as usize, 2, &raw const at_once as usize, 0, 8, 0]) == 0;
    if alone && silent {
        let end = End { ended: 1, status, unix_ms: super::clock_ns(libc::CLOCK_REALTIME) / 1_000_000 };
        let length = size_of::<End>();
        let told = call(libc::SYS_pwrite64, [RECORD, &raw const end as usize, length, RECORD_END, 0, 0]);
        if told == length as isize {
            exit(0);
        }
    }
}

/// Digits of a `u32` and the end of a C string.
const DIGITS: usize = 11;

fn decimal(mut value: u32, digits: &mut [u8; DIGITS]) -> *const c_char {
    let mut first = DIGITS - 1;
    loop {
        first = first.wrapping_sub(1);
        digits[first.min(DIGITS - 2)] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 || first == 0 {
            return digits.as_ptr().wrapping_add(first).cast();
        }
    }
}
