//! From images that somebody else's tool wrote to the store: everything is checked before anything is visible.
//!
//! ```text
//! offers → choose → stage all blobs (digest, size) → parse manifest and config → rehearse every layer → publish blobs → register
//! ```
//! Up to "publish" all is in a temporary folder. Manifests are published last, so an image is never there in part.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::blobs::{copy_hashed, copy_verified};
use super::choose::{self, Chosen, Wanted, layout};
use super::digest::Digest;
use super::docker;
use super::error::{Result, io_error};
use super::limits::Limits;
use super::metadata::{self, Parsed};
use super::rehearse::{Verified, rehearse};
use super::source::Source;
use super::staging::Staging;
use super::store::{Store, check_name};

/// An image that is now in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Digest of its manifest: what an app is pinned to.
    pub digest: Digest,
    /// The names it was registered under; none when neither caller nor image gave a usable one.
    pub names: Vec<String>,
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
    /// Loads an image from an OCI layout (folder or tar archive) or a `docker save` archive, and registers it under `name`, or under
    /// the names it has there. Where the source holds several images, `name` chooses. On an error nothing of it is in the store.
    pub fn load(&self, source: &Path, name: Option<&str>, limits: &Limits) -> Result<Loaded> {
        let wanted = Wanted { name, ..Wanted::default() };
        Ok(self.load_wanted(source, &wanted, limits)?.pop().expect("one was chosen, or that was an error"))
    }

    /// The same for one of several images, or for all of them: all or none.
    pub fn load_wanted(&self, source: &Path, wanted: &Wanted<'_>, limits: &Limits) -> Result<Vec<Loaded>> {
        wanted.name.map_or(Ok(()), check_name)?;
        let staging = self.staging()?;
        let source = Source::open(source, staging.path(), limits)?;
        let staged = Staged { folder: &staging, limits };
        let images = match layout_kind(&source, limits)? {
            LayoutKind::Oci => staged.stage_layout(&source, wanted)?,
            LayoutKind::Docker => docker::stage(&staged, &source, wanted)?,
        };
        let loaded = images.iter().map(|image| staged.check(&source, image, wanted)).collect::<Result<Vec<_>>>()?;
        choose::no_name_twice(&source, &loaded)?;
        staged.publish(self, &images)?;
        for image in &loaded {
            image.names.iter().try_for_each(|name| self.register(name, &image.digest))?;
        }
        Ok(loaded)
    }
}

enum LayoutKind {
    Oci,
    Docker,
}

/// Newer `docker save` writes both kinds into one archive; the OCI one says more.
fn layout_kind(source: &Source, limits: &Limits) -> Result<LayoutKind> {
    if let Some(bytes) = source.read_member("oci-layout", limits.metadata_bytes)? {
        let layout = oci_spec::image::OciLayout::from_reader(&bytes[..]);
        let layout = layout.map_err(|error| source.not_an_image(format!("its `oci-layout` is not valid ({error})")))?;
        let version = layout.image_layout_version();
        return match version.starts_with("1.") {
            true => Ok(LayoutKind::Oci),
            false => Err(source.not_an_image(format!("its layout has version {version}, known is 1"))),
        };
    }
    match source.open_member("manifest.json")? {
        Some(_) => Ok(LayoutKind::Docker),
        None => Err(source.not_an_image("it has neither `oci-layout` nor `manifest.json`".to_owned())),
    }
}

/// Blobs on their way, each in a file named by its digits.
pub(super) struct Staged<'a> {
    pub folder: &'a Staging,
    pub limits: &'a Limits,
}

impl Staged<'_> {
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(digest.hex())
    }

    pub fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(io_error("open", path))
    }

    fn stage_layout(&self, source: &Source, wanted: &Wanted<'_>) -> Result<Vec<Chosen>> {
        let mut images = layout(source, wanted, self.limits)?;
        for image in &mut images {
            let parsed = self.parse(image)?;
            for blob in parsed.blobs() {
                let path = self.path(&blob.digest);
                if path.exists() {
                    continue; // the same layer twice
                }
                let (mut reader, _) = source.require(&choose::member(&blob.digest))?;
                copy_verified(&mut reader, &path, &blob.digest, blob.bytes, self.limits.blob_bytes)?;
            }
            // Newer `docker save` writes both kinds into one archive: the layout says more, and the other has the names people gave.
            let tags = docker::tags_of(source, &parsed.config, self.limits)?;
            image.names = if tags.is_empty() { std::mem::take(&mut image.names) } else { tags };
        }
        Ok(images)
    }

    fn parse(&self, image: &Chosen) -> Result<Parsed> {
        metadata::parse_manifest(image.digest, &image.manifest, self.limits)
    }

    fn check(&self, source: &Source, image: &Chosen, wanted: &Wanted<'_>) -> Result<Loaded> {
        let parsed = self.parse(image)?;
        let mut config = Vec::new();
        self.open(&parsed.config)?.read_to_end(&mut config).map_err(io_error("read", self.path(&parsed.config)))?;
        let manifest_bytes = image.manifest.len() as u64;
        let verified = rehearse(&parsed, manifest_bytes, &config, self.limits, |layer| self.open(layer))?;
        let Verified { layers, bytes, unpacked_bytes, inodes } = verified;
        let names = choose::names(source, image, wanted);
        Ok(Loaded { digest: image.digest, names, layers, bytes, unpacked_bytes, inodes })
    }

    /// Images may share blobs, so all go at once; manifests last.
    fn publish(&self, store: &Store, images: &[Chosen]) -> Result<()> {
        let mut blobs = BTreeMap::new();
        let mut manifests = BTreeMap::new();
        for image in images {
            let path = self.folder.path().join(format!("manifest-{}", image.digest.hex()));
            if manifests.insert(image.digest, path.clone()).is_none() {
                copy_hashed(&mut &image.manifest[..], &path, "manifest", self.limits.metadata_bytes)?;
            }
            blobs.extend(self.parse(image)?.blobs().iter().map(|blob| (blob.digest, self.path(&blob.digest))));
        }
        store.publish_blobs(blobs.into_iter().chain(manifests))
    }

    /// A member whose digest is not known before; says what it is.
    pub fn stage_member(&self, source: &Source, member: &str, limit: u64) -> Result<(Digest, u64)> {
        let (mut reader, announced) = source.require(member)?;
        let incoming = self.folder.path().join("incoming");
        let (digest, bytes) = copy_hashed(&mut reader, &incoming, member, limit)?;
        if bytes != announced {
            return Err(super::error::Error::WrongSize { digest, expected: announced, actual: bytes });
        }
        let path = self.path(&digest);
        fs::rename(&incoming, &path).map_err(io_error("stage", path))?;
        Ok((digest, bytes))
    }
}
