//! Small virtual machines: an initramfs made on the spot, Debian's cloud kernel, qemu. For `bellows bench launch`, which compares a
//! container's start with theirs, and for tests on kernels and cgroup hierarchies that this machine does not have.
//!
//! ```text
//! Initramfs (cpio) ─┐
//! kernel()  ────────┼─▶ Machine ──run──▶ its console, line by line, until a word is said
//! qemu()    ────────┘      ▲
//!                        Guest: busybox, modules, programs of this machine; runs a script
//! ```
//! Deliberately absent: disks, networks, snapshots: what goes in is the initramfs, what comes out is the console.

mod find;
mod guest;
mod initramfs;
mod machine;
mod modules;

pub use find::{Missing, kernel, qemu};
pub use guest::{Guest, PackError, Ran};
pub use initramfs::Initramfs;
pub use machine::{Acceleration, Error, Machine, Said};
