//! Fault points: every system call of a launch is refused in its turn, whoever makes it, and so are those of a kill, of reaping and forgetting, of a runtime's start, and
//! of a program executed in a container. Each time: a typed error that names the step and
//! carries the kernel's answer, everything undone, nothing left behind; the next launch works.

#[cfg(target_arch = "x86_64")]
#[path = "../support/driven.rs"]
mod driven;
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_arch = "x86_64")]
mod tracer;
#[cfg(target_arch = "x86_64")]
mod tried;

#[cfg(target_arch = "x86_64")]
mod launches;

#[cfg(target_arch = "x86_64")]
mod entries;

#[cfg(target_arch = "x86_64")]
mod executions;
