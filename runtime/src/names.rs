//! What an app may do without, by name: capabilities of the default set, and system calls that the default filter allows; and what it may be given
//! beyond both where an administrator allows that.

use crate::kernel::{capability, seccomp};

/// The number of a capability that containers have: `net_raw`.
pub fn capability(name: &str) -> Option<u8> {
    capability::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// Names of the capabilities that containers have.
pub fn capabilities() -> impl Iterator<Item = &'static str> {
    capability::NAMES.into_iter().map(|(name, _)| name)
}

/// The number, on this architecture, of a system call that containers may make and may be denied: `ptrace`.
pub fn call(name: &str) -> Option<u32> {
    deniable().find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// Names of the system calls that containers may make on this architecture and may be denied.
pub fn calls() -> impl Iterator<Item = &'static str> {
    deniable().map(|(name, _)| name)
}

fn deniable() -> impl Iterator<Item = (&'static str, u32)> {
    seccomp::allowed().filter(|(name, _)| !seccomp::NEEDED.iter().any(|(needed, _)| needed == name))
}

/// The number of a capability that containers may be given: `sys_ptrace`.
pub fn more_capability(name: &str) -> Option<u8> {
    capability::MORE.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// Names of the capabilities that containers may be given.
pub fn more_capabilities() -> impl Iterator<Item = &'static str> {
    capability::MORE.into_iter().map(|(name, _)| name)
}

/// The number of a system call that containers may be allowed: `io_uring_setup`.
pub fn more_call(name: &str) -> Option<u32> {
    seccomp::MORE.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number as u32)
}

/// Names of the system calls that containers may be allowed.
pub fn more_calls() -> impl Iterator<Item = &'static str> {
    seccomp::MORE.into_iter().map(|(name, _)| name)
}
