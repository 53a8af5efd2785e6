//! Manifests, indexes and configs: parsed by oci-spec, checked against what can be run here.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

use super::digest::Digest;
use super::error::{Error, Result};
use super::limits::Limits;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// What a blob is to its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// Names the others; its digest is the image's.
    Manifest,
    /// How to run the image.
    Config,
    /// A compressed or plain tar archive.
    Layer,
}

/// A blob of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes; none when only its digest is known.
    pub bytes: Option<u64>,
    /// Its part.
    pub kind: BlobKind,
}

/// How a layer's tar archive is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar archive",
            Self::Gzip => "gzip-compressed tar archive",
            Self::Zstd => "zstd-compressed tar archive",
        }
    }

    fn of(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Some(Self::Plain),
            MediaType::ImageLayerGzip | MediaType::ImageLayerNonDistributableGzip => Some(Self::Gzip),
            MediaType::ImageLayerZstd | MediaType::ImageLayerNonDistributableZstd => Some(Self::Zstd),
            MediaType::Other(text) => match text.as_str() {
                DOCKER_LAYER => Some(Self::Plain),
                DOCKER_LAYER_GZIP | DOCKER_FOREIGN_GZIP => Some(Self::Gzip),
                DOCKER_LAYER_ZSTD => Some(Self::Zstd),
                _ => None,
            },
            _ => None,
        }
    }
}

/// One layer of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerBlob {
    pub digest: Digest,
    pub bytes: u64,
    pub encoding: Encoding,
}

/// A manifest that can be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub digest: Digest,
    pub config: Digest,
    pub config_bytes: u64,
    pub layers: Vec<LayerBlob>,
}

impl Parsed {
    /// Config and layers, in the order to fetch them.
    pub(super) fn blobs(&self) -> Vec<Blob> {
        let config = Blob { digest: self.config, bytes: Some(self.config_bytes), kind: BlobKind::Config };
        let layer = |layer: &LayerBlob| Blob { digest: layer.digest, bytes: Some(layer.bytes), kind: BlobKind::Layer };
        std::iter::once(config).chain(self.layers.iter().map(layer)).collect()
    }
}

/// The descriptor's digest, which must be a sha256.
pub(super) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().as_ref().parse::<Digest>()?)
}

/// Whether the descriptor is of a manifest (true), of an index (false), or of something that is no image (none).
pub(super) fn is_manifest(descriptor: &Descriptor) -> Option<bool> {
    match descriptor.media_type() {
        MediaType::ImageManifest => Some(true),
        MediaType::ImageIndex => Some(false),
        MediaType::Other(text) if text == DOCKER_MANIFEST => Some(true),
        MediaType::Other(text) if text == DOCKER_INDEX => Some(false),
        _ => None,
    }
}

pub(super) fn parse_index(digest: Digest, bytes: &[u8]) -> Result<ImageIndex> {
    let index = ImageIndex::from_reader(bytes).map_err(|source| Error::Metadata { what: "index", digest, source })?;
    match index.schema_version() {
        2 => Ok(index),
        version => Err(unusable(
            digest,
            format!("its index has schema version {version}, only 2 is known; save it with a current tool"),
        )),
    }
}

pub(super) fn parse_manifest(digest: Digest, bytes: &[u8], limits: &Limits) -> Result<Parsed> {
    let manifest =
        ImageManifest::from_reader(bytes).map_err(|source| Error::Metadata { what: "manifest", digest, source })?;
    if manifest.schema_version() != 2 {
        let version = manifest.schema_version();
        return Err(unusable(
            digest,
            format!("its manifest has schema version {version}, only 2 is known; save it with a current tool"),
        ));
    }
    check_config_type(digest, manifest.config())?;
    let layers = manifest.layers();
    if layers.len() > limits.layers {
        let (found, limit) = (layers.len(), limits.layers);
        return Err(unusable(digest, format!("it has {found} layers, {limit} are allowed; squash it")));
    }
    let layers = layers.iter().map(|layer| layer_blob(digest, layer, limits)).collect::<Result<Vec<_>>>()?;
    let config_bytes = bounded("config", manifest.config(), limits.metadata_bytes)?;
    Ok(Parsed { digest, config: digest_of(manifest.config())?, config_bytes, layers })
}

fn check_config_type(digest: Digest, config: &Descriptor) -> Result<()> {
    match config.media_type() {
        MediaType::ImageConfig => Ok(()),
        MediaType::Other(text) if text == DOCKER_CONFIG => Ok(()),
        other => Err(unusable(
            digest,
            format!("its config has the media type {other}: it is an artifact, not a container image"),
        )),
    }
}

fn layer_blob(image: Digest, layer: &Descriptor, limits: &Limits) -> Result<LayerBlob> {
    let digest = digest_of(layer)?;
    let Some(encoding) = Encoding::of(layer.media_type()) else {
        let media_type = layer.media_type();
        let why = format!(
            "layer {digest} has the media type {media_type}; known are tar, tar+gzip and tar+zstd, convert it with `skopeo copy`"
        );
        return Err(unusable(image, why));
    };
    Ok(LayerBlob { digest, bytes: bounded("layer", layer, limits.blob_bytes)?, encoding })
}

fn bounded(what: &str, descriptor: &Descriptor, limit: u64) -> Result<u64> {
    match descriptor.size() {
        bytes if bytes <= limit => Ok(bytes),
        _ => Err(Error::TooLarge { what: format!("{what} {}", descriptor.digest()), limit }),
    }
}

/// The config, checked to be for this machine and to have one content digest per layer.
pub(super) fn parse_config(image: &Parsed, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let invalid = |source| Error::Metadata { what: "config", digest: image.config, source };
    let config = ImageConfiguration::from_reader(bytes).map_err(invalid)?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    if os != "linux" || architecture != this_architecture() {
        let wanted = this_architecture();
        let why = format!(
            "it is for {os}/{architecture} and this machine is linux/{wanted}; build or save it for linux/{wanted}"
        );
        return Err(unusable(image.digest, why));
    }
    if config.rootfs().typ() != "layers" {
        return Err(unusable(
            image.digest,
            format!("its root file system is of type `{}`, only `layers` is known", config.rootfs().typ()),
        ));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != image.layers.len() {
        let (layers, listed) = (image.layers.len(), diff_ids.len());
        return Err(unusable(
            image.digest,
            format!("its manifest has {layers} layers and its config {listed}; build it again"),
        ));
    }
    let diff_ids = diff_ids.iter().map(|text| Ok(text.parse::<Digest>()?)).collect::<Result<Vec<_>>>()?;
    Ok((config, diff_ids))
}

/// This machine's architecture as images name it.
pub(super) fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

pub(super) fn unusable(digest: Digest, why: String) -> Error {
    Error::Unusable { digest, why }
}
