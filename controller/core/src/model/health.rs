//! What each copy of an app is asked, again and again: as users of Kubernetes know it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// Up to one check of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Has it started? The others begin when this has succeeded; its failure ends the attempt.
    pub startup: Option<Check>,
    /// Is there hope for it? Its failure ends the attempt, and the next one begins in place.
    pub liveness: Option<Check>,
    /// Does it answer? Without this check, a copy is ready when its first port listens.
    pub readiness: Option<Check>,
}

/// One check, made in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is done.
    pub how: How,
    /// From the attempt's start to the first one.
    pub initial_delay: Millis,
    /// From one to the next.
    pub period: Millis,
    /// One that takes longer has failed.
    pub timeout: Millis,
    /// So many in a row are a success.
    pub success_threshold: u32,
    /// So many in a row are a failure.
    pub failure_threshold: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A program in the copy; success is that it returns 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A request; success is a status from 200 to 399.
    Http {
        /// Of the copy's own address.
        port: u16,
        /// With a query, if there is one.
        path: String,
        /// Added to the request.
        headers: BTreeMap<String, String>,
    },
    /// A connection; success is that it is made.
    Tcp {
        /// Of the copy's own address.
        port: u16,
    },
}

impl Health {
    /// Those there are, by their names in app files.
    pub fn checks(&self) -> impl Iterator<Item = (&'static str, &Check)> {
        let all = [("startup", &self.startup), ("liveness", &self.liveness), ("readiness", &self.readiness)];
        all.into_iter().filter_map(|(name, check)| Some((name, check.as_ref()?)))
    }
}
