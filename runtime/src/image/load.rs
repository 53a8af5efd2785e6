//! From an image that somebody else's tool wrote to the store: everything is checked before anything is visible.
//!
//! ```text
//! choose a manifest → stage all blobs (digest, size) → parse manifest and config → rehearse every layer → publish blobs → register
//! ```
//! Up to "publish" all is in a temporary folder. The manifest is published last, so an image is never there in part.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION, Sha256Digest};
use serde::Deserialize;

use super::blobs::{copy_hashed, copy_verified};
use super::choose::{self, Chosen};
use super::digest::Digest;
use super::error::{Error, Result, io_error};
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
    /// The name it was registered under; none when neither caller nor image gave a usable one.
    pub name: Option<String>,
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
    /// the name it has there. Where the source holds several images, `name` chooses. On an error nothing of it is in the store.
    pub fn load(&self, source: &Path, name: Option<&str>, limits: &Limits) -> Result<Loaded> {
        name.map_or(Ok(()), check_name)?;
        let staging = self.staging()?;
        let source = Source::open(source, staging.path(), limits)?;
        let staged = Staged { folder: &staging, limits };
        let chosen = match layout_kind(&source, limits)? {
            LayoutKind::Oci => staged.stage_layout(&source, name)?,
            LayoutKind::Docker => staged.stage_docker(&source, name)?,
        };
        let (parsed, verified) = staged.check(&chosen)?;
        staged.publish(self, &chosen, &parsed)?;
        let fallback = || chosen.name.clone().or_else(|| choose::stem(&source)).filter(|name| check_name(name).is_ok());
        let name = name.map(str::to_owned).or_else(fallback);
        if let Some(name) = &name {
            self.register(name, &chosen.digest)?;
        }
        let Verified { layers, bytes, unpacked_bytes, inodes } = verified;
        Ok(Loaded { digest: chosen.digest, name, layers, bytes, unpacked_bytes, inodes })
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

/// `manifest.json` of a `docker save` archive: the members of each image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerImage {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or(&[])
    }
}

/// Blobs on their way, each in a file named by its digits.
struct Staged<'a> {
    folder: &'a Staging,
    limits: &'a Limits,
}

impl Staged<'_> {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(digest.hex())
    }

    fn open(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(io_error("open", path))
    }

    fn stage_layout(&self, source: &Source, name: Option<&str>) -> Result<Chosen> {
        let chosen = choose::from_layout(source, name, self.limits)?;
        let parsed = metadata::parse_manifest(chosen.digest, &chosen.manifest, self.limits)?;
        for blob in parsed.blobs() {
            let path = self.path(&blob.digest);
            if path.exists() {
                continue; // the same layer twice
            }
            let (mut reader, _) = source.require(&choose::member(&blob.digest))?;
            copy_verified(&mut reader, &path, &blob.digest, blob.bytes, self.limits.blob_bytes)?;
        }
        Ok(chosen)
    }

    /// Makes an OCI manifest for an image that has none.
    fn stage_docker(&self, source: &Source, name: Option<&str>) -> Result<Chosen> {
        let image = docker_image(source, name, self.limits)?;
        if image.layers.len() > self.limits.layers {
            let (found, limit) = (image.layers.len(), self.limits.layers);
            return Err(source.not_an_image(format!("it has {found} layers, {limit} are allowed; squash it")));
        }
        let (config, config_bytes) = self.stage_member(source, &image.config, self.limits.metadata_bytes)?;
        let mut layers = Vec::new();
        for member in &image.layers {
            let (digest, bytes) = self.stage_member(source, member, self.limits.blob_bytes)?;
            layers.push(descriptor(self.layer_type(&digest)?, &digest, bytes));
        }
        let manifest = manifest(descriptor(MediaType::ImageConfig, &config, config_bytes), layers);
        Ok(Chosen { digest: Digest::of(&manifest), manifest, name: image.tags().first().cloned() })
    }

    fn stage_member(&self, source: &Source, member: &str, limit: u64) -> Result<(Digest, u64)> {
        let (mut reader, announced) = source.require(member)?;
        let incoming = self.folder.path().join("incoming");
        let (digest, bytes) = copy_hashed(&mut reader, &incoming, member, limit)?;
        if bytes != announced {
            return Err(Error::WrongSize { digest, expected: announced, actual: bytes });
        }
        let path = self.path(&digest);
        fs::rename(&incoming, &path).map_err(io_error("stage", path))?;
        Ok((digest, bytes))
    }

    /// `docker save` says nothing of compression; the first bytes do.
    fn layer_type(&self, digest: &Digest) -> Result<MediaType> {
        let mut magic = [0; 4];
        let known = self.open(digest)?.read_at(&mut magic, 0).map_err(io_error("read", self.path(digest)))?;
        Ok(match &magic[..known] {
            [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
            [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
            _ => MediaType::ImageLayer,
        })
    }

    fn check(&self, chosen: &Chosen) -> Result<(Parsed, Verified)> {
        let parsed = metadata::parse_manifest(chosen.digest, &chosen.manifest, self.limits)?;
        let mut config = Vec::new();
        self.open(&parsed.config)?.read_to_end(&mut config).map_err(io_error("read", self.path(&parsed.config)))?;
        let manifest_bytes = chosen.manifest.len() as u64;
        let verified = rehearse(&parsed, manifest_bytes, &config, self.limits, |layer| self.open(layer))?;
        Ok((parsed, verified))
    }

    fn publish(&self, store: &Store, chosen: &Chosen, parsed: &Parsed) -> Result<()> {
        let manifest = self.folder.path().join("manifest");
        copy_hashed(&mut &chosen.manifest[..], &manifest, "manifest", self.limits.metadata_bytes)?;
        let mut digests: Vec<Digest> = parsed.blobs().iter().map(|blob| blob.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        let blobs = digests.into_iter().map(|digest| (digest, self.path(&digest)));
        store.publish_blobs(blobs.chain([(chosen.digest, manifest)]))
    }
}

fn docker_image(source: &Source, name: Option<&str>, limits: &Limits) -> Result<DockerImage> {
    let bytes = source.read_member("manifest.json", limits.metadata_bytes)?.unwrap_or_default();
    let parsed: std::result::Result<Vec<DockerImage>, _> = serde_json::from_slice(&bytes);
    let mut images =
        parsed.map_err(|error| source.not_an_image(format!("its `manifest.json` is not valid ({error})")))?;
    if images.len() > 1 {
        let tags: Vec<String> = images.iter().flat_map(|image| image.tags().to_vec()).collect();
        images.retain(|image| image.tags().iter().any(|tag| name == Some(tag)));
        if images.len() != 1 {
            return Err(Error::SeveralImages { path: source.path().to_owned(), names: tags.join(", ") });
        }
    }
    images.pop().ok_or_else(|| source.not_an_image("its `manifest.json` lists no image".to_owned()))
}

/// A descriptor with a digest of ours.
pub(super) fn descriptor(media_type: MediaType, digest: &Digest, bytes: u64) -> Descriptor {
    let digest: Sha256Digest = digest.hex().parse().expect("64 hexadecimal digits are a sha256");
    Descriptor::new(media_type, bytes, digest)
}

/// A manifest's bytes; the same for the same parts.
pub(super) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Vec<u8> {
    let manifest: ImageManifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .expect("all required fields are set above");
    serde_json::to_vec(&manifest).expect("a manifest is always JSON")
}
