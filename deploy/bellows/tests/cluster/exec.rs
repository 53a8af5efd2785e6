//! `bellows exec` from the command line to the container: streams, codes, terminals, and programs that end with whoever asked for them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::cli::{Cli, text};
use super::support::machine;
use super::*;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn exec(cli: &Cli, input: &[u8], arguments: &[&str]) -> Ran {
    let mut command = cli.command(&[]);
    command.args(["exec"]).args(arguments).stdin(Stdio::piped());
    finish(command.spawn().expect("the executable was built"), input)
}

fn finish(mut child: Child, input: &[u8]) -> Ran {
    let mut stdin = child.stdin.take().expect("piped");
    let bytes = input.to_vec();
    // A program that reads nothing makes this fail, which is right.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Whether a process with this word in its command line runs, in whichever container.
fn runs(word: &str) -> bool {
    let has = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(word));
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid| pid != std::process::id() && has(pid))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn programs_run_beside_the_app_and_their_codes_come_back() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    let id = field(&cli.replicas("app")[0], "id");
    let ran = exec(cli, b"", &["app", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (Some(42), "out\n", "err\n"));
    let much = "0123456789abcdef".repeat(1 << 16);
    let ran = exec(cli, much.as_bytes(), &["-i", &id, "--", "cat"]);
    assert_eq!((ran.code, ran.out.len(), &ran.err[..]), (Some(0), much.len(), ""));
    // Without -i there is no input to wait for.
    assert_eq!(exec(cli, b"x", &[&id, "--", "cat"]).out, "");
    let ran = exec(cli, b"", &[&id, "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(ran.code, Some(128 + 15));
    let ran = exec(
        cli,
        b"",
        &[
            &id,
            "--user",
            "33:44",
            "--workdir",
            "/bin",
            "--env",
            "A=b c",
            "--",
            "sh",
            "-c",
            "busybox id -u; pwd; echo $A $BELLOWS_APP",
        ],
    );
    assert_eq!(ran.out, "33\n/bin\nb c app\n", "{}", ran.err);
    let ran = exec(cli, b"", &[&id, "--", "nothing"]);
    assert_eq!(ran.code, Some(127), "{}", ran.err);
    assert!(ran.err.contains("execute nothing"), "{}", ran.err);
    let ran = exec(cli, b"", &[&id, "--", "/www/index.html"]);
    assert_eq!(ran.code, Some(126), "{}", ran.err);
    for (subject, says) in [("nobody", "nobody"), ("1-1-999", "1-1-999")] {
        let ran = exec(cli, b"", &[subject, "--", "true"]);
        assert!(ran.code == Some(125) && ran.err.contains(says), "{:?} {}", ran.code, ran.err);
    }
    let ran = exec(cli, b"", &[&id, "--user", "stranger", "--", "true"]);
    assert!(ran.code == Some(125) && ran.err.contains("no user `stranger`"), "{:?} {}", ran.code, ran.err);
    bench.end();
}

#[test]
fn a_program_ends_with_whoever_asked_for_it() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    // A number that nobody else sleeps for.
    let word = format!("88888.{}", std::process::id());
    let script = format!("trap '' TERM HUP; echo ready; busybox sleep {word}; :");
    let mut child = cli.command(&["exec", "app", "--", "sh", "-c", &script]);
    // Its own arguments hold the word too.
    let mut child = child.spawn().expect("the executable was built");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line, "ready\n");
    child.kill().and_then(|()| child.wait()).expect("it is ours");
    wait_until("the program and what it began are gone", || !runs(&word));
    bench.end();
}

struct Terminal {
    screen: File,
    seen: String,
    child: Child,
}

impl Terminal {
    fn open(cli: &Cli, arguments: &[&str]) -> Self {
        let size = nix::pty::Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("terminals are left");
        let stream = || Stdio::from(slave.try_clone().expect("descriptors are left"));
        let mut command = cli.command(arguments);
        let child =
            command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("the executable was built");
        Self { screen: File::from(master), seen: String::new(), child }
    }

    fn read_until(&mut self, wanted: &str) {
        let mut piece = [0; 4096];
        while !self.seen.contains(wanted) {
            let length =
                self.screen.read(&mut piece).unwrap_or_else(|e| panic!("{e} before {wanted:?}: {}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    }
}

#[test]
fn a_terminal_reaches_through() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&sleeper("app", 1), &["--wait"]);
    // A signal that comes while it reads ends the reading as the end does.
    let script = "busybox tty; busybox stty size; trap 'busybox stty size; resized=1' WINCH; echo ready; \
                  while read line || [ $resized ]; do resized=; echo \"[$line]\"; done; exit 9";
    let mut terminal = Terminal::open(cli, &["exec", "-it", "app", "--", "sh", "-c", script]);
    terminal.read_until("ready");
    assert!(terminal.seen.contains("/dev/pts/0") && terminal.seen.contains("31 97"), "{}", terminal.seen);
    let size = rustix::termios::Winsize { ws_row: 44, ws_col: 155, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal.screen, size).expect("resized");
    // The kernel tells only whose terminal it is, which is this test's session or none.
    kill(Pid::from_raw(terminal.child.id().try_into().expect("process ids are small")), Signal::SIGWINCH)
        .expect("it runs");
    terminal.screen.write_all(b"\r").expect("a line");
    terminal.read_until("44 155");
    terminal.screen.write_all(b"hello\r").expect("a line");
    terminal.read_until("[hello]");
    // Ctrl-D goes through as a key.
    terminal.screen.write_all(b"\x04").expect("the end");
    assert_eq!(terminal.child.wait().expect("it ends").code(), Some(9));
    // The terminal is as it was: it echoes again.
    let mode = rustix::termios::tcgetattr(&terminal.screen).expect("a terminal");
    assert!(mode.local_modes.contains(rustix::termios::LocalModes::ECHO));
    bench.end();
}
