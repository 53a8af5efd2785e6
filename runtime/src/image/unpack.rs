//! From blobs to one flattened tree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::Result;
use super::store::Store;

/// An image ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its files: one tree to be used as a read-only lower layer. Shared by all replicas, never to be written to.
    pub root: PathBuf,
    /// How to run it.
    pub config: ImageConfig,
    /// What was left out on purpose.
    pub skipped: Vec<Skipped>,
}

/// Something of the image that is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The entry, escaped.
    pub entry: String,
    /// Why.
    pub why: String,
}

impl Store {
    /// Whether the image's tree is there.
    pub fn is_unpacked(&self, digest: &Digest) -> Result<bool> {
        let path = self.tree_path(digest);
        path.try_exists()
            .map_err(super::error::io_error("look for", &path))
    }

    /// Unpacks the image unless it is unpacked already. All its blobs must be here. Safe to call from several threads and processes.
    pub fn unpack(&self, digest: &Digest) -> Result<Image> {
        let parsed = self.read_manifest(digest)?;
        Err(super::metadata::unusable(
            parsed.digest,
            "unpacking is being built".to_owned(),
        ))
    }
}
