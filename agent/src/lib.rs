//! The live agent: turns a leader's orders into containers on this server, and tells what became of them.
//!
//! Every decision is made in `bellows_agent_core`; this crate is the shell around it. Read in this order:
//!
//! * [`agent`](Agent): what must be right before it starts, and its end; `state` and `journal`: what outlives the process;
//! * `driver`: the one loop that owns the core; `news`: what reaches it;
//! * `identity`, `dial`, `session`: joining, and the stream of reports up and orders down; `convert`: the wire's words and the core's;
//! * `worker`, `exits`, `watch`, `sample`: the runtime's blocking calls, ends, readiness, use; `launch`: spec and image to container;
//! * `traffic`, `routing`: between the driver and the data plane;
//! * [`ingress`]: requests to the apps, from anywhere to a copy;
//! * `images`: blobs by digest from the controller; `calls`, `logs`: what the controller asks for people.
//!
//! ```text
//!   session ──▶ ┐                        ┌──▶ journal (first) ──▶ session
//!   workers ──▶ ├─ news ─▶ driver: core ─┤──▶ queue ─▶ workers ─▶ runtime
//!   images  ──▶ ┘                        └──▶ images, readiness
//! ```

mod agent;
mod attempts;
mod backoff;
mod calls;
mod clock;
mod config;
mod containers;
mod convert;
mod dial;
mod driver;
mod exits;
mod freezes;
mod health;
mod identity;
mod images;
pub mod ingress;
mod journal;
mod launch;
mod logs;
mod name_servers;
mod news;
mod routing;
mod sample;
mod session;
mod specs;
mod state;
mod traffic;
mod trust;
mod watch;
mod worker;

pub use agent::{Agent, StartError};
pub use config::{AgentConfig, JOIN_PATIENCE, Replicas};
pub use containers::Containers;
pub use convert::Misunderstood;
pub use dial::DialError;
pub use identity::{JoinError, TokenError};
pub use journal::JournalError;
pub use state::StateError;
