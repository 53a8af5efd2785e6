//! What an image says about running it, checked and resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The part of an image's config that a runtime needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command line; an app's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Words after the entrypoint; an app's `args` replace it.
    pub cmd: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute path inside the image, `/` when the image says nothing.
    pub working_dir: String,
    /// Who to run as.
    pub user: User,
    /// Signal number that asks the app to end; none when the image says nothing (then SIGTERM).
    pub stop_signal: Option<i32>,
    /// What the image says it listens on. Information, not a rule.
    pub exposed_ports: Vec<ExposedPort>,
    /// Free text by name.
    pub labels: BTreeMap<String, String>,
}

/// A user of the image, resolved against its own `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As configured: empty, `name`, `uid`, `name:group`, `uid:gid`.
    pub spec: String,
    /// User id inside the image.
    pub uid: u32,
    /// Primary group id inside the image.
    pub gid: u32,
    /// Supplementary group ids, ascending, without the primary one.
    pub groups: Vec<u32>,
    /// Home folder, `/` when the image does not know the user. For `HOME` where the app sets none.
    pub home: String,
}

impl Default for User {
    fn default() -> Self {
        Self {
            spec: String::new(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
        }
    }
}

/// A port an image says it listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The port.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}
