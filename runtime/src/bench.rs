//! Measurements for `bellows bench launch`: whole lives through a runtime, and the kernel's own floor in the same run.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Runtime;
use crate::handle::{Error, Exit, Running, Timings};
use crate::kernel::sys::{CloneArgs, raw};
use crate::launch::{Moment, PAYLOAD, now_ns};
use crate::spec::{ContainerId, ContainerSpec};

/// One container's whole life.
#[derive(Debug, Clone)]
pub struct Life {
    /// Where its time went, from the order until all was cleaned up.
    pub timings: Timings,
    /// From the call until its program was executed and that was known.
    pub launched_ns: u64,
    /// From the call until it was reaped and everything of it was free or removed.
    pub cleaned_ns: u64,
    /// How it ended.
    pub exit: Exit,
}

/// Many lives.
#[derive(Debug, Clone)]
pub struct Run {
    /// In order of their ends.
    pub lives: Vec<Life>,
    /// From the first call until nothing is left of the last one.
    pub wall_ns: u64,
}

/// Makes an image in `dir` that holds one program without any library, `/bin/payload`: its own cost is about 40 us.
pub fn tiny_image(dir: &Path) -> io::Result<PathBuf> {
    let image = dir.join("tiny");
    fs::create_dir_all(image.join("bin"))?;
    let path = image.join("bin/payload");
    fs::write(&path, PAYLOAD)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(image)
}

/// Runs `count` containers like `template` to their ends, `parallel` at a time; each is forgotten at once. Their names are the template's with a number.
pub fn launch(runtime: &Runtime, template: &ContainerSpec, count: usize, parallel: usize) -> Result<Run, Error> {
    let lives = Mutex::new(Vec::with_capacity(count));
    let next = AtomicUsize::new(0);
    let began_ns = now_ns();
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let life = one(runtime, template, number)?;
            lives.lock().unwrap_or_else(PoisonError::into_inner).push(life);
        }
    };
    let done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..parallel).map(|_| scope.spawn(worker)).collect();
        let own = worker();
        others.into_iter().filter_map(|other| other.join().ok()).fold(own, Result::and)
    });
    runtime.settle();
    let wall_ns = now_ns() - began_ns;
    done.map(|()| Run { lives: lives.into_inner().unwrap_or_else(PoisonError::into_inner), wall_ns })
}

fn one(runtime: &Runtime, template: &ContainerSpec, number: usize) -> Result<Life, Error> {
    let mut spec = template.clone();
    spec.id = ContainerId::new(format!("{}-{number}", template.id))?;
    let began_ns = now_ns();
    let since = |what: Moment| (what.name(), now_ns() - began_ns);
    let Running { mut timings, .. } = runtime.launch(&spec)?;
    let launched_ns = now_ns() - began_ns;
    runtime.await_end(&spec.id)?;
    let gone = since(Moment::Gone);
    let ended = runtime.reap(&spec.id)?;
    let reaped = since(Moment::Reaped);
    runtime.forget(&spec.id)?;
    let forgotten = since(Moment::Forgotten);
    timings.moments_ns.extend([gone, reaped, forgotten]);
    Ok(Life { timings, launched_ns, cleaned_ns: forgotten.1, exit: ended.exit })
}

/// The kernel's floor: clone3 with seven namespaces, overlay on tmpfs, `/proc`, pivot_root, exec of the tiny program, wait; nothing else, no network link, no
/// limits, no filter. Nanoseconds of each run. `dir` is a folder for the image and the mount point. As root, from a small single-threaded process, as the
/// cost of a plain clone grows with memory and threads.
pub fn floor(dir: &Path, count: usize) -> io::Result<Vec<u64>> {
    let image = tiny_image(dir)?;
    let scratch = dir.join("floor");
    fs::create_dir_all(&scratch)?;
    let floor = Floor::prepare(&image, &scratch)?;
    (0..count).map(|_| floor.once()).collect()
}

struct Floor {
    scratch: CString,
    dirs: [CString; 3],
    options: CString,
}

impl Floor {
    fn prepare(image: &Path, scratch: &Path) -> io::Result<Self> {
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
        let [upper, work, merged] = ["u", "w", "m"].map(|name| scratch.join(name));
        let options = format!("lowerdir={},upperdir={},workdir={}", image.display(), upper.display(), work.display());
        Ok(Self { scratch: c(scratch)?, dirs: [c(&upper)?, c(&work)?, c(&merged)?], options: CString::new(options)? })
    }

    fn once(&self) -> io::Result<u64> {
        let began_ns = now_ns();
        let namespaces = libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        let args =
            CloneArgs { flags: namespaces as u32 as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
        // SAFETY: without CLONE_VM this is a fork; the child makes raw calls on what was prepared before and ends.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
        if pid == 0 {
            let step = self.child();
            // SAFETY: ends this child.
            unsafe { raw(libc::SYS_exit_group, [step, 0, 0, 0, 0, 0]) };
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut status = 0;
        // SAFETY: our own child, a local for its status.
        if unsafe { libc::waitpid(pid as i32, &mut status, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        match status {
            0 => Ok(now_ns() - began_ns),
            other => {
                Err(io::Error::other(format!("the floor's child ended with status {other:#x} (step {})", other >> 8)))
            }
        }
    }

    /// Gives the number of the step that failed; does not return otherwise.
    fn child(&self) -> usize {
        // SAFETY: every pointer is to a C string that this process, a copy of its parent, holds.
        let call =
            |nr: libc::c_long, args: [usize; 5]| unsafe { raw(nr, [args[0], args[1], args[2], args[3], args[4], 0]) };
        let at = |text: &std::ffi::CStr| text.as_ptr() as usize;
        let here = libc::AT_FDCWD as isize as usize;
        let own = [
            (c"/proc/self/setgroups", &b"deny"[..]),
            (c"/proc/self/uid_map", b"0 0 1"),
            (c"/proc/self/gid_map", b"0 0 1"),
        ];
        for (file, text) in own {
            let fd = call(libc::SYS_openat, [here, at(file), libc::O_WRONLY as usize, 0, 0]);
            if fd < 0 || call(libc::SYS_write, [fd as usize, text.as_ptr() as usize, text.len(), 0, 0]) < 0 {
                return 1;
            }
        }
        let safe = (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as usize;
        let [upper, work, merged] = &self.dirs;
        let steps = [
            (libc::SYS_mount, [0, at(c"/"), 0, (libc::MS_REC | libc::MS_PRIVATE) as usize, 0]),
            (libc::SYS_mount, [at(c"tmpfs"), at(&self.scratch), at(c"tmpfs"), 0, at(c"size=64m")]),
            (libc::SYS_mkdirat, [here, at(upper), 0o755, 0, 0]),
            (libc::SYS_mkdirat, [here, at(work), 0o755, 0, 0]),
            (libc::SYS_mkdirat, [here, at(merged), 0o755, 0, 0]),
            (libc::SYS_mount, [at(c"overlay"), at(merged), at(c"overlay"), 0, at(&self.options)]),
            (libc::SYS_chdir, [at(merged), 0, 0, 0, 0]),
            (libc::SYS_mkdirat, [here, at(c"proc"), 0o755, 0, 0]),
            (libc::SYS_mount, [at(c"proc"), at(c"proc"), at(c"proc"), safe, 0]),
            (libc::SYS_pivot_root, [at(c"."), at(c"."), 0, 0, 0]),
            (libc::SYS_umount2, [at(c"."), libc::MNT_DETACH as usize, 0, 0, 0]),
            (libc::SYS_chdir, [at(c"/"), 0, 0, 0, 0]),
        ];
        for (number, (nr, args)) in steps.into_iter().enumerate() {
            if call(nr, args) < 0 {
                return number + 2;
            }
        }
        let argv = [at(c"payload"), at(c"exit"), at(c"0"), 0];
        call(libc::SYS_execve, [at(c"/bin/payload"), argv.as_ptr() as usize, [0_usize; 1].as_ptr() as usize, 0, 0]);
        99
    }
}
