//! `docker save` archives: `manifest.json` lists the images, each with its config and layers as members. An OCI manifest is made for each.
//!
//! Old ones hold `<config digest>.json` and `<id>/layer.tar`, of which several may be links to one; newer ones hold an OCI layout as well.
//! Layers are plain, so that their digests are the config's diff ids, which are checked like those of any image.

use std::os::unix::fs::FileExt;

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION, Sha256Digest};
use serde::Deserialize;

use super::choose::{Chosen, Offer, Wanted, select};
use super::digest::Digest;
use super::error::{Error, Result, io_error};
use super::limits::Limits;
use super::load::Staged;
use super::source::Source;

/// The members of one image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Brings in the wanted images.
pub(super) fn stage(staged: &Staged<'_>, source: &Source, wanted: &Wanted<'_>) -> Result<Vec<Chosen>> {
    let offers = list(source, staged.limits)?.into_iter().map(offer).collect();
    select(source, offers, wanted)?.into_iter().map(|offer| stage_one(staged, source, offer)).collect()
}

/// What people called the image with this config, where a `manifest.json` says so.
pub(super) fn tags_of(source: &Source, config: &Digest, limits: &Limits) -> Result<Vec<String>> {
    let images = list(source, limits)?.into_iter();
    let own = images.filter(|image| promised_config(&image.config) == Some(*config));
    Ok(own.flat_map(|image| image.repo_tags.unwrap_or_default()).collect())
}

fn list(source: &Source, limits: &Limits) -> Result<Vec<DockerImage>> {
    let Some(bytes) = source.read_member("manifest.json", limits.metadata_bytes)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes)
        .map_err(|error| source.not_an_image(format!("its `manifest.json` is not valid ({error})")))
}

fn offer(image: DockerImage) -> Offer<DockerImage> {
    let names = image.repo_tags.clone().unwrap_or_default();
    let label = names.first().unwrap_or(&image.config).clone();
    Offer { called: names.clone(), names, label, what: image }
}

/// Makes an OCI manifest for an image that has none.
fn stage_one(staged: &Staged<'_>, source: &Source, offer: Offer<DockerImage>) -> Result<Chosen> {
    let (image, limits) = (offer.what, staged.limits);
    if image.layers.len() > limits.layers {
        let (found, limit) = (image.layers.len(), limits.layers);
        return Err(source.not_an_image(format!("it has {found} layers, {limit} are allowed; squash it")));
    }
    let (config, config_bytes) = staged.stage_member(source, &image.config, limits.metadata_bytes)?;
    kept(promised_config(&image.config), config)?;
    let mut layers = Vec::new();
    for member in &image.layers {
        let (digest, bytes) = staged.stage_member(source, member, limits.blob_bytes)?;
        kept(promised_blob(member), digest)?;
        layers.push(descriptor(layer_type(staged, &digest)?, &digest, bytes));
    }
    let manifest = manifest(descriptor(MediaType::ImageConfig, &config, config_bytes), layers);
    Ok(Chosen { digest: Digest::of(&manifest), manifest, names: offer.names })
}

/// A member named by its digest has that digest.
fn kept(promised: Option<Digest>, actual: Digest) -> Result<()> {
    match promised {
        Some(expected) if expected != actual => Err(Error::WrongDigest { expected, actual }),
        _ => Ok(()),
    }
}

/// `<digits>.json`, or a blob.
fn promised_config(member: &str) -> Option<Digest> {
    let old = member.strip_suffix(".json").and_then(|digits| Digest::from_hex(digits).ok());
    old.or_else(|| promised_blob(member))
}

fn promised_blob(member: &str) -> Option<Digest> {
    Digest::from_hex(member.strip_prefix("blobs/sha256/")?).ok()
}

/// `docker save` says nothing of compression; the first bytes do.
fn layer_type(staged: &Staged<'_>, digest: &Digest) -> Result<MediaType> {
    let mut magic = [0; 4];
    let known = staged.open(digest)?.read_at(&mut magic, 0).map_err(io_error("read", staged.path(digest)))?;
    Ok(match &magic[..known] {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    })
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
