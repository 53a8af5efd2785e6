//! The executable `bellows`: what people type, what servers run.
//!
//! Reading order: [`cli`] (the tree of verbs), [`verbs`] (one module each), [`appfile`] (YAML to spec), [`connection`] (who we are,
//! whom we talk to), [`output`] (tables and JSON), [`failure`] (exit codes and how errors read).
//!
//! Hidden verbs (the launcher of containers, the demo app, two for hosts on this machine) and the OCI runtime are dispatched before anything else: none may
//! find itself in a process with threads or an async runtime.

mod appfile;
mod bench;
mod cli;
mod connection;
mod demo;
mod dev;
mod execution;
mod failure;
mod globals;
mod logging;
mod nodestate;
mod output;
mod signals;
mod units;
mod verbs;
mod waiting;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Hidden verb: a launcher process of the runtime, started by an agent.
const LAUNCHER: &str = "runtime-launcher";
/// Hidden verb: the demo app, started inside its containers.
const DEMO: &str = "demo-app";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(first) = verbs::oci::begins(&args) {
        return verbs::oci::main(&args[first..]);
    }
    match std::env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(LAUNCHER) => std::process::exit(bellows_runtime::launch::launcher_main()),
        Some(DEMO) => cli::demo(),
        Some(bellows_local::enter::HOLD) => bellows_local::enter::hold_main(),
        Some(bellows_local::enter::ENTER) => bellows_local::enter::enter_main(),
        _ => cli::people(),
    }
}
