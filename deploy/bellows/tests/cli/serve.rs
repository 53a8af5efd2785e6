//! Verbs that serve: started, and either up (their first line of JSON says so) or ended with a reason. And what such tests need of the machine.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::run::{Outcome, command};

/// Reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A process that is up. Killed when dropped.
pub struct Serving {
    child: Child,
    /// Its first line.
    pub first: Value,
    said: PathBuf,
    _said_in: tempfile::TempDir,
}

/// Starts it; an error is how it ended instead.
pub fn start(mut command: Command) -> Result<Serving, Outcome> {
    let said_in = tempfile::tempdir().expect("a temporary folder");
    let said = said_in.path().join("stderr");
    let stderr = File::create(&said).expect("a temporary file");
    let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the executable starts");
    match first_line(&mut child) {
        Some(first) => Ok(Serving { child, first, said, _said_in: said_in }),
        None => {
            let status = ended(&mut child).unwrap_or_else(|| panic!("it closed its stdout and does not end"));
            Err(Outcome { code: status.code().unwrap_or(-1), out: String::new(), err: read(&said) })
        }
    }
}

/// A controller on free ports.
pub fn controller(state: &Path, more: &[&str]) -> Result<Serving, Outcome> {
    start(controller_command(state, more))
}

pub fn controller_command(state: &Path, more: &[&str]) -> Command {
    let words = ["controller", "-o", "json", "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0", "--state"];
    let mut command = command(Path::new("/nonexistent"), &words);
    command.arg(state).args(more);
    command
}

/// A whole cluster on free ports.
pub fn dev_command(state: &Path, range: &str) -> Command {
    let words = ["dev", "-o", "json", "--nodes", "1", "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"];
    let mut command = command(Path::new("/nonexistent"), &words);
    command.args(["--range", range, "--state"]).arg(state);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

impl Serving {
    /// A text of the first line.
    pub fn named(&self, field: &str) -> String {
        self.first[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.first)).to_owned()
    }

    /// Runs a verb against it.
    pub fn run(&self, words: &[&str]) -> Outcome {
        crate::run::outcome(self.command(words))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = command(Path::new("/nonexistent"), words);
        command.env("BELLOWS_CREDENTIAL", self.named("credential"));
        command
    }

    /// What it wrote to stderr so far.
    pub fn said(&self) -> String {
        read(&self.said)
    }

    /// Waits until it has written this.
    pub fn until_said(&self, text: &str) {
        let begun = Instant::now();
        while !self.said().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "never said {text:?}: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// It ends by itself.
    pub fn ended(mut self) -> Outcome {
        let status = ended(&mut self.child).unwrap_or_else(|| panic!("it does not end: {}", read(&self.said)));
        Outcome { code: status.code().unwrap_or(-1), out: String::new(), err: self.said() }
    }

    /// Told to end.
    pub fn end(self) -> Outcome {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// As a power cut.
    pub fn kill(self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).expect("it runs");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Told first: what it started (launchers, replicas) shall end with it.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            if ended(&mut self.child).is_none() {
                let _ = self.child.kill().and_then(|()| self.child.wait());
            }
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("process ids are small"))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("a temporary file")).into_owned()
}

fn ended(child: &mut Child) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    None
}

/// The first line of its output; the rest is read and dropped, or the pipe would fill.
fn first_line(child: &mut Child) -> Option<Value> {
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        // The test may have given up: then nobody listens.
        let _ = tell.send(lines.next());
        lines.for_each(drop);
    });
    let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it neither serves nor ends"))?;
    let line = line.expect("a pipe can be read");
    Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("the first line is JSON: {error}: {line}")))
}

/// Refused with this exit code, and with all of these words in what people read.
pub fn check(outcome: &Outcome, code: i32, words: &[&str]) {
    let said = outcome.said();
    assert_eq!(outcome.code, code, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Whether the test may do what only root may; else says that it skips.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: this needs root");
    }
    root
}

/// A small disk, unmounted when dropped.
pub struct Disk(pub PathBuf);

impl Disk {
    /// Of so many bytes, at a folder that it makes.
    pub fn mount(path: PathBuf, bytes: u64) -> Self {
        fs::create_dir(&path).expect("a temporary folder");
        let size = format!("size={bytes},mode=0700");
        mount(Some("none"), &path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("root may mount");
        Self(path)
    }

    /// From now on nothing can be changed there, also by root.
    pub fn read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).expect("root may remount");
    }

    pub fn writable(&self) {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).expect("root may remount");
    }

    /// Fills what is left, but for so many bytes.
    pub fn fill(&self, but: u64) -> Filled {
        let path = self.0.join(format!("filler-{}", fs::read_dir(&self.0).map_or(0, Iterator::count)));
        let file = File::create(&path).expect("room for a name");
        loop {
            let stat = nix::sys::statvfs::statvfs(&self.0).expect("a mounted disk");
            let left = (stat.blocks_available() * stat.fragment_size()).saturating_sub(but);
            if left == 0 {
                return Filled(path);
            }
            match nix::fcntl::posix_fallocate(&file, 0, left.try_into().expect("a small disk")) {
                Ok(()) => return Filled(path),
                // Others write there, too, and have taken some of it meanwhile.
                Err(nix::errno::Errno::ENOSPC) => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

/// What takes the room of a disk.
pub struct Filled(PathBuf);

impl Filled {
    /// Gives the room back.
    pub fn free(self) {
        fs::remove_file(&self.0).expect("a file of ours");
    }
}
