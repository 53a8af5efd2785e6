//! Who this node is: a random machine id, a key that never leaves it, and the cluster's certificate for it.
//!
//! The token is needed once. It names the authority's certificate by its hash, so that the first connection already goes to the
//! right cluster; afterwards both sides show certificates.

mod join;
mod pinned;
mod token;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig};

pub use join::JoinError;
pub(crate) use join::join;
pub use token::TokenError;

use crate::ingress::LinkIdentity;
use crate::state::{StateError, file_error, replace_file};

/// The name in every controller's certificate, whatever its address.
pub(crate) const SERVER_NAME: &str = "bellows-controller";

/// A node that has joined.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) machine: String,
    pub(crate) node: u32,
    key_pem: String,
    certificate_pem: String,
    authority_pem: String,
}

impl Identity {
    /// What was kept of an earlier join; nothing when there was none.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>, StateError> {
        let Some(certificate_pem) = read(&folder.join("certificate.pem"))? else { return Ok(None) };
        let need = |name: &str| {
            let path = folder.join(name);
            let gone = || {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "the folder is incomplete; move it away and join again with a token",
                )
            };
            read(&path)?.ok_or_else(|| file_error("read", &path)(gone()))
        };
        let node_path = folder.join("node");
        let node = need("node")?.trim().parse().map_err(|error| {
            file_error("read the number in", &node_path)(io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        Ok(Some(Self {
            machine: need("machine")?,
            node,
            key_pem: need("key.pem")?,
            certificate_pem,
            authority_pem: need("authority.pem")?,
        }))
    }

    /// The certificate last: it says that the rest is there.
    fn keep(&self, folder: &Path) -> Result<(), StateError> {
        replace_file(&folder.join("node"), self.node.to_string().as_bytes(), 0o600)?;
        replace_file(&folder.join("authority.pem"), self.authority_pem.as_bytes(), 0o600)?;
        replace_file(&folder.join("certificate.pem"), self.certificate_pem.as_bytes(), 0o600)
    }

    /// For ingresses, to each other.
    pub(crate) fn for_links(&self) -> LinkIdentity {
        LinkIdentity {
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
            authority_pem: self.authority_pem.clone(),
        }
    }

    /// Both sides show certificates of the cluster's authority.
    pub(crate) fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .domain_name(SERVER_NAME)
            .ca_certificate(Certificate::from_pem(&self.authority_pem))
            .identity(tonic::transport::Identity::from_pem(&self.certificate_pem, &self.key_pem))
    }
}

fn read(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error("read", path)(source)),
    }
}

/// The machine id, made at the first start: 128 random bits, hex.
fn machine(folder: &Path) -> Result<String, StateError> {
    let path: PathBuf = folder.join("machine");
    if let Some(machine) = read(&path)? {
        return Ok(machine);
    }
    let machine = hex::encode(rand::random::<[u8; 16]>());
    replace_file(&path, machine.as_bytes(), 0o600)?;
    Ok(machine)
}
