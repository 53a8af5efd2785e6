//! `create`, `start`, `run`: from a bundle to a program that runs.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::runtime::{ContainerState, Hook, LinuxNamespace, Spec};
use rustix::event::{PollFd, PollFlags, poll};

use super::{control, wait};
use crate::launch::wire::Failure;
use crate::oci::Sealed;
use crate::oci::aside::Aside;
use crate::oci::cgroup::Groups;
use crate::oci::config::{self, Bundle};
use crate::oci::create::{self, Console, Given, Live};
use crate::oci::network::Network;
use crate::oci::plan::{self, Asked, stage};
use crate::oci::state::{self, Files, Record};
use crate::oci::{OciError, describe, hooks};

/// What the command line says beside the bundle.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The socket that takes the terminal.
    pub console_socket: Option<PathBuf>,
    /// Where the number of the first process is written.
    pub pid_file: Option<PathBuf>,
    /// Descriptors above the three streams that are passed on.
    pub preserve_fds: u32,
    /// `run` that ends when the program runs.
    pub detach: bool,
}

/// A container that this process has begun.
struct Begun {
    live: Live,
    files: Files,
    record: Record,
    spec: Spec,
}

/// Everything but the program, which [`start`] begins. `sealed` will have been closed by then.
pub fn create(root: &Path, id: &str, options: &CreateOptions, sealed: Option<Sealed>) -> Result<(), OciError> {
    let (bundle, early) = load(options, sealed)?;
    let console = console_of(&bundle.spec, options)?;
    begin(root, id, options, bundle, Asking { awaits_start: true, console, early }).map(drop)
}

/// The program of a container that was created.
pub fn start(root: &Path, id: &str, warn: &mut dyn FnMut(OciError)) -> Result<(), OciError> {
    let files = Files::open(root, id)?;
    let record = files.whole("start")?;
    let status = files.status(&record);
    if status != ContainerState::Created {
        return Err(OciError::Status { what: "start", id: id.to_owned(), status: status.to_string() });
    }
    let spec = files.config()?;
    let fifo = files.start();
    let opened = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
    let mut opened = opened.map_err(OciError::file("open", &fifo))?;
    opened.write_all(b"s").map_err(OciError::file("write", &fifo))?;
    fs::remove_file(&fifo).map_err(OciError::file("remove", &fifo))?;
    await_close(&opened.into())?;
    if let Some(error) = outcome(&files, &record, &spec)? {
        return Err(error);
    }
    after_start(&spec, &record, warn);
    Ok(())
}

/// The whole life of a container; what its program ended with, as a shell tells it. `sealed` will have been closed before it begins.
pub fn run(
    root: &Path,
    id: &str,
    options: &CreateOptions,
    sealed: Option<Sealed>,
    warn: &mut dyn FnMut(OciError),
) -> Result<i32, OciError> {
    let (bundle, early) = load(options, sealed)?;
    let terminal = bundle.spec.process().as_ref().and_then(|p| p.terminal()).unwrap_or(false);
    let relayed = terminal && options.console_socket.is_none() && !options.detach;
    let (console, ours) = match relayed {
        true => {
            let (theirs, ours) = wait::pair()?;
            (Some(Console::Pair(theirs)), Some(ours))
        }
        false => (console_of(&bundle.spec, options)?, None),
    };
    let signals = if options.detach { None } else { Some(wait::Signals::take()?) };
    let mut begun = begin(root, id, options, bundle, Asking { awaits_start: false, console, early })?;
    // A hook may want to take apart what they use.
    let hooks = begun.spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref());
    if hooks.is_none_or(Vec::is_empty) {
        begun.live.keep_mounts();
    }
    if let Err(error) = begun.live.await_execution() {
        begun.live.abandon();
        control::clear(&begun.files, &begun.record, None, warn)?;
        return Err(error);
    }
    after_start(&begun.spec, &begun.record, warn);
    let Some(signals) = signals else { return Ok(0) };
    let code = wait::foreground(&begun.live, &signals, ours)?;
    let _going = begun.live.let_go_of_mounts();
    control::clear(&begun.files, &begun.record, Some(&begun.spec), warn)?;
    Ok(code)
}

fn load(options: &CreateOptions, sealed: Option<Sealed>) -> Result<(Bundle, Early), OciError> {
    wait::check_preserved(options.preserve_fds)?;
    let unread = config::Unread::open(&options.bundle)?;
    let early = Early::begin(&unread.namespaces(), sealed)?;
    Ok((unread.understand()?, early))
}

/// What the kernel takes long for, begun before the configuration is understood.
struct Early {
    network: Option<(Network, OwnedFd)>,
    before: Option<Aside>,
}

impl Early {
    fn begin(namespaces: &[LinuxNamespace], sealed: Option<Sealed>) -> Result<Self, OciError> {
        let apart = plan::network_apart(namespaces);
        // One thread for both, if there is a network to be made.
        let (with_network, alone) = if apart { (sealed, None) } else { (None, sealed) };
        let network = apart.then(|| Network::begin(with_network.map(Sealed::into_fd))).transpose()?;
        Ok(Self { network, before: alone.and_then(Sealed::close) })
    }
}

fn console_of<'a>(spec: &Spec, options: &'a CreateOptions) -> Result<Option<Console<'a>>, OciError> {
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    wait::console(terminal, options.console_socket.as_deref())
}

/// How a bundle's container is to begin.
struct Asking<'a> {
    awaits_start: bool,
    console: Option<Console<'a>>,
    early: Early,
}

/// Everything of a container's beginning; all is undone when something fails.
fn begin(
    root: &Path,
    id: &str,
    options: &CreateOptions,
    bundle: Bundle,
    asking: Asking<'_>,
) -> Result<Begun, OciError> {
    let files = Files::make(root, id)?;
    let begun = set_up(id, options, &bundle, asking, &files);
    match begun {
        Ok((live, record)) => Ok(Begun { live, files, record, spec: bundle.spec }),
        Err(error) => match files.remove() {
            Ok(()) => Err(error),
            Err(undo) => Err(with(error, &undo)),
        },
    }
}

/// A failure, and what could not be undone after it.
fn with(error: OciError, undo: &OciError) -> OciError {
    let failure = match error {
        OciError::Step(failure) => failure,
        other => Failure { step: "begin the container".to_owned(), cause: other.to_string(), errno: None, undo: None },
    };
    OciError::Step(Failure { undo: Some(undo.to_string()), ..failure })
}

fn set_up(
    id: &str,
    options: &CreateOptions,
    bundle: &Bundle,
    Asking { awaits_start, console, early: Early { network, before } }: Asking<'_>,
    files: &Files,
) -> Result<(Live, Record), OciError> {
    let linux = bundle.spec.linux().as_ref().ok_or_else(|| OciError::refused("linux", "is missing"))?;
    let (groups, writes) = Groups::plan(id, linux)?;
    let asked = Asked { awaits_start, preserved: options.preserve_fds };
    let plan = plan::plan(bundle, &asked, &groups.host())?;
    let rootfs = bundle.folder.join(bundle.spec.root().as_ref().map_or(Path::new(""), |root| root.path()));
    let later = awaits_start.then(|| (files.start(), files.outcome()));
    let given = Given { console, later, network, before, rootfs: &rootfs };
    let mut live = create::bear(plan, given)?;
    // While the container mounts what it can.
    if let Err(error) = live.settle().and_then(|()| groups.make(&writes)) {
        return Err(live.give_up(error));
    }
    match guide(id, options, bundle, &groups, files, &rootfs, &mut live) {
        Ok(record) => Ok((live, record)),
        Err(error) => {
            let error = live.give_up(error);
            Err(match groups.remove() {
                Ok(()) => error,
                Err(undo) => with(error, &undo),
            })
        }
    }
}

/// Stage by stage, until only waiting and executing are left.
fn guide(
    id: &str,
    options: &CreateOptions,
    bundle: &Bundle,
    groups: &Groups,
    files: &Files,
    rootfs: &Path,
    live: &mut Live,
) -> Result<Record, OciError> {
    let hooks = bundle.spec.hooks().as_ref();
    let mut record = record(id, bundle, groups, rootfs, live.pid)?;
    let state = |record: &Record, status| control::specified(record, status);
    live.tell_state([&state(&record, ContainerState::Creating), &state(&record, ContainerState::Created)])?;
    live.join(groups)?;
    files.keep_config(&bundle.text)?;
    if let Some(hooks) = hooks.filter(|_| live.pauses_mounted()) {
        live.meet(stage::MOUNTED)?;
        files.write(&record)?;
        let creating = state(&record, ContainerState::Creating);
        hooks::run("prestart", hooks.prestart().as_ref(), &creating)?;
        hooks::run("createRuntime", hooks.create_runtime().as_ref(), &creating)?;
        live.go(stage::MOUNTED);
    }
    live.meet(stage::READY)?;
    live.await_network()?;
    record.creating = false;
    files.write(&record)?;
    write_pid(options.pid_file.as_deref(), live.pid)?;
    Ok(record)
}

fn record(id: &str, bundle: &Bundle, groups: &Groups, rootfs: &Path, pid: u32) -> Result<Record, OciError> {
    let (pid_started, _) = state::process(pid).map_err(OciError::kernel("look at the container's first process"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Record {
        id: id.to_owned(),
        bundle: bundle.folder.clone(),
        rootfs: rootfs.to_owned(),
        pid,
        pid_started,
        created_unix_ms: now.as_millis() as u64,
        owner: rustix::process::getuid().as_raw(),
        annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        groups: groups.clone(),
        creating: true,
    })
}

/// Whole or not at all, as whoever waits for the file reads it at once.
pub(super) fn write_pid(path: Option<&Path>, pid: u32) -> Result<(), OciError> {
    let Some(path) = path else { return Ok(()) };
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let written = fs::write(&next, pid.to_string()).and_then(|()| fs::rename(&next, path));
    written.map_err(OciError::file("write", path))
}

/// The child lets go of its end when it executes the program, or ends.
fn await_close(fifo: &OwnedFd) -> Result<(), OciError> {
    let mut look = [PollFd::from_borrowed_fd(fifo.as_fd(), PollFlags::ERR)];
    loop {
        match poll(&mut look, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(OciError::kernel("wait for the program's execution")(error.into())),
        }
    }
}

/// What the child left behind when a step failed after `create` had ended.
fn outcome(files: &Files, record: &Record, spec: &Spec) -> Result<Option<OciError>, OciError> {
    let path = files.outcome();
    let told = fs::read(&path).map_err(OciError::file("read", &path))?;
    let mut numbers = told.chunks_exact(4).map(|four| i32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    let (Some(number), Some(errno), Some(status)) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Ok(None);
    };
    let bundle = Bundle { folder: record.bundle.clone(), spec: spec.clone(), text: Vec::new() };
    let asked = Asked { awaits_start: true, preserved: 0 };
    let plan = plan::plan(&bundle, &asked, &record.groups.host())?.steps;
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let cause = describe::cause(&plan, true, number, errno, status);
    let step = describe::numbered(&plan, true, number);
    Ok(Some(OciError::Step(Failure { step, cause, errno: Some(errno), undo: None })))
}

/// A failure of these hooks is told and changes nothing, as the specification says.
fn after_start(spec: &Spec, record: &Record, warn: &mut dyn FnMut(OciError)) {
    let hooks: Option<&Vec<Hook>> = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    for hook in hooks.into_iter().flatten() {
        let state = control::specified(record, ContainerState::Running);
        if let Err(error) = hooks::run("poststart", Some(&vec![hook.clone()]), &state) {
            warn(error);
        }
    }
}
