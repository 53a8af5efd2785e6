//! Several hosts on one machine: each a network namespace with its own address and a cgroup subtree of its own size, in which the
//! real controller and the real agents run as separate processes. No container engine, no `ip`, no `tc`; only `nft` is called.
//!
//! ```text
//!   this machine             the wire: a namespace with a bridge         a host: a namespace with eth0
//!   bl-NAME 10.98.N.1 ────── outside ─┐                                  ┌── eth0 10.98.N.2   controller
//!                                     ├── wire ── m1 ────────────────────┘
//!                                     └────────── n1 ─────────────────────── eth0 10.98.N.11  agent, launchers, replicas
//! ```
//!
//! Everything bears a name made of the cluster's: the cgroup `bellows-local-NAME`, the link `bl-NAME`, the folder
//! `/var/lib/bellows/local/NAME`. What else there is (bridge, links, rules, namespaces) lives in namespaces that processes of that cgroup
//! hold, so that it goes with them: to end what is in the cgroup is to end all, whatever became of the tool that made it.
//!
//! Reading order: [`names`], [`plan`] (who gets what), [`faults`] (what is cut and slow, and the rules that make it so), [`cluster`] (what
//! the verbs do), then the facilities: [`cgroup`], [`processes`], [`enter`], [`network`], [`servers`], [`state`].
//!
//! Absent on purpose: process, mount and user namespaces of hosts (one sees all processes from outside, and an agent works as on a real
//! server), and several controllers, for which names, addresses and the plan have room.

pub mod cgroup;
pub mod cluster;
pub mod enter;
pub mod faults;
pub mod names;
pub mod network;
pub mod plan;
pub mod processes;
pub mod servers;
pub mod state;

pub use cluster::{Cluster, Error};
pub use faults::{Faults, Slow};
pub use names::{ClusterName, HostName};
pub use plan::{Host, Plan, Range, Role, Size};
