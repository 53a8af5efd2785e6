//! One run of one machine: from qemu's start until a word appears on its console.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that wait to be looked at; beyond them the guest's console waits.
const LINES_AHEAD: usize = 256;

/// What is shown of a console when something went wrong.
const LAST_LINES: usize = 40;

/// Why a machine did not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file for it could not be written.
    #[error("could not write the machine's initramfs")]
    Prepare(#[source] io::Error),
    /// Qemu could not be executed.
    #[error("could not start {}", program.display())]
    Start {
        /// Qemu.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended before.
    #[error("the machine ended without saying `{word}`; it last said:\n{last}")]
    Ended {
        /// What was waited for.
        word: String,
        /// The end of its console.
        last: String,
    },
    /// It took too long.
    #[error("the machine did not say `{word}` within {} s; it last said:\n{last}", limit.as_secs())]
    Silent {
        /// What was waited for.
        word: String,
        /// How long.
        limit: Duration,
        /// The end of its console.
        last: String,
    },
}

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// Qemu, by translation: some ten times slower.
    Software,
}

impl Acceleration {
    /// KVM where this process may use it. That the device is there does not yet mean that guests run.
    pub fn offered() -> Self {
        match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Self::Kvm,
            Err(_) => Self::Software,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Software => "emulated in software",
        }
    }

    /// In software, all processors in turn: when each has a thread of its own, one may go on for ever with what it translated before another one's kernel
    /// rewrote it (seen with qemu 7.2 and Linux 6.1: at a breakpoint that had been taken away again).
    fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Software => "tcg,thread=single",
        }
    }
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Qemu.
    pub qemu: PathBuf,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// An [`crate::Initramfs`], finished.
    pub initramfs: Vec<u8>,
    /// Who executes it.
    pub acceleration: Acceleration,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// More words for the kernel, and after `--` for the first process.
    pub command_line: String,
}

/// What a machine said.
#[derive(Debug, Clone)]
pub struct Said {
    /// From qemu's start until the word.
    pub after: Duration,
    /// Its console so far, line by line.
    pub console: Vec<String>,
}

impl Machine {
    /// Starts it, waits until a line of its console contains `word`, and ends it.
    pub fn run(&self, word: &str, limit: Duration) -> Result<Said, Error> {
        let mut initramfs = tempfile::NamedTempFile::new().map_err(Error::Prepare)?;
        initramfs.write_all(&self.initramfs).map_err(Error::Prepare)?;
        let mut command = self.command();
        command.arg("-initrd").arg(initramfs.path());
        let began = Instant::now();
        let child = command.spawn().map_err(|source| Error::Start { program: self.qemu.clone(), source })?;
        let mut guest = Guest::new(child);
        wait_for(&mut guest, word, began, limit)
    }

    fn command(&self) -> Command {
        let append = format!("console=ttyS0 quiet panic=-1 {}", self.command_line);
        let (memory, cpus) = (self.memory_mib.to_string(), self.cpus.to_string());
        let mut command = Command::new(&self.qemu);
        command.args(["-machine", "q35", "-accel", self.acceleration.argument(), "-m", &memory, "-smp", &cpus]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.arg("-kernel").arg(&self.kernel).args(["-append", &append]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Ended when dropped.
struct Guest {
    child: Child,
    lines: Receiver<String>,
}

impl Guest {
    fn new(mut child: Child) -> Self {
        let (tell, lines) = sync_channel(LINES_AHEAD);
        let streams: [Option<Box<dyn io::Read + Send>>; 2] =
            [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
        for stream in streams.into_iter().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
                // Nobody listens any more when the word was said.
                lines.try_for_each(|line| tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()))
            });
        }
        Self { child, lines }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself: killing it fails then, and waiting does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(guest: &mut Guest, word: &str, began: Instant, limit: Duration) -> Result<Said, Error> {
    let mut console = Vec::new();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        match guest.lines.recv_timeout(left) {
            Ok(line) => {
                let said = line.contains(word);
                console.push(line);
                if said {
                    return Ok(Said { after: began.elapsed(), console });
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::Silent { word: word.to_owned(), limit, last: last(&console) });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Ended { word: word.to_owned(), last: last(&console) });
            }
        }
    }
}

fn last(console: &[String]) -> String {
    console[console.len().saturating_sub(LAST_LINES)..].join("\n")
}
