//! Test binaries that run inside a machine.

use std::path::PathBuf;
use std::process::Command;

/// An executable that cargo made.
#[derive(Debug)]
pub struct Built {
    pub name: String,
    pub executable: PathBuf,
}

/// These test binaries and the programs they use. Cargo knows which of the files in its folder are the present ones; most often there is nothing to build.
pub fn built(tests: &[&str]) -> Vec<Built> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json", "--locked", "--offline"]);
    cargo.args(tests.iter().flat_map(|name| ["--test", name]));
    let told = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs: it runs this test");
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{text}\n{}", String::from_utf8_lossy(&told.stderr));
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some(Built { name, executable: message["executable"].as_str()?.into() })
    };
    messages.filter_map(executable).collect()
}
