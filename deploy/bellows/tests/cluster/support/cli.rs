//! Verbs of the real executable, as a script would call them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The executable under test.
pub const BELLOWS: &str = env!("CARGO_BIN_EXE_bellows");

/// Calls verbs with one credential.
#[derive(Debug, Clone)]
pub struct Cli {
    credential: PathBuf,
}

impl Cli {
    pub fn new(credential: &Path) -> Self {
        Self { credential: credential.to_owned() }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BELLOWS);
        command.args(arguments).args(["--output", "json"]).env("BELLOWS_CREDENTIAL", &self.credential);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the executable was built")
    }

    /// Of a verb that must succeed: its JSON, null when it says nothing.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "bellows {}: {}\n{said}{complained}", arguments.join(" "), output.status);
        if said.trim().is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("bellows {}: {e}\n{said}", arguments.join(" ")))
    }

    /// Of a verb that says one document per line.
    pub fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        assert!(output.status.success(), "bellows {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
    }

    /// Rows of a listing verb: the document is a list, or holds it under one name.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let document = self.json(arguments);
        let list = document.as_array().or_else(|| document.as_object()?.values().find_map(Value::as_array));
        list.unwrap_or_else(|| panic!("bellows {} lists nothing: {document}", arguments.join(" "))).clone()
    }

    pub fn replicas(&self, app: &str) -> Vec<Value> {
        self.rows(&["replicas", app])
    }

    /// Declares an app from text.
    pub fn apply(&self, yaml: &str, more: &[&str]) -> Value {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a temporary file");
        std::fs::write(file.path(), yaml).expect("writable");
        let path = file.path().to_str().expect("temporary paths are text");
        self.json(&[&["apply", "-f", path], more].concat())
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field of a row, as text.
pub fn field(row: &Value, name: &str) -> String {
    match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => panic!("no field {name} in {row}"),
    }
}
