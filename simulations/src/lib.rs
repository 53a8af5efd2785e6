//! Bellows: the laboratory. The leader's mind, the members and the agents' minds run as they are, in virtual time, on a
//! network, disks and machines that misbehave as one seed says.
//!
//! [`chaos`]: a cluster of three members and fifty nodes through some hundred seconds of trouble, with invariants checked
//! after every event and convergence at the end.
//!
//! Deliberately absent: clocks, threads within a run, files, sockets. A run is a function of its options and its seed.

pub mod chaos;
mod dice;
