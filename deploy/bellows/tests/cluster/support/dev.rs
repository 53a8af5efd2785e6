//! A running `bellows dev` of its own: state folder, ports, addresses.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::cli::{BELLOWS, Cli};

/// Long enough for a machine under load; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Every cluster has addresses of its own, so that what one test leaves behind is not blamed on the next.
static NEXT_RANGE: AtomicU8 = AtomicU8::new(FIRST_RANGE);

/// 10.140 to 10.249, without those that other tests and the measurements have for themselves.
const FIRST_RANGE: u8 = 140;
const LAST_RANGE: u8 = 249;
const TAKEN: [u8; 10] = [194, 195, 196, 197, 198, 199, 211, 212, 213, 214];

/// Kept locked to the end of this process: another one that runs these tests on the same machine takes other addresses.
static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The first address of a /16 that no other cluster has.
pub fn next_range() -> String {
    let candidates = std::iter::from_fn(|| Some(NEXT_RANGE.fetch_add(1, Ordering::Relaxed)));
    let mut candidates = candidates.take_while(|number| *number <= LAST_RANGE).filter(|number| !TAKEN.contains(number));
    let number = candidates.find(|number| lock(*number)).expect("fewer clusters than ranges on this machine");
    format!("10.{number}.0.0")
}

fn lock(number: u8) -> bool {
    let path = std::env::temp_dir().join(format!("bellows-test-range-{number}"));
    let file = OpenOptions::new().create(true).append(true).open(path).expect("writable");
    let free = file.try_lock().is_ok();
    LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    free
}

/// Ended with the test, also when that fails.
#[derive(Debug)]
pub struct Dev {
    child: Child,
    /// What it printed when everything was up.
    pub ready: Value,
    /// Its verbs.
    pub cli: Cli,
    /// First address of its replicas.
    pub range: String,
}

impl Dev {
    /// Starts and waits for the line that says that all is up.
    pub fn start(state: &Path, more: &[&str]) -> Self {
        Self::start_in(&next_range(), state, more)
    }

    /// Again in the same folder, with the same addresses.
    pub fn start_again(earlier: &Self, state: &Path, more: &[&str]) -> Self {
        Self::start_in(&earlier.range, state, more)
    }

    fn start_in(range: &str, state: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(BELLOWS)
            .args(["dev", "--output", "json", "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"])
            .args(["--range", &format!("{range}/16"), "--state"])
            .arg(state)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the executable was built");
        let ready = first_line(&mut child);
        let Some(ready) = ready else {
            let ended = child.kill().and_then(|()| child.wait());
            panic!("`bellows dev` said nothing within {PATIENCE:?} ({ended:?})");
        };
        let credential = ready["credential"].as_str().expect("the line names the credential").to_owned();
        Self { child, ready, cli: Cli::new(Path::new(&credential)), range: range.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As Ctrl-C does; waits for the end.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal(Signal::SIGINT);
        self.child.wait().expect("it is our child")
    }

    /// As the out-of-memory killer does.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("it is our child")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("process ids are small"));
        kill(pid, signal).expect("it runs");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
        }
    }
}

/// The first line of its output; the rest is read and dropped, or the pipe would fill.
pub fn first_line(child: &mut Child) -> Option<Value> {
    let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = out.lines();
        // The test may have given up: then nobody listens.
        let _ = tell.send(lines.next());
        lines.for_each(drop);
    });
    let line = told.recv_timeout(PATIENCE).ok().flatten()?.ok()?;
    Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("the first line is JSON: {e}: {line}")))
}
