//! Wrong command lines and files: message and exit code, for people and for programs.

use std::path::Path;

use crate::run::{bellows, bellows_with};

#[test]
fn wrong_command_lines() {
    let cases: &[&[&str]] = &[
        &[],
        &["aps"],
        &["scale", "web"],
        &["scale", "web", "-4"],
        &["scale", "web", "lots"],
        &["scale", "web", "5", "--timeout", "3s"],
        &["scale", "web", "5", "--wait", "--timeout", "soon"],
        &["apply"],
        &["apply", "-f", "a.yaml", "--dry-run", "--wait"],
        &["apps", "--output", "xml"],
        &["drain", "n1", "--deadline", "5"],
        &["token", "--valid", "0s"],
        &["sim", "chaos", "--seeds", "5"],
        &["sim", "chaos", "--seeds", "5..5"],
        &["image"],
        &["agent", "--controller", "10.0.0.5:7400", "--cpu", "2"],
        &["agent", "--controller", "10.0.0.5"],
        &["agent"],
        &["scale", "web", "99999999999999999999"],
        &["controller", "--listen", "somewhere"],
        &["dev", "--nodes", "0"],
        &["dev", "--range", "10.0.0.0/8"],
    ];
    let mut told = String::new();
    for words in cases {
        let outcome = bellows(Path::new("/nonexistent"), words);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{words:?}");
        let first: Vec<&str> = outcome.err.lines().take(3).collect();
        told.push_str(&format!("$ bellows {}\n{}\n\n", words.join(" "), first.join("\n").trim_end()));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn wrong_command_lines_for_programs() {
    for words in [&["apps", "--output=json", "--nonsense"][..], &["-o", "json", "scale", "web", "lots"]] {
        let outcome = bellows(Path::new("/nonexistent"), words);
        let error = outcome.error();
        assert_eq!(
            (outcome.code, error["kind"].as_str(), error["exit_code"].as_i64()),
            (2, Some("usage"), Some(2)),
            "{words:?}"
        );
    }
}

#[test]
fn wrong_files_name_every_place() {
    let yaml = "name: web\nimage: web\nreplica: 3\nresources: {memory: lots}\n";
    let people = bellows_with(Path::new("/nonexistent"), &["apply", "-f", "-"], yaml);
    insta::assert_snapshot!(people.shown(), @r#"
    exit code 2
    --- stdout
    --- stderr
    error: stdin has 2 mistakes; nothing was sent
      stdin:3:1: unknown field "replica"; did you mean "replicas"?
      stdin:4:21: resources.memory: expected a size from 1Mi to 64Ti, for example 64Mi, found "lots"
     mend: `bellows apply --help` shows a whole file, `bellows schema` describes every field
    "#);
    let programs = bellows_with(Path::new("/nonexistent"), &["apply", "-f", "-", "-o", "json"], yaml);
    let error = programs.error();
    assert_eq!(programs.code, 2);
    let problem = &error["problems"][1];
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(4), Some(21)));
    assert_eq!((problem["file"].as_str(), problem["field"].as_str()), (Some("stdin"), Some("resources.memory")));
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(home.join(name), bytes).expect("a temporary file");
    write("latin1.yaml", b"name: caf\xe9\n");
    write("large.yaml", &vec![b'#'; (1 << 20) + 1]);
    let apply =
        |name: &str| bellows(home, &["apply", "-f", home.join(name).to_str().expect("a temporary path is UTF-8")]);
    for (name, code, said) in [
        ("missing.yaml", 5, "No such file"),
        ("latin1.yaml", 2, "byte 9 is not UTF-8"),
        ("large.yaml", 2, "larger than 1048576 bytes"),
        (".", 2, "Is a directory"),
    ] {
        let outcome = apply(name);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.err.contains(said) && outcome.err.contains("mend: "), "{outcome:?}");
    }
}

#[test]
fn no_credential_anywhere() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let missing = bellows(home.path(), &["apps", "--credential", "/nonexistent/credential.json", "-o", "json"]);
    assert_eq!((missing.code, missing.error()["kind"].as_str()), (5, Some("not_found")));
    let file = home.path().join("credential.json");
    std::fs::write(&file, "{}").expect("a temporary file");
    let damaged = bellows(home.path(), &["apps", "--credential", file.to_str().expect("a temporary path is UTF-8")]);
    assert_eq!(damaged.code, 2, "{damaged:?}");
    assert!(damaged.err.contains("is not a credential"), "{damaged:?}");
}
