//! Following a log: no line lost, none twice, across rotations, attempts and restarts; and what a follower was too slow for is counted.
//!
//! The app is a web server whose requests write numbered lines, so that the test and not a clock decides how far ahead of its reader it is.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::cli::{Cli, text};
use super::support::machine;
use super::support::parts::Parts;
use super::support::{events::Events, http};
use super::*;

/// Writes the lines `from` to `from + count - 1`; `die` ends the server as a crash would.
const SERVER: &str = r#"
mkdir -p /w/cgi-bin
cat > /w/cgi-bin/write <<'END'
#!/bin/sh
i=${QUERY_STRING%-*}; end=$((i + ${QUERY_STRING#*-}))
while [ $i -lt $end ]; do printf 'line %0WIDTHd\n' $i >&2; i=$((i + 1)); done
printf 'Content-Type: text/plain\r\n\r\nwritten\n'
END
cat > /w/cgi-bin/die <<'END'
#!/bin/sh
kill -9 2
END
busybox chmod 755 /w/cgi-bin/write /w/cgi-bin/die
exec httpd -f -p 8080 -h /w
"#;

/// Digits of each line's number.
const WIDTH: usize = 80;

/// Bytes of each line in the log: time (13 digits until the year 2286), stream, tag, text, end.
const RAW_BYTES: u64 = 13 + " stderr F line ".len() as u64 + WIDTH as u64 + 1;

/// Bytes kept of each log: two files of half of it.
const LOG_BYTES: u64 = 64 << 10;

/// Lines: two bursts fit into one file, and one whole file besides the present one is kept for sure.
const BURST: u64 = LOG_BYTES / 2 / RAW_BYTES / 2;

fn server() -> String {
    let script = SERVER.replace("WIDTH", &WIDTH.to_string()).replace('\n', "\n    ");
    format!(
        "name: web\nimage: busybox\nreplicas: 1\nports: [8080]\n\
         resources: {{cpu: 500m, memory: 32Mi, processes: 16, scratch: 1Mi, log: {LOG_BYTES}}}\n\
         command:\n  - sh\n  - -c\n  - |{script}\n"
    )
}

/// `bellows logs -f` as a process, and what it has said.
struct Follower {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Follower {
    fn of(cli: &Cli, replica: &str) -> Self {
        let mut child = cli.command(&["logs", replica, "-f"]).spawn().expect("the executable was built");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { child, lines, next: 0 }
    }

    /// The number of the next line.
    fn number(&mut self) -> u64 {
        let line = self.lines.next().unwrap_or_else(|| panic!("the log ended: {}", complaints(&mut self.child)));
        let line = line.expect("readable");
        line.strip_prefix("line ")
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("not a line: {line}"))
    }

    /// Reads up to this line, each exactly once.
    fn read_to(&mut self, end: u64) {
        while self.next < end {
            let number = self.number();
            assert_eq!(number, self.next, "after {} lines", self.next);
            self.next += 1;
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("process ids are small")), signal).expect("it runs");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Also one that was stopped.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn complaints(child: &mut Child) -> String {
    let mut said = Vec::new();
    let _ = child.kill();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_end(&mut said));
    text(&said)
}

/// The copy, ready and not the attempt before: its id, and where it serves.
fn ready_copy(cli: &Cli, attempt: u64) -> (String, SocketAddr) {
    let mut events = Events::follow(cli);
    events.until(&format!("attempt {attempt} is ready"), PATIENCE, |_| {
        let rows = cli.replicas("web");
        let row = rows.iter().find(|row| row["ready"] == Value::Bool(true) && row["attempt"] == attempt)?;
        Some((field(row, "id"), address(row, 8080)))
    })
}

fn write(at: SocketAddr, from: u64, count: u64) {
    assert_eq!(http::body(at, &format!("/cgi-bin/write?{from}-{count}")), "written\n");
}

#[test]
fn a_follower_has_every_line_once_across_rotations_and_a_crash() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&server(), &["--wait"]);
    let (id, at) = ready_copy(cli, 1);
    let mut follower = Follower::of(cli, &id);
    // Some ten rotations.
    for _ in 0..40 {
        write(at, follower.next, BURST);
        follower.read_to(follower.next + BURST);
    }
    // The server does not live to answer.
    let _ = http::get(at, "/cgi-bin/die");
    let (same, at) = ready_copy(cli, 2);
    assert_eq!(same, id, "restarted in place");
    for _ in 0..4 {
        write(at, follower.next, BURST);
        follower.read_to(follower.next + BURST);
    }
    let last = |arguments: &[&str]| text(&cli.run(&[&["logs", &id], arguments].concat()).stdout);
    let line = |number: u64| format!("line {number:0WIDTH$}\n");
    assert_eq!(last(&["--tail", "2"]), line(follower.next - 2) + &line(follower.next - 1));
    assert_eq!(last(&["--previous", "--tail", "1"]), line(40 * BURST - 1));
    assert_eq!(last(&["--since", "1000d"]).lines().next(), Some(line(40 * BURST).trim_end()), "of the latest attempt");
    drop(follower);
    bench.end();
}

#[test]
fn a_follower_too_slow_is_told_how_much_was_rotated_away() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    cli.apply(&server(), &["--wait"]);
    let (id, at) = ready_copy(cli, 1);
    let mut follower = Follower::of(cli, &id);
    write(at, 0, 1);
    follower.read_to(1);
    follower.signal(Signal::SIGSTOP);
    // More than all pipes, windows and channels between app and follower hold; in parts that a request has time for.
    const PART: u64 = 4_000;
    let end = 1 + 40 * PART;
    (0..40).for_each(|part| write(at, 1 + part * PART, PART));
    follower.signal(Signal::SIGCONT);
    let mut missing = 0;
    while follower.next < end {
        let number = follower.number();
        assert!(number >= follower.next, "line {number} after line {}", follower.next - 1);
        missing += number - follower.next;
        follower.next = number + 1;
    }
    let said = complaints(&mut follower.child);
    let notices =
        said.lines().filter_map(|line| line.strip_prefix("warning: ")?.split_once(" bytes of the log of replica "));
    let told: u64 = notices.filter_map(|(bytes, _)| bytes.parse::<u64>().ok()).sum();
    assert!(missing > 0, "nothing was too much for it: {said}");
    assert_eq!(told, missing * RAW_BYTES, "{missing} lines are missing: {said}");
    drop(follower);
    bench.end();
}

#[test]
fn a_follower_goes_on_after_the_controller_and_the_agent_were_killed() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let mut parts = Parts::start(1);
    let layout = images::busybox(parts.state());
    parts.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
    parts.cli.apply(&server(), &["--wait"]);
    let (id, at) = ready_copy(&parts.cli, 1);
    let mut follower = Follower::of(&parts.cli, &id);
    let mut round = |follower: &mut Follower, kill: &mut dyn FnMut(&mut Parts)| {
        write(at, follower.next, BURST);
        follower.read_to(follower.next + BURST / 2);
        kill(&mut parts);
        // The app needs neither of them; what is kept outlasts what the follower misses meanwhile.
        write(at, follower.next + BURST - BURST / 2, BURST / 2);
        parts.all().for_each(|part| {
            if part.restart() {
                part.await_line();
            }
        });
        follower.read_to(follower.next + BURST - BURST / 2 + BURST / 2);
    };
    round(&mut follower, &mut |parts| parts.controller.kill());
    round(&mut follower, &mut |parts| parts.agents[0].kill());
    round(&mut follower, &mut |parts| parts.all().for_each(super::support::parts::Part::kill));
    drop(follower);
    parts.cli.json(&["rm", "web", "--wait"]);
    parts.end();
}
