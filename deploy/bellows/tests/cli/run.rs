//! Running the executable.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Everything, for golden files.
    pub fn shown(&self) -> String {
        format!("exit code {}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err)
    }

    /// Stdout as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error on stderr as JSON.
    pub fn error(&self) -> serde_json::Value {
        let document: serde_json::Value =
            serde_json::from_str(&self.err).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        document["error"].clone()
    }
}

/// The executable with nothing of this process' surroundings.
pub fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellows"));
    command.args(words).env_clear().env("HOME", home).env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn bellows(home: &Path, words: &[&str]) -> Outcome {
    outcome(command(home, words))
}

/// Runs it with a text on stdin.
pub fn bellows_with(home: &Path, words: &[&str], input: &str) -> Outcome {
    let mut command = command(home, words);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the executable starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("the executable reads its stdin");
    drop(stdin);
    read(child.wait_with_output().expect("the executable ends"))
}

pub fn outcome(mut command: Command) -> Outcome {
    read(command.output().expect("the executable starts"))
}

fn read(output: std::process::Output) -> Outcome {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the executable writes UTF-8");
    Outcome { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
