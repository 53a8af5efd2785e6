//! Containers on Linux: synchronous, the only `unsafe` of the project, and it knows nothing of clusters.
//!
//! Read in this order: [`spec`] (what to run), [`steps`] (what has to happen, in order and why), [`launch`] (how it happens), [`handle`] (the
//! runtime as its users see it), then the facilities: `kernel`, `net`, [`image`].

pub mod bench;
pub mod handle;
pub mod image;
mod kernel;
pub mod launch;
pub mod names;
mod net;
pub mod oci;
mod probe;
pub mod resolver;
pub mod spec;
pub mod steps;

pub use handle::{Runtime, RuntimeConfig};
pub use net::acknowledged;
pub use spec::{ContainerId, ContainerSpec, IoLimits, Limits, User};
