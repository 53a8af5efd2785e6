//! The commands of the specification's command line, one function each. Each is the whole life of a process: what it leaves behind is in the state folder.

mod begin;
mod control;
mod execute;
mod features;
mod wait;

pub use begin::{CreateOptions, create, run, start};
pub use control::{Listed, delete, kill, list, pause, processes, resume, state, update};
pub use execute::{ExecuteOptions, execute};
pub use features::{example, features};
