//! The demo grows when told to burn and shrinks when the burning is over.

use super::support::events::Events;
use super::support::{http, machine};
use super::*;

/// Windows and the grace of idle copies, and the burn itself.
const SHRINK: Duration = Duration::from_secs(150);

#[test]
fn the_demo_grows_under_load_and_shrinks_again() {
    let Some(_machine) = machine(&[]) else { return };
    let state = tempfile::tempdir().expect("a temporary folder");
    let dev = Dev::start(state.path(), &["--nodes", "3", "--demo"]);
    let cli = &dev.cli;
    let replicas = cli.replicas("demo");
    assert_eq!(ready(&replicas), 1, "the demo begins with one copy: {replicas:#?}");
    let first = address(&replicas[0], 8080);
    assert!(http::body(first, "/").contains("It can be told"));
    assert!(http::body(first, "/burn?seconds=25").contains("burns 100%"));
    let mut events = Events::follow(cli);
    events.until("five copies under load", PATIENCE, |_| (ready(&cli.replicas("demo")) == 5).then_some(()));
    let why = cli.json(&["explain", "demo"]).to_string().to_lowercase();
    assert!(why.contains("cpu"), "the explanation names what decided: {why}");
    events.until("one copy when idle", SHRINK, |_| {
        let replicas = cli.replicas("demo");
        (replicas.len() == 1 && ready(&replicas) == 1).then_some(())
    });
    drop(events);
    Bench { dev, state }.end();
}
