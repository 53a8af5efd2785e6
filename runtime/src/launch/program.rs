//! A program beside the app: the process between the fork inside the container and the execution, step by step.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

use super::child::{self, Shared};
use super::copy;
use super::describe;
use super::home::Home;
use super::setup::Prepared;
use super::wire::Errand;
use crate::steps::{EnterStep, Plan};

/// Where the report pipe stands while the steps are performed: the first after the three streams.
const REPORT: RawFd = 3;
/// In place of a step's number: before the first.
pub const WAITING: i32 = -1;
/// All is done but the execution.
pub const ABOUT_TO_EXECUTE: u8 = b'x';

/// Standard input, output and error.
#[derive(Debug)]
pub struct Streams(pub [OwnedFd; 3]);

/// What is to be done between the fork and the execution.
pub struct Work<'a> {
    pub home: &'a Home,
    pub plan: &'a Plan,
    pub steps: &'a [EnterStep],
    pub prepared: &'a Prepared,
    pub streams: &'a Streams,
}

impl Work<'_> {
    /// Waits until `go` can be read, performs the steps, and tells over `report` which one failed: its number and the error number. A report that ends
    /// after [`ABOUT_TO_EXECUTE`] is a program's beginning, or that of `otherwise`, where no step is an execution; then its code is this process's.
    /// Runs in a process of its own and never returns.
    pub fn begin(&self, go: &OwnedFd, report: &OwnedFd, otherwise: impl FnOnce() -> i32) -> ! {
        let mut report = report.as_raw_fd();
        match rustix::io::read(go, &mut [0_u8; 1]) {
            Ok(1) => {}
            // Whoever should say "go" is gone: so is this.
            Ok(_) => exit(1),
            Err(error) => fail(report, WAITING, error.raw_os_error()),
        }
        let shared = shared(self.home, self.plan, self.prepared);
        for (number, step) in self.steps.iter().enumerate() {
            let result = perform(&shared, step, self.streams, &mut report);
            if result < 0 {
                fail(report, number as i32, -result as i32);
            }
        }
        // SAFETY: a plain call on our own descriptor, used no more: its end tells that the work begins.
        unsafe { libc::close(report) };
        exit(otherwise())
    }
}

fn fail(report: RawFd, step: i32, errno: i32) -> ! {
    let told = [step, errno];
    // SAFETY: eight bytes of ours; a pipe takes them whole. Who does not read them is gone.
    unsafe { libc::write(report, told.as_ptr().cast(), size_of_val(&told)) };
    exit(1)
}

/// An errand that executes nothing: what went wrong goes to standard error, in words. The process's own code at its end.
pub fn errand(errand: &Errand, owner: copy::Owner, number: u32) -> i32 {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let done = match errand {
        Errand::Unpack { path, must_be_folder } => copy::unpack(path, *must_be_folder, number, owner, input),
        Errand::Pack(path) => copy::pack(path, output),
        Errand::Execute | Errand::ExecuteOnTerminal(_) => Ok(()),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            eprint!("{error}");
            1
        }
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once, without the destructors of its launcher's memory.
    unsafe { libc::_exit(code) }
}

fn perform(shared: &Shared<'_>, step: &EnterStep, streams: &Streams, report: &mut RawFd) -> isize {
    match step {
        EnterStep::Streams => answer(place(streams, report)),
        // SAFETY: a plain call on standard input.
        EnterStep::Terminal => answer(checked(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })),
        EnterStep::Own(step) => child::perform(shared, step),
        EnterStep::Program(step) => child::perform_program(shared, step),
        // SAFETY: the path is a C string.
        EnterStep::WorkingDir(path) => answer(checked(unsafe { libc::chdir(path.as_ptr()) })),
        EnterStep::DieWithAttendant => answer(die_with_attendant(*report)),
    }
}

fn place(streams: &Streams, report: &mut RawFd) -> io::Result<()> {
    // Out of the way of the numbers they go to.
    let mut above = [0; 4];
    for (to, from) in above.iter_mut().zip(streams.0.iter().map(AsRawFd::as_raw_fd).chain([*report])) {
        // SAFETY: plain calls on our own descriptors.
        *to = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 10) };
        checked(*to)?;
    }
    for (number, from) in above.into_iter().enumerate() {
        let number = number as RawFd;
        let flags = if number == REPORT { libc::O_CLOEXEC } else { 0 };
        // SAFETY: as above.
        checked(unsafe { libc::dup3(from, number, flags) })?;
    }
    *report = REPORT;
    super::join::close_all_but(&[0, 1, 2, REPORT])
}

/// The kernel tells of deaths from now on only; of an earlier one the report's pipe does, which has nobody to read it then.
fn die_with_attendant(report: RawFd) -> io::Result<()> {
    // SAFETY: plain calls; one byte of ours.
    unsafe {
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        checked(libc::write(report, [ABOUT_TO_EXECUTE].as_ptr().cast(), 1) as i32)
    }
}

fn answer(result: io::Result<()>) -> isize {
    match result {
        Ok(()) => 0,
        Err(error) => -(error.raw_os_error().unwrap_or(libc::EINVAL) as isize),
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the steps of a launch that are used here look at.
fn shared<'a>(home: &'a Home, plan: &'a Plan, prepared: &'a Prepared) -> Shared<'a> {
    Shared {
        go: AtomicU32::new(1),
        filter: prepared.filter(home),
        cpus: &home.cpus,
        ..Shared::new(plan, prepared.argv.clone(), prepared.envp.clone())
    }
}

/// A step in words.
pub fn describe(step: &EnterStep) -> String {
    match step {
        EnterStep::Streams => "connect its standard streams".to_owned(),
        EnterStep::Terminal => "give it its terminal".to_owned(),
        EnterStep::Own(step) => describe::child(step),
        EnterStep::Program(step) => describe::program(step),
        EnterStep::WorkingDir(path) => format!("go to the working directory {}", path.to_string_lossy()),
        EnterStep::DieWithAttendant => "tie it to whoever waits for it".to_owned(),
    }
}
