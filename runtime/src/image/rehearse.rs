//! Everything that unpacking would check, without writing: digests, names, links, limits, config, user.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use oci_spec::image::ImageConfiguration;

use super::config;
use super::decode::{self, Stop, Used};
use super::digest::Digest;
use super::error::{Error, Result};
use super::limits::Limits;
use super::metadata::{self, Parsed};
use super::plan::{Plan, Step};
use super::store::Store;
use super::unpack::ACCOUNTS_BYTES;

/// What an image comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Number of layers.
    pub layers: usize,
    /// Sum of its stored blobs, in bytes.
    pub bytes: u64,
    /// Bytes of its files, unpacked, over all layers.
    pub unpacked_bytes: u64,
    /// Files, folders and links, unpacked, over all layers.
    pub inodes: u64,
}

impl Store {
    /// Checks an image whose blobs came one by one as `load` checks one: what passes here can be unpacked.
    pub fn verify(&self, manifest: &Digest) -> Result<Verified> {
        let parsed = self.read_manifest(manifest)?;
        for blob in parsed.blobs() {
            let (expected, actual) = (blob.bytes.unwrap_or(0), self.blob_bytes(&blob.digest)?);
            if expected != actual {
                return Err(Error::WrongSize { digest: blob.digest, expected, actual });
            }
        }
        let config = self.read_metadata("config", &parsed.config)?;
        rehearse(&parsed, self.blob_bytes(manifest)?, &config, self.limits(), |layer| self.open_blob(layer))
    }
}

/// Goes through the config and all layers.
pub(super) fn rehearse(
    parsed: &Parsed,
    manifest_bytes: u64,
    config: &[u8],
    limits: &Limits,
    open: impl Fn(&Digest) -> Result<File>,
) -> Result<Verified> {
    let (configuration, diff_ids) = metadata::parse_config(parsed, config)?;
    let mut plan = Plan::new(limits);
    let mut used = Used::default();
    let mut accounts = Accounts::default();
    for (layer, diff_id) in parsed.layers.iter().zip(&diff_ids) {
        plan.begin_layer();
        decode::walk(open(&layer.digest)?, layer, diff_id, limits, &mut used, &mut |entry, content, _| {
            for step in plan.add(entry)? {
                accounts.follow(&step, content)?;
            }
            Ok::<(), Stop>(())
        })?;
    }
    accounts.check(parsed.digest, configuration)?;
    let bytes = manifest_bytes + parsed.blobs().iter().filter_map(|blob| blob.bytes).sum::<u64>();
    Ok(Verified { layers: parsed.layers.len(), bytes, unpacked_bytes: used.bytes, inodes: plan.inodes() })
}

const PASSWD: &[u8] = b"etc/passwd";
const GROUP: &[u8] = b"etc/group";

/// The files that say who is who, as far as they are plain files at their usual places.
#[derive(Default)]
struct Accounts {
    content: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A link stands for one of them: then only the tree can tell.
    linked: bool,
}

impl Accounts {
    fn follow(&mut self, step: &Step, content: &mut dyn Read) -> std::result::Result<(), Stop> {
        let ours = |path: &[u8]| path == PASSWD || path == GROUP;
        match step {
            Step::Remove(path) => {
                let below = [path, &b"/"[..]].concat();
                self.content.retain(|known, _| known != path && !known.starts_with(&below));
            }
            Step::MakeFile(path) if ours(path) => {
                let mut bytes = Vec::new();
                content.take(ACCOUNTS_BYTES).read_to_end(&mut bytes).map_err(Stop::Unreadable)?;
                self.content.insert(path.clone(), bytes);
            }
            Step::MakeHardLink { path, .. } | Step::MakeSymbolicLink { path, .. } => {
                self.linked |= ours(path) || path == b"etc";
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, image: Digest, mut configuration: ImageConfiguration) -> Result<()> {
        if self.linked
            && let Some(mut given) = configuration.config().clone()
        {
            given.set_user(None);
            configuration.set_config(Some(given));
        }
        let text =
            |path: &[u8]| String::from_utf8_lossy(self.content.get(path).map_or(&[], Vec::as_slice)).into_owned();
        config::resolve(image, &configuration, &text(PASSWD), &text(GROUP)).map(|_| ())
    }
}
