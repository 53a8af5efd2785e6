//! The kernel's facilities, one module each: thin, typed, and the only place that knows their numbers.

pub mod assembler;
pub mod capability;
pub mod cgroup;
pub mod ids;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod seccomp;
pub mod sys;
pub mod syscalls;
