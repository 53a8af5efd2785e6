//! Containers on Linux: synchronous, the only `unsafe` of the project, and it knows nothing of clusters.
//!
//! Read in this order: [`spec`] (what to run), [`handle`] (the runtime as its users see it).

pub mod handle;
pub mod image;
pub mod spec;

pub use handle::{Runtime, RuntimeConfig};
pub use spec::{ContainerId, ContainerSpec, Limits, User};

/// The launcher process.
pub mod launch {
    /// Body of the hidden subcommand that a launcher is: returns its exit code when the runtime's socket closes.
    pub fn launcher_main() -> i32 {
        eprintln!("the launcher is not built yet");
        1
    }
}
