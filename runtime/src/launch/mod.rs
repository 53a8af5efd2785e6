//! The launcher: a small single-threaded process that turns requests into containers.
//!
//! It lives in a mount namespace of its own that holds next to nothing (copying it per container is cheap, and no host path can leak), cannot be
//! dumped or traced, holds no secret, and ends when its runtime's socket closes. Its containers live on: their init is in the container.

mod attendant;
pub(crate) mod bundle;
pub(crate) mod child;
mod codec;
mod copy;
pub(crate) mod describe;
mod devices;
mod home;
mod join;
mod layers;
mod level;
mod moments;
mod program;
mod root;
mod scratch;
mod server;
mod setup;
mod terminal;
mod weaken;
pub mod wire;

pub(crate) use devices::{layer as device_layer, shifted as shifted_devices};
pub(crate) use home::raise_open_files;
pub use layers::Layers;
pub(crate) use layers::detached as detached_layers;
pub use moments::Moment;
pub use root::Origin;
pub(crate) use root::{Root, Seal, tells_changes};
pub use server::launcher_main;
pub(crate) use setup::{clock_ns, now_ns};
pub(crate) use terminal::resize;
#[doc(hidden)]
pub use weaken::{Weaken, weakened_launcher_main};

/// The launcher finds its socket at this descriptor.
pub const SOCKET_FD: i32 = 3;

/// Set in a launcher's environment, so that a program can tell before it looks at its arguments.
pub const LAUNCHER_VARIABLE: &str = "BELLOWS_LAUNCHER";

/// Where control groups are mounted.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Which CPU a launcher keeps to.
pub const CPU_VARIABLE: &str = "BELLOWS_LAUNCHER_CPU";

/// The freestanding init, compiled from `init/init.rs`.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// What an init is called: the first of its words.
pub(crate) const INIT_NAME: &std::ffi::CStr = c"init";

/// A freestanding program for tests and measurements, compiled from `init/payload.rs`.
pub const PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));

/// A freestanding program that tries to get out of a container, compiled from `escape/`: for tests.
pub const ESCAPE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/escape"));
