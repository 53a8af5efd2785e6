//! Controllers that are away, restart, follow, refuse, or are somebody else's.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;

use tonic::{Code, Status};

use crate::fake::{Fake, Trust};
use crate::run::{bellows, outcome};
use crate::serve::root;
use crate::verbs::key;

/// A port of ours on which nobody listens: bound, but not listening, so that nobody else can take it.
pub fn silent() -> (std::os::fd::OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&listener), nix::sys::socket::Shutdown::Both)
        .expect("a socket");
    (listener.into(), address)
}

#[test]
fn nobody_answers() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let (_held, address) = silent();
    Trust::new().write_credential(home.path(), address);
    let people = bellows(home.path(), &["apps"]);
    assert_eq!(people.code, 3, "{people:?}");
    assert!(
        people.err.starts_with(&format!("error: no controller answers at https://{address} (tried for ")),
        "{people:?}"
    );
    assert!(people.err.contains("Connection refused") && people.err.contains("\n mend: is it running?"), "{people:?}");
    let programs = bellows(home.path(), &["apps", "-o", "json"]);
    assert_eq!((programs.code, programs.error()["kind"].as_str()), (3, Some("unreachable")));
}

#[test]
fn hosts_have_names_whatever_else_the_system_asks_for_them() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let (_held, address) = silent();
    Trust::new().write_credential(home.path(), address);
    let write = |name: &str, text: &str| fs::write(home.path().join(name), text).expect("a temporary file");
    let credential = home.path().join(".config/bellows/credential.json");
    let known = fs::read_to_string(&credential).expect("the credential").replace("127.0.0.1", "controller.example");
    write(".config/bellows/credential.json", &known);
    write("hosts", "127.0.0.1 controller.example\n");
    write("nsswitch.conf", "hosts: mymachines resolve mdns4_minimal files\n");
    let script = "mount --bind hosts /etc/hosts && mount --bind nsswitch.conf /etc/nsswitch.conf && exec \"$0\" apps";
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "sh", "-ec", script, env!("CARGO_BIN_EXE_bellows")]);
    elsewhere.current_dir(home.path()).env("HOME", home.path()).env_remove("BELLOWS_CREDENTIAL");
    let told = outcome(elsewhere);
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.err.contains("https://controller.example") && told.err.contains("Connection refused"), "{told:?}");
}

#[test]
fn a_repeated_request_keeps_its_key() {
    let fake = Fake::start();
    fake.refuse(Status::unavailable("no quorum answers"));
    fake.refuse(Status::unavailable("no quorum answers"));
    let outcome = fake.run(&["scale", "web", "5"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let heard = fake.heard();
    assert_eq!(heard.len(), 3);
    assert_eq!((key(&heard[0]), key(&heard[1])), (key(&heard[2]), key(&heard[2])));
    fake.run(&["scale", "web", "5"]);
    assert_ne!(key(&fake.heard()[3]), key(&heard[0]), "another invocation has another key");
}

#[test]
fn a_follower_names_the_leader() {
    let trust = Arc::new(Trust::new());
    let (follower, leader) = (Fake::trusting(trust.clone()), Fake::trusting(trust));
    let mut away = Status::unavailable("another member leads");
    away.metadata_mut().insert("bellows-leader", leader.address.to_string().parse().expect("an address is ASCII"));
    follower.refuse(away);
    let outcome = follower.run(&["scale", "web", "5"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!((follower.heard().len(), leader.heard().len()), (1, 1));
    assert_eq!(key(&follower.heard()[0]), key(&leader.heard()[0]));
}

#[test]
fn refusals_have_their_exit_codes() {
    let fake = Fake::start();
    for (code, exit, kind) in [
        (Code::InvalidArgument, 2, "usage"),
        (Code::FailedPrecondition, 1, "failed"),
        (Code::PermissionDenied, 1, "failed"),
        (Code::ResourceExhausted, 1, "failed"),
        (Code::NotFound, 5, "not_found"),
        (Code::DeadlineExceeded, 4, "timed_out"),
    ] {
        fake.refuse(Status::new(code, "app \"web\" is at generation 9, not 7: somebody changed it"));
        let outcome = fake.run(&["scale", "web", "5", "--expect", "7", "-o", "json"]);
        let error = outcome.error();
        assert_eq!((outcome.code, error["kind"].as_str()), (exit, Some(kind)), "{code:?}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("generation 9")), "{error}");
    }
    assert_eq!(fake.run(&["scale", "nosuch", "5"]).code, 5);
    assert_eq!(fake.run(&["explain", "nosuch"]).code, 5);
}

/// The credential of one cluster, the address of another: neither side may talk on.
#[test]
fn another_clusters_controller_is_not_trusted() {
    let fake = Fake::start();
    Trust::new().write_credential(fake.home.path(), fake.address);
    let outcome = fake.run(&["apps"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.err.contains("is not of the cluster of this credential"), "{outcome:?}");
    assert!(outcome.err.contains("certificate") && outcome.err.contains("mend: name the credential"), "{outcome:?}");
    assert!(fake.heard().is_empty());
}
