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

    /// Stderr as people read it, also where it was written for programs.
    pub fn said(&self) -> String {
        let document = self.err.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let Some(error) = document.map(|document| document["error"].clone()) else { return self.err.clone() };
        let mend = error["mend"].as_array().into_iter().flatten().filter_map(|hint| hint.as_str());
        let mend: String = mend.map(|hint| format!(" mend: {hint}\n")).collect();
        format!("error: {}\n{mend}", error["message"].as_str().unwrap_or_default())
    }

    /// Exit code and stderr for golden files: places that differ from run to run are replaced, digests and temporary names shortened.
    pub fn told(&self, places: &[(&str, &str)]) -> String {
        let mut err = self.err.clone();
        for (place, name) in places {
            err = err.replace(place, name);
        }
        format!("exit code {}\n{}\n", self.code, without_numbers(&err).trim_end())
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

/// What stands before, what is put instead, and what letters it is put instead of.
type Mark = (&'static str, &'static str, fn(char) -> bool);

/// `sha256:...` for digests, `127.0.0.1:PORT`, `process PID`: they differ from run to run.
fn without_numbers(text: &str) -> String {
    let mut told = String::new();
    let mut rest = text;
    let marks: [Mark; 5] = [
        ("blobs/sha256/", "...", |c| c.is_ascii_hexdigit()),
        ("sha256:", "...", |c| c.is_ascii_hexdigit()),
        ("127.0.0.1:", "PORT", |c| c.is_ascii_digit()),
        ("process ", "PID", |c| c.is_ascii_digit()),
        ("/.tmp", "XXXXXX", |c| c.is_ascii_alphanumeric()),
    ];
    while let Some((at, mark, name, of)) =
        marks.iter().filter_map(|(mark, name, of)| Some((rest.find(mark)?, *mark, *name, *of))).min_by_key(|hit| hit.0)
    {
        let end = at + mark.len();
        told.push_str(&rest[..end]);
        rest = &rest[end..];
        let after = rest.find(|c| !of(c)).unwrap_or(rest.len());
        told.push_str(if after > 0 { name } else { "" });
        rest = &rest[after..];
    }
    told + rest
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
