//! The launcher's own surroundings: a mount namespace that holds an empty directory and `/proc`, and what is kept for every launch.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::level;
use super::scratch::Spare;
use super::weaken::{self, Weaken};
use crate::kernel::cgroup::quick;
use crate::kernel::seccomp::{self, Instruction};
use crate::kernel::{mount, namespace};
use crate::steps::{HIDDEN_DIRECTORIES, HIDDEN_FILES, READ_ONLY};

const STACK_BYTES: usize = 64 << 10;

/// What a launcher has for all its launches.
#[derive(Debug)]
pub struct Home {
    /// A pidfd of this process.
    pub own: OwnedFd,
    /// `/proc`.
    pub proc: OwnedFd,
    /// Whether its mount namespace holds nothing but an empty directory: then what containers get is passed to them by descriptors alone.
    pub bare: bool,
    /// The host's network.
    pub network: OwnedFd,
    /// A writable layer made ahead.
    pub scratch: Spare,
    /// The init's executable.
    pub init: OwnedFd,
    /// The system call filter.
    pub filter: Vec<Instruction>,
    /// Which paths there are to hide.
    pub present: Vec<&'static CStr>,
    /// The CPUs that were this process's before it kept to one of them: containers may use all.
    pub cpus: Vec<u64>,
    /// How many open files it may allow.
    pub most_open_files: u64,
    /// What its containers lack: nothing, but in the escape suite.
    pub without: Vec<Weaken>,
    /// Where there is no list of devices, with [`Weaken::Devices`].
    pub all_devices: Option<OwnedFd>,
    /// Keeps moves between cgroups quick.
    _quick: Option<OwnedFd>,
    child_stack: Stack,
    program_stack: Stack,
}

/// Aligned memory for one child at a time.
#[derive(Debug)]
struct Stack(Box<[u128]>);

impl Stack {
    fn new() -> Self {
        Self(vec![0_u128; STACK_BYTES / size_of::<u128>()].into_boxed_slice())
    }

    fn bottom(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

impl Home {
    /// Turns this process into a launcher. The error names the step.
    pub fn make(without: Vec<Weaken>) -> Result<Self, (String, io::Error)> {
        let step = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| (what, error)
        };
        hide().map_err(step("hide from debuggers and other processes"))?;
        let most_open_files = if without.contains(&Weaken::Level) { raise_open_files() } else { level::level() };
        let cpus = keep_to_one_cpu().map_err(step("keep to one CPU"))?;
        let present = present_paths();
        let network = namespace::own_network().map_err(step("open the host's network namespace"))?;
        unshare_mounts().map_err(step("make a mount namespace of its own"))?;
        let all_devices = without.contains(&Weaken::Devices).then(weaken::all_devices).transpose();
        let quick_v2 = quick::ask_v2(super::CGROUP_ROOT);
        let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        let own = own.map_err(|error| step("open a pidfd of its own")(error.into()))?;
        let bare = without.is_empty() && can_be_bare(&own);
        let proc = if bare { move_into_nothing() } else { move_out() }.map_err(step("move into an empty root"))?;
        let quick = quicken_moves(quick_v2);
        let init = executable(super::INIT).map_err(step("put the init in memory"))?;
        Ok(Self {
            own,
            proc,
            bare,
            _quick: quick,
            network,
            scratch: Spare::default(),
            init,
            filter: seccomp::filter(&[], &[]),
            present,
            cpus,
            most_open_files,
            without,
            all_devices: all_devices.map_err(step("open the group of all devices"))?,
            child_stack: Stack::new(),
            program_stack: Stack::new(),
        })
    }

    /// Lowest address and size of the child's stack.
    pub fn child_stack(&self) -> (usize, usize) {
        (self.child_stack.bottom(), STACK_BYTES)
    }

    /// Upper end of the program's first stack.
    pub fn program_stack_top(&self) -> usize {
        self.program_stack.bottom() + STACK_BYTES
    }
}

/// Not dumpable, no signals, files with exactly the modes asked for.
fn hide() -> io::Result<()> {
    // SAFETY: plain calls on this single-threaded process; the set is initialised by sigfillset.
    unsafe {
        if libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Who makes a user namespace shall be able to be somebody else for that moment.
        const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        if libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        libc::umask(0);
    }
    Ok(())
}

/// Gives the CPUs that containers may use: all this process may, also those that are offline now. Launchers are numbered, so that each CPU has its own.
fn keep_to_one_cpu() -> io::Result<Vec<u64>> {
    let cpus = allowed_cpus(&std::fs::read_to_string("/proc/self/status")?).ok_or(io::ErrorKind::InvalidData)?;
    let Some(own) = own_cpu(&cpus) else { return Ok(cpus) };
    let mut one = vec![0_u64; cpus.len()];
    one[own / 64] = 1 << (own % 64);
    // SAFETY: the mask is ours and as long as is said.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&one[..]), one.as_ptr()) };
    match result {
        0.. => Ok(cpus),
        _ => match io::Error::last_os_error() {
            // Offline: any other will do.
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(cpus),
            error => Err(error),
        },
    }
}

/// From a `/proc/PID/status`, whose words are of 32 bits, the highest first. `sched_getaffinity` would leave out what is offline, for good.
fn allowed_cpus(status: &str) -> Option<Vec<u64>> {
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"))?.trim();
    let words: Result<Vec<u64>, _> = mask.rsplit(',').map(|word| u64::from_str_radix(word, 16)).collect();
    Some(words.ok()?.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 32)).collect())
}

/// The one whose number the runtime gave; none when it gave none, or that is not to be had.
fn own_cpu(cpus: &[u64]) -> Option<usize> {
    let number: usize = std::env::var(super::CPU_VARIABLE).ok()?.parse().ok()?;
    (cpus.get(number / 64)? >> (number % 64) & 1 == 1).then_some(number)
}

/// As high as the kernel lets this process go: a runtime has some twenty files open for each container, and a launcher gives containers no more than
/// it may have itself.
pub fn raise_open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 1 << 20;
    let found = getrlimit(Resource::RLIMIT_NOFILE).map_or(WANTED, |(_, most)| most);
    // To pass the limit that was set for it takes a privilege; to reach it takes none.
    for most in [found.max(WANTED), found] {
        if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
            return most;
        }
    }
    found
}

fn present_paths() -> Vec<&'static CStr> {
    let exists = |path: &&CStr| path.to_str().is_ok_and(|path| std::fs::symlink_metadata(format!("/{path}")).is_ok());
    HIDDEN_FILES.into_iter().chain(HIDDEN_DIRECTORIES).chain(READ_ONLY).filter(exists).collect()
}

fn unshare_mounts() -> io::Result<()> {
    // SAFETY: a mount namespace of its own invalidates nothing that this process holds.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Where moves are slow: on v2 only programs that join a container make any.
fn quicken_moves(v2: io::Result<bool>) -> Option<OwnedFd> {
    let asked = match v2 {
        Ok(false) => quick::make_own().map(Some),
        other => other.map(|_| None),
    };
    asked.unwrap_or_else(|error| {
        tracing::debug!(%error, "moves between cgroups stay slow");
        None
    })
}

/// Whether a container's `/proc` can be made here, and its layers need no place in this mount namespace: both by trying, in that order.
fn can_be_bare(own: &OwnedFd) -> bool {
    let tried = namespace::pids_of(own.as_fd()).and_then(|pids| mount::proc_of(pids.as_fd()));
    let tried = tried.and_then(|_| super::layers::detached());
    if let Err(error) = &tried {
        tracing::debug!(%error, "containers begin in a mount namespace that holds more than nothing");
    }
    tried.is_ok()
}

/// An empty directory that nothing can be added to becomes the root; all of the host's tree goes. Gives its `/proc`.
fn move_into_nothing() -> io::Result<OwnedFd> {
    let proc = mount::copy_of(CWD, c"/proc")?;
    let empty = nothing()?;
    move_mount(empty.as_fd(), "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::chdir("/proc")?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(proc)
}

/// A directory that holds nothing and can hold nothing.
fn nothing() -> io::Result<OwnedFd> {
    mount::detached(
        "tmpfs",
        &[
            mount::Setting::Text("mode", "0555"),
            mount::Setting::Text("size", "4k"),
            mount::Setting::Text("nr_inodes", "1"),
        ],
        MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// Where containers cannot begin with nothing. A tmpfs with `proc`, `mnt`, `empty` and [`super::layers::PLACES`] becomes the root; the host's tree goes. What is hidden from containers is
/// covered with `empty`, which holds nothing and can hold nothing: one for all, as making and dropping a file system for each would cost a tenth of a launch.
/// What that leaves: containers of one launcher can `flock` each other out of that directory, which holds up nobody who does not lock it.
fn move_out() -> io::Result<OwnedFd> {
    let proc = mount::copy_of(CWD, c"/proc")?;
    let root = mount::detached(
        "tmpfs",
        &[mount::Setting::Text("mode", "0755"), mount::Setting::Text("size", "64k")],
        MountAttrFlags::empty(),
    )?;
    let empty = nothing()?;
    for dir in ["proc", "mnt", "empty"].into_iter().chain(super::layers::PLACES) {
        rustix::fs::mkdirat(&root, dir, Mode::from_raw_mode(0o755))?;
    }
    let attach = |tree: &OwnedFd, target: &str| {
        move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    attach(&root, "/proc")?;
    rustix::process::chdir("/proc")?;
    attach(&proc, "proc")?;
    attach(&empty, "empty")?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(proc)
}

/// A sealed executable in memory that may be executed but not read: what runs from it cannot be traced by the container either.
fn executable(bytes: &[u8]) -> io::Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10;
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the result is a new descriptor or -1.
    let fd = unsafe {
        match libc::memfd_create(super::INIT_NAME.as_ptr(), base | MFD_EXEC) {
            -1 => libc::memfd_create(super::INIT_NAME.as_ptr(), base),
            fd => fd,
        }
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o111))?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: a plain call on our own descriptor.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_read_as_the_kernel_writes_them() {
        let read = |mask: &str| allowed_cpus(&format!("Name:\tx\nCpus_allowed:\t{mask}\nCpus_allowed_list:\t0-1\n"));
        assert_eq!(read("3"), Some(vec![3]));
        assert_eq!(read("ffffffff,00000001"), Some(vec![0xffff_ffff_0000_0001]));
        assert_eq!(read("f,00000000,80000000"), Some(vec![0x8000_0000, 0xf]));
        assert_eq!(read("no mask"), None);
        assert_eq!(allowed_cpus("Name:\tx\n"), None);
    }
}
