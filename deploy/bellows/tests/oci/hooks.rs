//! Hooks: which run when, where, with what on standard input, and what their failure does. Each writes its phase and the state it read into one file.

use std::fs;

use serde_json::{Value, json};

use crate::place::{self, Place};

/// Appends the phase, the state's status and id, and whether it is in the host's mount namespace.
fn recording(place: &Place, phase: &str) -> Value {
    let file = place.dir.path().join("hooks");
    let script =
        format!("S=$(cat); echo \"{phase} $(echo \"$S\" | grep -o '\"status\":\"[a-z]*\"') $X\" >> {}", file.display());
    json!({"path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["X=given", "PATH=/bin"]})
}

fn recorded(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.dir.path().join("hooks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_phase_runs_in_its_turn_with_the_state_it_is_told() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("echo started");
    for phase in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        config["hooks"][phase] = json!([recording(&place, phase)]);
    }
    // It runs in the container, whose own busybox it is, and sees the container's files only.
    config["root"]["readonly"] = json!(false);
    let inside = json!({"path": "/bin/busybox", "args": ["sh", "-c", "cat > /tmp/state; id -u >> /tmp/state"], "env": ["PATH=/bin"]});
    config["hooks"]["startContainer"] = json!([inside]);
    assert_eq!(place.create(&config).code, 0);
    let before = ["prestart", "createRuntime", "createContainer"].map(|p| format!("{p} \"status\":\"creating\" given"));
    assert_eq!(recorded(&place), before);
    assert!(!place.rootfs().join("tmp/state").exists(), "startContainer hooks wait for start");
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    let state = fs::read_to_string(place.rootfs().join("tmp/state")).expect("the hook inside has run");
    assert!(state.contains("\"status\":\"created\"") && state.trim_end().ends_with('0'), "{state}");
    assert_eq!(recorded(&place).last().map(String::as_str), Some("poststart \"status\":\"running\" given"));
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0);
    assert_eq!(recorded(&place).last().map(String::as_str), Some("poststop \"status\":\"stopped\" given"));
    place.check_nothing_left();
}

#[test]
fn a_hook_that_fails_or_takes_too_long_undoes_the_creation() {
    let Some(place) = place::place() else { return };
    for phase in ["prestart", "createRuntime", "createContainer"] {
        let cases = [
            (json!({"path": "/bin/busybox", "args": ["sh", "-c", "exit 3"]}), "3"),
            (json!({"path": "/bin/busybox", "args": ["sleep", "60"], "timeout": 1}), "timeout"),
            (json!({"path": "/no/such/hook"}), if phase == "createContainer" { "127" } else { "No such file" }),
        ];
        for (hook, want) in cases {
            let mut config = place.config("echo started");
            config["hooks"] = json!({phase: [hook]});
            let said = place.run(&config);
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{phase} {hook}: {said:?}");
            assert!(said.err.contains(phase) && said.err.contains(want), "{phase} {hook}: {said:?}");
            place.check_nothing_left();
        }
    }
}

#[test]
fn a_start_container_hook_that_fails_fails_the_start() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("echo started");
    config["hooks"] = json!({"startContainer": [{"path": "/bin/busybox", "args": ["sh", "-c", "exit 3"]}]});
    assert_eq!(place.create(&config).code, 0);
    let said = place.oci(&["start", place.id()]);
    assert!(said.code == 1 && said.err.contains("startContainer hook 1") && said.err.contains('3'), "{said:?}");
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0);
    place.check_nothing_left();
}

#[test]
fn a_hook_after_the_start_that_fails_is_told_and_changes_nothing() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("echo started; exit 4");
    for phase in ["poststart", "poststop"] {
        config["hooks"][phase] = json!([{"path": "/bin/busybox", "args": ["false"]}, recording(&place, phase)]);
    }
    let said = place.run(&config);
    assert_eq!((said.code, said.out.as_str()), (4, "started\n"), "{said:?}");
    assert_eq!(said.err.matches("warning").count(), 2, "{said:?}");
    assert_eq!(recorded(&place).len(), 2, "the hooks after the failed one run");
    place.check_nothing_left();
}

#[test]
fn hooks_that_cannot_be_are_refused_before_anything_is_done() {
    let Some(place) = place::place() else { return };
    for (hook, want) in [
        (json!({"path": "relative"}), "must be absolute"),
        (json!({"path": "/bin/true", "timeout": 0}), "greater than 0"),
    ] {
        for phase in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            let mut config = place.config("echo started");
            config["hooks"] = json!({phase: [hook]});
            let said = place.run(&config);
            assert!(said.code == 1 && said.err.contains(want) && said.out.is_empty(), "{phase}: {said:?}");
            place.check_nothing_left();
        }
    }
}
