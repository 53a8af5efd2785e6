//! The other end of `support/victim.rs`: a runtime in a process of its own.
#![allow(dead_code, reason = "each of the test programs uses some of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::support::Place;

/// A runtime that does what it is told.
pub struct Victim {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Dropped, it calls off the end.
    over: RefCell<Option<SyncSender<()>>>,
}

/// Kinds of open descriptors and how many there are of each.
pub type Descriptors = BTreeMap<String, usize>;

/// What it said to one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ok(String),
    Failed { kind: String, errno: i32, text: String },
}

impl Victim {
    pub fn start(place: &Place) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_bellows-launcher")), place)
    }

    /// By a command of that program, with whatever surroundings.
    pub fn spawn(command: Command, place: &Place) -> Self {
        Self::spawn_without(&[], command, place)
    }

    /// Whose launchers go without these.
    pub fn spawn_without(without: &[&str], mut command: Command, place: &Place) -> Self {
        let config = place.config();
        command.arg("victim").arg(&config.state).arg(&config.cgroup_parent).arg(config.subnet.to_string());
        command
            .arg(config.uid_base.to_string())
            .arg(place.image())
            .args(without)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("a process");
        let (input, output) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        Self { process, input, output: BufReader::new(output), over: RefCell::default() }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn tell(&mut self, order: &str) {
        // In one write, so that it is one read.
        self.input.write_all(format!("{order}\n").as_bytes()).expect("it reads");
    }

    pub fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        let words: Vec<&str> = line.trim_end().splitn(4, ' ').collect();
        match words[..] {
            ["ok", ..] => Answer::Ok(words[1..].join(" ")),
            ["failed", kind, errno, text] => {
                Answer::Failed { kind: kind.into(), errno: errno.parse().expect("a number"), text: text.into() }
            }
            _ => panic!("not an answer: {line:?}"),
        }
    }

    /// What it says when all is well.
    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        match self.answer() {
            Answer::Ok(said) => said,
            failed => panic!("{order}: {failed:?}"),
        }
    }

    pub fn descriptors(&self) -> Descriptors {
        descriptors(self.pid())
    }

    /// Ends it as if it had crashed. More than once is no more than once.
    pub fn end(&mut self) {
        // Its tracer may have seen its end already.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }

    /// Ends it if the test takes longer.
    pub fn end_later(&self, patience: Duration) {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        let (over, is_over) = std::sync::mpsc::sync_channel::<()>(1);
        *self.over.borrow_mut() = Some(over);
        std::thread::spawn(move || {
            if is_over.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                println!("{patience:?} are over: ending the runtime");
                let _ended = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
    }
}

/// Of any process: sockets, pipes, pidfds, namespaces, detached trees (`/`), files by their folder.
pub fn descriptors(pid: u32) -> Descriptors {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(':') {
            Some((kind, _)) if !target.starts_with('/') => kind.to_owned(),
            _ if target.contains("/containers/") => "container's file".to_owned(),
            _ if target.starts_with("/sys/fs/cgroup") => "cgroup".to_owned(),
            _ => target,
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}
