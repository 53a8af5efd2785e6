//! A running `bellows local` cluster of its own: hosts with addresses, cgroups and processes of their own. Ended with the test, also when that fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use super::census::Census;
use super::cli::{BELLOWS, Cli, text};

static NEXT: AtomicU8 = AtomicU8::new(10);

/// A name that no other test on this machine has, and that is no other one's beginning. What bears it is ended with the test.
#[derive(Debug)]
pub struct Name(String);

impl Name {
    pub fn fresh() -> Self {
        Self(format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Most often there is nothing left, which is as well.
        let _ = run(self, "down", &[]);
    }
}

/// `bellows local VERB --name NAME ...`.
pub fn command(name: &str, verb: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BELLOWS);
    command.args(["local", "--name", name, "--output", "json", verb]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its outcome.
pub fn run(name: &str, verb: &str, arguments: &[&str]) -> Output {
    command(name, verb, arguments).output().expect("the executable was built")
}

/// A local cluster that is up.
#[derive(Debug)]
pub struct Local {
    pub name: Name,
    /// What `up` said.
    pub up: Value,
    /// Its verbs.
    pub cli: Cli,
}

impl Local {
    /// Returns when all nodes are up.
    pub fn up(arguments: &[&str]) -> Self {
        let name = Name::fresh();
        let output = run(&name, "up", arguments);
        let said = text(&output.stdout);
        assert!(output.status.success(), "`bellows local up`: {}\n{said}{}", output.status, text(&output.stderr));
        super::burn::favour_cluster(&name);
        let up: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        let cli = Cli::new(Path::new(up["credential"].as_str().expect("`up` names the credential")));
        Self { name, up, cli }
    }

    /// A verb that must succeed.
    pub fn json(&self, verb: &str, arguments: &[&str]) -> Value {
        let output = run(&self.name, verb, arguments);
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "bellows local {verb} {arguments:?}: {}\n{said}{complained}", output.status);
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("bellows local {verb} {arguments:?}: {e}\n{said}"))
    }

    /// What a program says that runs on a host.
    pub fn exec(&self, host: &str, program: &[&str]) -> Output {
        run(&self.name, "exec", &[&[host, "--"], program].concat())
    }

    /// One row of `status`.
    pub fn host(&self, host: &str) -> Value {
        let rows = self.json("status", &[]);
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["host"] == host));
        row.unwrap_or_else(|| panic!("no host {host}: {rows}")).clone()
    }

    /// `pid command` of the processes of a host's replicas: what is in its slots.
    pub fn replica_processes(&self, host: &str) -> BTreeSet<String> {
        let slots = format!("bellows-local-{}/{host}/s", &*self.name);
        let in_slot =
            |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| slot(&text, &slots));
        self.census().processes.into_iter().filter(|line| line.split(' ').next().is_some_and(in_slot)).collect()
    }

    pub fn census(&self) -> Census {
        Census::of_local(&self.name)
    }

    /// Ends it, and then nothing of it is on the machine.
    pub fn down(self) {
        let before = self.census();
        let seen = [before.processes.is_empty(), before.cgroups.is_empty(), before.links.is_empty()];
        assert_eq!(seen, [false; 3], "the census sees what runs: {before:#?}");
        self.json("down", &[]);
        let left = self.census();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

/// `12:pids:/bellows-local-NAME/n1/s3`, and not `/bellows-local-NAME/n1/system`.
fn slot(cgroups: &str, slots: &str) -> bool {
    let numbered =
        |path: &str| path.split_once(slots).is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    cgroups.lines().any(numbered)
}
