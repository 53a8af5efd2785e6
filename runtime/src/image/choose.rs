//! Which of the images in a source are meant: by name, then by platform.

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Descriptor, ImageIndex, Os};

use super::digest::Digest;
use super::error::{Error, Result};
use super::limits::Limits;
use super::load::Loaded;
use super::metadata::{digest_of, is_manifest, parse_index, this_architecture};
use super::source::Source;
use super::store::check_name;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// BuildKit's attestations look like manifests and say what they are by this.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Indexes in indexes: a layout's own, one per name, one per platform, one to spare.
const MAX_DEPTH: usize = 4;

/// Which images of a source are wanted, and what they are to be called. By default the only one there is, under its own names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The one with this name there: whole, without what stands before its last part, or a tag where there are only tags.
    pub pick: Option<&'a str>,
    /// Its name from now on. Where there are several images and `pick` is not given, chooses too.
    pub name: Option<&'a str>,
    /// All of them.
    pub all: bool,
}

/// One image of a source, not yet looked at.
pub(super) struct Offer<T> {
    /// What the source calls it, word for word.
    pub called: Vec<String>,
    /// What it is called when nobody says otherwise.
    pub names: Vec<String>,
    /// For messages.
    pub label: String,
    pub what: T,
}

/// A manifest found.
pub(super) struct Chosen {
    pub digest: Digest,
    pub manifest: Vec<u8>,
    /// The names that the source gives it.
    pub names: Vec<String>,
}

/// The wanted ones of several offers; at least one.
pub(super) fn select<T>(source: &Source, offers: Vec<Offer<T>>, wanted: &Wanted<'_>) -> Result<Vec<Offer<T>>> {
    if offers.is_empty() {
        return Err(source.not_an_image("it lists no image".to_owned()));
    }
    if wanted.all {
        return Ok(offers);
    }
    let labels = offers.iter().map(|offer| offer.label.as_str()).collect::<Vec<_>>().join(", ");
    let several = || Error::SeveralImages { path: source.path().to_owned(), names: labels.clone() };
    let fitting = match (wanted.pick, wanted.name) {
        (Some(pick), _) => best(offers, pick),
        (None, Some(name)) if offers.len() > 1 => best(offers, name),
        _ => offers,
    };
    match (fitting.len(), wanted.pick) {
        (1, _) => Ok(fitting),
        (0, Some(pick)) => {
            Err(Error::NoSuchImage { path: source.path().to_owned(), pick: pick.to_owned(), names: labels })
        }
        _ => Err(several()),
    }
}

/// Those whose names fit best.
fn best<T>(offers: Vec<Offer<T>>, name: &str) -> Vec<Offer<T>> {
    let ranked: Vec<_> = offers.into_iter().filter_map(|offer| Some((fit(&offer.called, name)?, offer))).collect();
    let first = ranked.iter().map(|(fit, _)| *fit).min();
    ranked.into_iter().filter(|(fit, _)| Some(*fit) == first).map(|(_, offer)| offer).collect()
}

/// How well a name fits; the first is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Whole,
    LastPart,
    Tag,
}

fn fit(called: &[String], name: &str) -> Option<Fit> {
    let tagged = format!("{name}:latest");
    let is = |own: &str| own == name || own == tagged;
    let ends = |own: &str| {
        own.strip_suffix(name).or_else(|| own.strip_suffix(&tagged)).is_some_and(|rest| rest.ends_with('/'))
    };
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    let only_tags = called.iter().all(|own| !own.contains([':', '/']));
    if called.iter().any(|own| is(own)) {
        return Some(Fit::Whole);
    }
    if called.iter().any(|own| ends(own)) {
        return Some(Fit::LastPart);
    }
    (only_tags && called.iter().any(|own| Some(own.as_str()) == tag)).then_some(Fit::Tag)
}

/// What an image is to be called.
pub(super) fn names(source: &Source, image: &Chosen, wanted: &Wanted<'_>) -> Vec<String> {
    if let (Some(name), false) = (wanted.name, wanted.all) {
        return vec![name.to_owned()];
    }
    let usable = |name: &String| check_name(name).is_ok();
    let own: Vec<String> = image.names.iter().filter(|name| usable(name)).cloned().collect();
    match own.is_empty() && !wanted.all {
        true => stem(source).filter(usable).into_iter().collect(),
        false => own,
    }
}

/// Of two images with one name, only the second could be found by it.
pub(super) fn no_name_twice(source: &Source, images: &[Loaded]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for image in images {
        for name in &image.names {
            if seen.insert(name, image.digest).is_some_and(|other| other != image.digest) {
                return Err(source.not_an_image(format!("it gives two images the name {name}; save them one by one")));
            }
        }
    }
    Ok(())
}

/// Finds the wanted manifests in an OCI layout.
pub(super) fn layout(source: &Source, wanted: &Wanted<'_>, limits: &Limits) -> Result<Vec<Chosen>> {
    let Some(bytes) = source.read_member("index.json", limits.metadata_bytes)? else {
        return Err(source.not_an_image("it has an `oci-layout` and no `index.json`".to_owned()));
    };
    let index = parse_index(Digest::of(&bytes), &bytes)?;
    let chosen = select(source, offers(source, &index), wanted)?;
    chosen.into_iter().map(|offer| resolve(source, offer, limits)).collect()
}

/// Descriptors with one name are one image for several platforms; those with one digest are one image with several names.
fn offers<'a>(source: &Source, index: &'a ImageIndex) -> Vec<Offer<Vec<&'a Descriptor>>> {
    let mut offers: Vec<Offer<Vec<&Descriptor>>> = Vec::new();
    for image in index.manifests().iter().filter(|descriptor| is_image(descriptor)) {
        let names: Vec<String> = own_name(source, image).into_iter().collect();
        let called = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| annotation(image, key));
        let called: Vec<String> = called.map(str::to_owned).collect();
        let alone = |offer: &Offer<Vec<&Descriptor>>| matches!(offer.what[..], [one] if one.digest() == image.digest());
        if let Some(same) = offers.iter_mut().find(|offer| offer.names == names) {
            same.what.push(image);
        } else if let Some(same) = offers.iter_mut().find(|offer| alone(offer)) {
            same.names.extend(names);
            same.called.extend(called);
        } else {
            offers.push(Offer { called, names, label: label(image), what: vec![image] });
        }
    }
    offers
}

/// Through indexes in indexes to the manifest for this platform.
fn resolve(source: &Source, offer: Offer<Vec<&Descriptor>>, limits: &Limits) -> Result<Chosen> {
    let mut descriptor = pick(source, &offer.what)?.clone();
    for _ in 0..MAX_DEPTH {
        let digest = digest_of(&descriptor)?;
        let content = read_verified(source, &descriptor, digest, limits)?;
        if is_manifest(&descriptor) == Some(true) {
            return Ok(Chosen { digest, manifest: content, names: offer.names });
        }
        let index = parse_index(digest, &content)?;
        let images: Vec<&Descriptor> = index.manifests().iter().filter(|descriptor| is_image(descriptor)).collect();
        descriptor = pick(source, &images)?.clone();
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

/// The one for this platform.
fn pick<'a>(source: &Source, images: &[&'a Descriptor]) -> Result<&'a Descriptor> {
    if images.is_empty() {
        return Err(source.not_an_image("its index lists no image".to_owned()));
    }
    let fitting = on_this_platform(images);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_whole_by_their_last_part_or_by_tag() {
        for (called, name, expected) in [
            (&["web:1"][..], "web:1", Some(Fit::Whole)),
            (&["web:latest"], "web", Some(Fit::Whole)),
            (&["shop.example/team/web:1", "1"], "web:1", Some(Fit::LastPart)),
            (&["shop.example/team/web:latest"], "team/web", Some(Fit::LastPart)),
            (&["shop.example/team/web:1", "1"], "db:1", None),
            (&["shop.example/team/cobweb:1"], "web:1", None),
            (&["1"], "anything:1", Some(Fit::Tag)),
            (&["1"], "1", Some(Fit::Whole)),
            (&[], "web", None),
        ] {
            let called: Vec<String> = called.iter().map(|own| (*own).to_owned()).collect();
            assert_eq!(fit(&called, name), expected, "{called:?} {name}");
        }
    }
}
