//! Which of the images in a layout is meant: by name, then by platform.

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};

use super::digest::Digest;
use super::error::{Error, Result};
use super::limits::Limits;
use super::metadata::{digest_of, is_manifest, parse_index, this_architecture};
use super::source::Source;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// BuildKit's attestations look like manifests and say what they are by this.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Indexes in indexes: a layout's own, one per name, one per platform, one to spare.
const MAX_DEPTH: usize = 4;

/// A manifest found.
pub(super) struct Chosen {
    pub digest: Digest,
    pub manifest: Vec<u8>,
    /// The name that the layout gives it.
    pub name: Option<String>,
}

/// Finds the manifest in an OCI layout.
pub(super) fn from_layout(source: &Source, name: Option<&str>, limits: &Limits) -> Result<Chosen> {
    let Some(bytes) = source.read_member("index.json", limits.metadata_bytes)? else {
        return Err(source.not_an_image("it has an `oci-layout` and no `index.json`".to_owned()));
    };
    let mut index = parse_index(Digest::of(&bytes), &bytes)?;
    let mut found_name = None;
    for _ in 0..MAX_DEPTH {
        let descriptor = pick(source, &index, name)?;
        found_name = found_name.or_else(|| own_name(source, descriptor));
        let digest = digest_of(descriptor)?;
        let content = read_verified(source, descriptor, digest, limits)?;
        if is_manifest(descriptor) == Some(true) {
            return Ok(Chosen { digest, manifest: content, name: found_name });
        }
        index = parse_index(digest, &content)?;
    }
    Err(source.not_an_image(format!("it has more than {MAX_DEPTH} indexes in each other")))
}

/// The member that holds a blob.
pub(super) fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn read_verified(source: &Source, descriptor: &Descriptor, digest: Digest, limits: &Limits) -> Result<Vec<u8>> {
    let (mut reader, _) = source.require(&member(&digest))?;
    let path = source.path().join(member(&digest));
    let bytes = super::blobs::read_bounded(&mut reader, &format!("blob {digest}"), limits.metadata_bytes, &path)?;
    if bytes.len() as u64 != descriptor.size() {
        return Err(Error::WrongSize { digest, expected: descriptor.size(), actual: bytes.len() as u64 });
    }
    match Digest::of(&bytes) {
        actual if actual == digest => Ok(bytes),
        actual => Err(Error::WrongDigest { expected: digest, actual }),
    }
}

fn pick<'a>(source: &Source, index: &'a ImageIndex, name: Option<&str>) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> = index.manifests().iter().filter(|descriptor| is_image(descriptor)).collect();
    if images.is_empty() {
        return Err(source.not_an_image("its index lists no image".to_owned()));
    }
    let named: Vec<&Descriptor> =
        images.iter().copied().filter(|image| name.is_some_and(|name| is_called(image, name))).collect();
    let images = if named.is_empty() { images } else { named };
    let fitting = on_this_platform(&images);
    let Some(first) = fitting.first() else {
        let offered = images.iter().map(|image| platform(image)).collect::<Vec<_>>().join(", ");
        return Err(Error::NoPlatform {
            path: source.path().to_owned(),
            wanted: this_architecture().to_owned(),
            offered,
        });
    };
    if fitting.iter().any(|other| other.digest() != first.digest()) {
        let names = fitting.iter().map(|image| label(image)).collect::<Vec<_>>().join(", ");
        return Err(Error::SeveralImages { path: source.path().to_owned(), names });
    }
    Ok(first)
}

fn is_image(descriptor: &Descriptor) -> bool {
    is_manifest(descriptor).is_some() && annotation(descriptor, REFERENCE_TYPE).is_none()
}

/// Those for this machine; where none says so, those that say nothing.
fn on_this_platform<'a>(images: &[&'a Descriptor]) -> Vec<&'a Descriptor> {
    let ours = |image: &&&Descriptor| {
        image.platform().as_ref().is_some_and(|platform| {
            *platform.os() == Os::Linux && *platform.architecture() == Arch::from(this_architecture())
        })
    };
    let exact: Vec<&Descriptor> = images.iter().filter(ours).copied().collect();
    match exact.is_empty() {
        true => images.iter().copied().filter(|image| image.platform().is_none()).collect(),
        false => exact,
    }
}

fn platform(image: &Descriptor) -> String {
    image
        .platform()
        .as_ref()
        .map_or("nothing".to_owned(), |platform| format!("{}/{}", platform.os(), platform.architecture()))
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
}

fn label(image: &Descriptor) -> String {
    let name = annotation(image, CONTAINERD_NAME).or_else(|| annotation(image, REF_NAME));
    name.map_or_else(|| image.digest().to_string(), str::to_owned)
}

/// `web:1` is the image called so, or the one tagged `1` in a layout that knows tags only.
fn is_called(image: &Descriptor, name: &str) -> bool {
    let names = [annotation(image, CONTAINERD_NAME), annotation(image, REF_NAME)];
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    names.into_iter().flatten().any(|own| own == name || Some(own) == tag)
}

/// A bare tag becomes `<file>:<tag>`.
fn own_name(source: &Source, image: &Descriptor) -> Option<String> {
    let name = annotation(image, CONTAINERD_NAME).or_else(|| annotation(image, REF_NAME))?;
    match name.contains([':', '/']) {
        true => Some(name.to_owned()),
        false => Some(format!("{}:{name}", stem(source)?)),
    }
}

/// The source's file name up to its first dot.
pub(super) fn stem(source: &Source) -> Option<String> {
    let path = std::fs::canonicalize(source.path()).ok()?;
    let name = path.file_name()?.to_str()?;
    Some(name.split('.').next().unwrap_or(name).to_owned())
}
