//! What `--help` says is golden: a change of a flag or field name is seen in review. Completions are accepted by their shells.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::bellows;

const VERBS: &[&[&str]] = &[
    &[],
    &["controller"],
    &["agent"],
    &["apply"],
    &["scale"],
    &["apps"],
    &["replicas"],
    &["nodes"],
    &["logs"],
    &["events"],
    &["explain"],
    &["rm"],
    &["drain"],
    &["cordon"],
    &["uncordon"],
    &["node", "rm"],
    &["token"],
    &["image", "load"],
    &["image", "ls"],
    &["image", "rm"],
    &["status"],
    &["sim", "chaos"],
    &["local"],
    &["local", "up"],
    &["local", "down"],
    &["local", "status"],
    &["local", "exec"],
    &["local", "cut"],
    &["local", "heal"],
    &["local", "slow"],
    &["local", "kill"],
    &["local", "restart"],
    &["completions"],
    &["schema"],
];

/// Each verb's part of the help, without the global flags that stand in all of them.
#[test]
fn help_texts() {
    let mut texts = String::new();
    for verb in VERBS {
        let words: Vec<&str> = verb.iter().copied().chain(["--help"]).collect();
        let help = bellows(Path::new("/nonexistent"), &words);
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{verb:?}");
        let example = help.out.contains("Example") || verb.is_empty();
        assert!(example, "{verb:?} has no example");
        texts.push_str(&format!("$ bellows {}\n{}\n", words.join(" "), without_globals(&help.out, verb.is_empty())));
    }
    insta::assert_snapshot!(texts);
}

fn without_globals(help: &str, keep: bool) -> String {
    match (help.split_once("Global options:"), keep) {
        (Some((before, after)), false) => {
            let rest = after.split_once("[default: default]").map_or("", |(_, rest)| rest);
            format!("{}\n{}", before.trim_end(), rest.trim_end())
        }
        _ => help.to_owned(),
    }
}

#[test]
fn completions_are_accepted_by_their_shells() {
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let script = bellows(Path::new("/nonexistent"), &["completions", shell]);
        assert_eq!(script.code, 0, "{shell}");
        assert!(script.out.contains("uncordon") && !script.out.is_empty(), "{shell} does not know all verbs");
        accepted(shell, check, &script.out);
    }
    assert_eq!(bellows(Path::new("/nonexistent"), &["completions", "tcsh"]).code, 2);
}

/// Shells that are not installed here accept nothing and refuse nothing.
fn accepted(shell: &str, check: &[&str], script: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("script");
    std::fs::write(&file, script).expect("a temporary file");
    match Command::new(shell).args(check).arg(&file).stdin(Stdio::null()).output() {
        Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{shell}"),
    }
}

#[test]
fn the_schema_is_json() {
    let schema = bellows(Path::new("/nonexistent"), &["schema"]);
    assert_eq!(schema.json()["properties"]["replicas"]["maximum"], 1_000_000);
}

#[test]
fn hidden_verbs_are_hidden() {
    let help = bellows(Path::new("/nonexistent"), &["--help"]);
    assert!(!help.out.contains("runtime-launcher") && !help.out.contains("demo-app") && !help.out.contains("local-"));
    let misplaced = bellows(Path::new("/nonexistent"), &["-o", "json", "runtime-launcher"]);
    assert_eq!((misplaced.code, misplaced.error()["kind"].as_str()), (2, Some("usage")));
}
