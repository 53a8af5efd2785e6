//! The async runtimes of this process, and the processes that it makes of itself. Made by the verb that needs one, so that verbs that must not have threads have none.

use std::future::Future;

use bellows_runtime::handle::LauncherCommand;

use crate::failure::Failure;

/// Runs a verb that talks to a controller: one thread, quick to start.
pub fn client<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?.block_on(verb)
}

/// Runs a verb that serves: a thread per CPU.
pub fn server(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?.block_on(verb)
}

/// Launchers of containers are this executable under its hidden verb: the very file that runs, also after another has taken its place on the disk, as
/// each version understands its own launchers only.
pub fn launcher() -> LauncherCommand {
    LauncherCommand { program: "/proc/self/exe".into(), args: vec![crate::LAUNCHER.into()] }
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::failed(format!("the kernel refuses threads or descriptors to this process: {error}"))
        .mend("look at `ulimit -u` and `ulimit -n`")
}
