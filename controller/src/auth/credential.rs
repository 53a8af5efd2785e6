//! The file that lets a person command a cluster: where the controller is, whom to trust, and a certificate with its key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::state::replace_file;

/// What the file holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    /// `https://host:port`.
    pub controller: String,
    /// The cluster's authority.
    pub authority_pem: String,
    /// Whose credential it is, as a certificate.
    pub certificate_pem: String,
    /// The secret part.
    pub key_pem: String,
    /// For people: the cluster's name.
    pub name: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} at {}, key withheld)", self.name, self.controller)
    }
}

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It cannot be read.
    #[error("the credential {path} cannot be read; is the controller started, and do you run as its user?")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no credential.
    #[error("{path} is not a credential; remove it and start the controller again, it writes a new one")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it went wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Credential {
    /// Reads a credential file.
    pub fn load(path: &Path) -> Result<Self, CredentialError> {
        let bytes = fs::read(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| CredentialError::Parse { path: path.to_owned(), source })
    }

    /// Writes it so that only its owner can read it.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).expect("five texts are always JSON");
        replace_file(path, &bytes, 0o600)
    }
}
