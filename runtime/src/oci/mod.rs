//! The OCI runtime specification over this crate's launching code: a bundle's `config.json` becomes the same kind of list of steps that a replica is, and
//! the same code performs it.
//!
//! Read in this order: [`config`] (what is read and what is refused), `plan` (from configuration to steps, pure), `steps` (what only bundles ask for),
//! `create` (the launching process), [`state`] (what is kept of a container between two commands), [`verbs`] (the commands).
//!
//! Deliberately absent: a resident process (each command is a process of its own, as its callers expect), systemd as a manager of cgroups, AppArmor and
//! SELinux labels, checkpoints, rootless containers. What is asked for and absent is refused by name, never left out in silence.

mod aside;
mod capabilities;
pub mod cgroup;
pub mod config;
mod create;
pub(crate) mod describe;
mod error;
mod filesystem;
mod hooks;
mod mounts;
mod names;
mod network;
mod plan;
mod process;
mod resources;
mod seal;
mod seccomp;
pub mod state;
mod steps;
mod trees;
pub mod verbs;

pub use error::OciError;
pub use names::signal;
pub use seal::{Sealed, move_to_sealed, sealed_copy};
pub use steps::{BundleStep, ChildHook, Target};
