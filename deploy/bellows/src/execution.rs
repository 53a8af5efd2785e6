//! The async runtimes of this process. Made by the verb that needs one, so that verbs that must not have threads have none.

use std::future::Future;

use crate::failure::Failure;

/// Runs a verb that talks to a controller: one thread, quick to start.
pub fn client<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?.block_on(verb)
}

/// Runs a verb that serves: a thread per CPU.
pub fn server(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?.block_on(verb)
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::failed(format!("the kernel refuses threads or descriptors to this process: {error}"))
        .mend("look at `ulimit -u` and `ulimit -n`")
}
