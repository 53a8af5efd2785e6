//! What can go wrong with an image: where, and how to mend it.

use std::io;
use std::path::PathBuf;

use super::digest::{Digest, NotADigest};
use super::refusal::Refusal;

/// A failed operation on the store or on an image. Nothing half-done is visible after any of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {operation} {}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store was written by a newer version.
    #[error("the image store {} has version {found}, this program knows versions up to {known}: use the newer program, or another folder", path.display())]
    NewerStore {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The folder exists and is no store.
    #[error("{} is not an image store ({why}): name an empty or a new folder", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What is odd about it.
        why: String,
    },
    /// A file of the store is damaged.
    #[error("{} is damaged: remove the image and load it again", path.display())]
    DamagedStore {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A digest that is none.
    #[error(transparent)]
    NotADigest(#[from] NotADigest),
    /// A name that cannot be given to an image.
    #[error(
        "`{name}` cannot be an image's name: {why}; use letters, digits and . _ - / : and at most 255 characters, like `shop/web:1.2`"
    )]
    BadName {
        /// The name.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// Content is not what its digest says.
    #[error(
        "blob {expected} is not what it should be: its content has the digest {actual}; it was damaged or exchanged on the way, fetch it again"
    )]
    WrongDigest {
        /// As named.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// Content is shorter or longer than its descriptor says.
    #[error("blob {digest} has {actual} bytes and should have {expected}: it was cut off on the way, fetch it again")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// As described, in bytes.
        expected: u64,
        /// As found, in bytes.
        actual: u64,
    },
    /// A blob is larger than allowed.
    #[error(
        "{what} is larger than the {limit} bytes that it may have: it was damaged on the way, or is no part of an image"
    )]
    TooLarge {
        /// Which blob or file.
        what: String,
        /// The bound, in bytes.
        limit: u64,
    },
    /// A layer's content, unpacked, is not what the image's config says.
    #[error(
        "layer {layer} unpacks to {actual}, the image's config says {expected}: the image is inconsistent, build it again"
    )]
    WrongDiffId {
        /// The layer's blob.
        layer: Digest,
        /// As the config says.
        expected: String,
        /// As computed.
        actual: Digest,
    },
    /// A blob is not in the store.
    #[error("blob {digest} is not in the store: load the image, or fetch the blob first")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A blob that an image's layout names is not in it.
    #[error("{} lacks {member}: the image is incomplete, save it again", source_path.display())]
    MissingMember {
        /// Folder or archive.
        source_path: PathBuf,
        /// What is lacking.
        member: String,
    },
    /// Neither an OCI layout nor a `docker save` archive.
    #[error("{} is not an image: {why}; expected an OCI layout (a folder or tar archive with `oci-layout` and `index.json`), or what `docker save` or `skopeo copy .. docker-archive:` writes", path.display())]
    NotAnImage {
        /// Folder or file.
        path: PathBuf,
        /// What was missing or odd.
        why: String,
    },
    /// A manifest, index or config that cannot be read.
    #[error("the {what} {digest} is not valid: the image is damaged or was made by hand, save it again")]
    Metadata {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// Its blob.
        digest: Digest,
        /// What the parser said.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// A manifest and config that do not fit each other or this program.
    #[error("image {digest} cannot be used: {why}")]
    Unusable {
        /// The manifest.
        digest: Digest,
        /// What does not fit, and how to mend it.
        why: String,
    },
    /// No variant of the image runs here.
    #[error("no image for linux/{wanted} in {}: it offers {offered}; build or save it for linux/{wanted}", path.display())]
    NoPlatform {
        /// Folder or archive.
        path: PathBuf,
        /// This machine's architecture.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// No image of this name in the layout or archive.
    #[error("{} holds no image `{pick}`: it has {names}", path.display())]
    NoSuchImage {
        /// Folder or archive.
        path: PathBuf,
        /// As asked.
        pick: String,
        /// What there is.
        names: String,
    },
    /// The layout or archive holds several images and none was chosen.
    #[error("{} holds several images: choose one of {names}, or load all of them", path.display())]
    SeveralImages {
        /// Folder or archive.
        path: PathBuf,
        /// Their names.
        names: String,
    },
    /// No image by this name or digest.
    #[error("no image `{reference}` in the store; {known}")]
    UnknownImage {
        /// As asked.
        reference: String,
        /// What there is.
        known: String,
    },
    /// The beginning of a digest fits several images.
    #[error("`{reference}` fits several images: {matches}; give more digits")]
    Ambiguous {
        /// As asked.
        reference: String,
        /// What it fits.
        matches: String,
    },
    /// An entry of a layer that must not be unpacked.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// A layer that is no readable archive.
    #[error("layer {layer} cannot be read: it is damaged or not a {expected}; build the image again")]
    UnreadableLayer {
        /// The layer's blob.
        layer: Digest,
        /// As its media type says.
        expected: &'static str,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The user an image wants to run as cannot be worked out.
    #[error("the image's user `{user}` cannot be resolved: {why}")]
    UnknownUser {
        /// As configured.
        user: String,
        /// Why not, and how to mend it.
        why: String,
    },
    /// Something to pack cannot be found.
    #[error("cannot pack {}: {why}", path.display())]
    CannotPack {
        /// The file.
        path: PathBuf,
        /// Why not, and how to mend it.
        why: String,
    },
}

/// How to mend the refusals of an operating system that people can mend.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (remove images that are no longer needed and collect garbage, or make room on that disk, and try again)"
        }
        io::ErrorKind::ReadOnlyFilesystem => " (name a folder on a file system that can be written to)",
        io::ErrorKind::PermissionDenied => " (run as the owner of that folder, or as root)",
        _ => "",
    }
}

/// Shorthand of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Names operation and path of an I/O error.
pub(super) fn io_error(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { operation, path, source }
}

/// The same for rustix.
pub(super) fn os_error(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Error {
    let path = path.into();
    move |errno| Error::Io { operation, path, source: errno.into() }
}
