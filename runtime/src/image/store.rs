//! The store: blobs by digest, names, unpacked trees. Several processes may use it at once.
//!
//! ```text
//! version            1
//! lock               held exclusively to change names or collect garbage, shared to begin or publish anything
//! names.json         name -> manifest digest, replaced whole
//! blobs/sha256/<hex> written elsewhere, synced, renamed to here: what is here is whole and verified
//! trees/<hex>/       rootfs/ and image.json, likewise
//! locks/<hex>        held while a tree is being unpacked, so that two processes do not do it twice
//! tmp/<pid>-<n>/     work in progress, locked by its maker; leftovers of the dead go with the next garbage collection
//! ```
//!
//! The folder is readable by its owner only: trees contain setuid programs as their images gave them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::blobs::{copy_verified, read_bounded, replace_file, sync_folder};
use super::digest::Digest;
use super::error::{Error, Result, io_error, os_error};
use super::limits::Limits;
use super::metadata::{self, Blob, Parsed};
use super::staging::{self, Staging};

/// Version of the folder's layout.
const VERSION: u32 = 1;

/// Blobs that no image names are spared this long after they were written: an upload sends blobs first and the name last, and
/// 1 hour brings 16 GiB (the largest blob) over 40 Mbit/s.
pub const UPLOAD_GRACE: Duration = Duration::from_secs(60 * 60);

/// A digest given by its beginning needs this many digits: 4 digits tell 65,536 apart.
const PREFIX_DIGITS: usize = 4;

/// An open store. Cheap to clone; holds no lock and no descriptor.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
}

/// One named image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Sum of its stored blobs, in bytes; none when blobs are missing.
    pub bytes: Option<u64>,
    /// Number of layers; none when the manifest is missing.
    pub layers: Option<usize>,
    /// Whether its tree is unpacked.
    pub unpacked: bool,
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Trees removed.
    pub trees: u64,
    /// Temporary folders of dead processes removed.
    pub leftovers: u64,
}

impl Store {
    /// Opens the store in `folder`, makes it when the folder is new or empty.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, Limits::default())
    }

    /// The same with other bounds than the usual.
    pub fn open_with(folder: impl AsRef<Path>, limits: Limits) -> Result<Self> {
        let folder = folder.as_ref();
        make_folder(folder)?;
        let root = fs::canonicalize(folder).map_err(io_error("find", folder))?;
        let store = Self { root, limits };
        store.check_version()?;
        for name in ["blobs", "blobs/sha256", "trees", "locks", "tmp"] {
            make_folder(&store.root.join(name))?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// The bounds for images that are unpacked here.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn check_version(&self) -> Result<()> {
        let path = self.root.join("version");
        match fs::read_to_string(&path) {
            Ok(text) => self.known_version(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(),
            Err(source) => Err(Error::Io { operation: "read", path, source }),
        }
    }

    fn known_version(&self, text: &str) -> Result<()> {
        match text.trim().parse::<u32>() {
            Ok(found) if found <= VERSION => Ok(()),
            Ok(found) => Err(Error::NewerStore { path: self.root.clone(), found, known: VERSION }),
            Err(_) => {
                Err(Error::NotAStore { path: self.root.clone(), why: "its file `version` has no number".to_owned() })
            }
        }
    }

    /// Writes the version file of a new store; refuses a folder that has other things in it.
    fn begin(&self) -> Result<()> {
        let known = ["lock", "version.new", "blobs", "trees", "locks", "tmp", "version"];
        for entry in fs::read_dir(&self.root).map_err(io_error("list", &self.root))? {
            let name = entry.map_err(io_error("list", &self.root))?.file_name();
            if !known.iter().any(|known| name == *known) {
                return Err(Error::NotAStore {
                    path: self.root.clone(),
                    why: format!("it has `{}` and no file `version`", name.display()),
                });
            }
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        replace_file(&self.root.join("version"), &self.root.join("version.new"), format!("{VERSION}\n").as_bytes())
    }

    /// Held until dropped.
    pub(super) fn lock(&self, how: FlockOperation) -> Result<File> {
        self.lock_file(&self.root.join("lock"), how)
    }

    /// Serialises the unpacking of one image.
    pub(super) fn lock_tree(&self, digest: &Digest) -> Result<File> {
        self.lock_file(&self.root.join("locks").join(digest.hex()), FlockOperation::LockExclusive)
    }

    fn lock_file(&self, path: &Path, how: FlockOperation) -> Result<File> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(io_error("open", path))?;
        staging::lock(&file, how).map_err(os_error("lock", path))?;
        Ok(file)
    }

    pub(super) fn staging(&self) -> Result<Staging> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        Staging::create(&self.root.join("tmp"))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn tree_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("trees").join(digest.hex())
    }

    /// Stores what `reader` gives, if it has this digest; says how many bytes. Nothing is kept when it has another.
    pub fn put_blob(&self, digest: &Digest, reader: &mut dyn Read) -> Result<u64> {
        let staging = self.staging()?;
        let path = staging.path().join("blob");
        let bytes = copy_verified(reader, &path, digest, None, self.limits.blob_bytes)?;
        self.publish_blobs([(*digest, path)])?;
        Ok(bytes)
    }

    /// Makes staged, verified, synced blobs visible.
    pub(super) fn publish_blobs(&self, staged: impl IntoIterator<Item = (Digest, PathBuf)>) -> Result<()> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        for (digest, path) in staged {
            fs::rename(&path, self.blob_path(&digest)).map_err(io_error("publish the blob", &path))?;
        }
        sync_folder(&self.root.join("blobs/sha256"))
    }

    /// Whether the blob is here, whole.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        path.try_exists().map_err(io_error("look for", &path))
    }

    /// The blob's content.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::MissingBlob { digest: *digest },
            _ => Error::Io { operation: "open", path, source },
        })
    }

    /// The blob's size in bytes.
    pub fn blob_bytes(&self, digest: &Digest) -> Result<u64> {
        let file = self.open_blob(digest)?;
        Ok(file.metadata().map_err(io_error("look at", self.blob_path(digest)))?.len())
    }

    /// A manifest or config, verified again.
    pub(super) fn read_metadata(&self, what: &str, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes =
            read_bounded(&mut self.open_blob(digest)?, &format!("{what} {digest}"), self.limits.metadata_bytes, &path)?;
        match Digest::of(&bytes) {
            actual if actual == *digest => Ok(bytes),
            actual => Err(Error::WrongDigest { expected: *digest, actual }),
        }
    }

    pub(super) fn read_manifest(&self, manifest: &Digest) -> Result<Parsed> {
        metadata::parse_manifest(*manifest, &self.read_metadata("manifest", manifest)?, &self.limits)
    }

    /// All blobs of an image in the order to send them: manifest, config, layers from the lowest. The manifest must be here.
    pub fn manifest_blobs(&self, manifest: &Digest) -> Result<Vec<Blob>> {
        let parsed = self.read_manifest(manifest)?;
        let own =
            Blob { digest: *manifest, bytes: Some(self.blob_bytes(manifest)?), kind: metadata::BlobKind::Manifest };
        Ok(std::iter::once(own).chain(parsed.blobs()).collect())
    }

    /// What is still to be fetched of an image, in order. Only the manifest, as long as that is missing itself.
    pub fn missing_blobs(&self, manifest: &Digest) -> Result<Vec<Blob>> {
        if !self.has_blob(manifest)? {
            return Ok(vec![Blob { digest: *manifest, bytes: None, kind: metadata::BlobKind::Manifest }]);
        }
        let mut missing = Vec::new();
        for blob in self.manifest_blobs(manifest)? {
            if !self.has_blob(&blob.digest)? && !missing.contains(&blob) {
                missing.push(blob);
            }
        }
        Ok(missing)
    }

    /// Gives an image a name; the name moves when it was another's. All blobs must be here.
    pub fn register(&self, name: &str, manifest: &Digest) -> Result<()> {
        check_name(name)?;
        let lock = self.lock(FlockOperation::LockExclusive)?;
        if let Some(blob) = self.missing_blobs(manifest)?.first() {
            return Err(Error::MissingBlob { digest: blob.digest });
        }
        let mut names = self.names()?;
        names.insert(name.to_owned(), *manifest);
        self.write_names(&names, &lock)
    }

    fn names(&self) -> Result<BTreeMap<String, Digest>> {
        let path = self.root.join("names.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::DamagedStore { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(source) => Err(Error::Io { operation: "read", path, source }),
        }
    }

    /// The caller shows that it holds the exclusive lock.
    fn write_names(&self, names: &BTreeMap<String, Digest>, _lock: &File) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(names).expect("a map of texts is always JSON");
        replace_file(&self.root.join("names.json"), &self.root.join("names.json.new"), &bytes)
    }

    /// The image's manifest digest, from a name (`:latest` may be left out), a digest, or the beginning of one with at least 4 digits.
    pub fn resolve(&self, reference: &str) -> Result<Digest> {
        let names = self.names()?;
        if let Some(digest) = names.get(reference).or_else(|| names.get(&format!("{reference}:latest"))) {
            return Ok(*digest);
        }
        if let Ok(digest) = reference.parse::<Digest>()
            && self.has_blob(&digest)?
        {
            return Ok(digest);
        }
        resolve_prefix(reference, &names)
    }

    /// All names, in order.
    pub fn list(&self) -> Result<Vec<Listed>> {
        self.names()?.into_iter().map(|(name, digest)| self.describe(name, digest)).collect()
    }

    fn describe(&self, name: String, digest: Digest) -> Result<Listed> {
        let unpacked = self.is_unpacked(&digest)?;
        let mut listed = Listed { name, digest, bytes: None, layers: None, unpacked };
        if !self.has_blob(&digest)? {
            return Ok(listed);
        }
        listed.layers = Some(self.read_manifest(&digest)?.layers.len());
        if self.missing_blobs(&digest)?.is_empty() {
            listed.bytes = self.manifest_blobs(&digest)?.iter().map(|blob| blob.bytes).sum();
        }
        Ok(listed)
    }

    /// Takes the name away and says what it stood for. Content stays until the next garbage collection.
    pub fn remove(&self, name: &str) -> Result<Digest> {
        let lock = self.lock(FlockOperation::LockExclusive)?;
        let mut names = self.names()?;
        let name = if names.contains_key(name) { name.to_owned() } else { format!("{name}:latest") };
        let Some(digest) = names.remove(&name) else {
            return Err(unknown(name.trim_end_matches(":latest"), &names));
        };
        self.write_names(&names, &lock)?;
        Ok(digest)
    }

    /// Removes what no named image and none of `keep` (manifests) needs, but for blobs younger than [`UPLOAD_GRACE`].
    pub fn collect_garbage(&self, keep: &BTreeSet<Digest>) -> Result<Collected> {
        self.collect_garbage_sparing(keep, UPLOAD_GRACE)
    }

    /// The same with another grace for fresh blobs.
    pub fn collect_garbage_sparing(&self, keep: &BTreeSet<Digest>, grace: Duration) -> Result<Collected> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let mut images: BTreeSet<Digest> = self.names()?.into_values().collect();
        images.extend(keep);
        let mut needed = images.clone();
        for image in &images {
            if self.has_blob(image)? {
                needed.extend(self.manifest_blobs(image)?.iter().map(|blob| blob.digest));
            }
        }
        let mut collected = Collected { leftovers: staging::sweep(&self.root.join("tmp"))?, ..Collected::default() };
        self.collect_trees(&images, &mut collected)?;
        self.collect_blobs(&needed, grace, &mut collected)?;
        Ok(collected)
    }

    /// A tree is first renamed away, so that nobody finds half of one.
    fn collect_trees(&self, images: &BTreeSet<Digest>, collected: &mut Collected) -> Result<()> {
        for digest in digests_in(&self.root.join("trees"))?.difference(images) {
            let staging = Staging::create(&self.root.join("tmp"))?;
            let path = self.tree_path(digest);
            fs::rename(&path, staging.path().join("tree")).map_err(io_error("remove", &path))?;
            let lock = self.root.join("locks").join(digest.hex());
            fs::remove_file(&lock).or_else(ignore_missing).map_err(io_error("remove", &lock))?;
            collected.trees += 1;
        }
        Ok(())
    }

    fn collect_blobs(&self, needed: &BTreeSet<Digest>, grace: Duration, collected: &mut Collected) -> Result<()> {
        let now = SystemTime::now();
        for digest in digests_in(&self.root.join("blobs/sha256"))?.difference(needed) {
            let path = self.blob_path(digest);
            let metadata = fs::metadata(&path).map_err(io_error("look at", &path))?;
            let written = metadata.modified().map_err(io_error("look at", &path))?;
            // A blob from the future (the clock was set back) counts as fresh: it is collected once the clock has passed it.
            let age = now.duration_since(written).unwrap_or(Duration::ZERO);
            if age < grace {
                continue;
            }
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            collected.blobs += 1;
            collected.bytes += metadata.len();
        }
        Ok(())
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create the folder", path))
}

fn digests_in(folder: &Path) -> Result<BTreeSet<Digest>> {
    let mut digests = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let name = entry.map_err(io_error("list", folder))?.file_name();
        digests.extend(name.to_str().and_then(|name| Digest::from_hex(name).ok()));
    }
    Ok(digests)
}

/// What names may look like: a text that is safe in shells, paths and tables, and cannot be taken for a digest.
pub(super) fn check_name(name: &str) -> Result<()> {
    let bad = |why| Err(Error::BadName { name: name.chars().take(300).collect(), why });
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:".contains(&b);
    match name.bytes().next() {
        None => bad("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => bad("it begins with neither a letter nor a digit"),
        _ if name.len() > 255 => bad("it is too long"),
        _ if !name.bytes().all(allowed) => bad("it has a character that is not allowed"),
        _ if name.starts_with("sha256:") => bad("it looks like a digest"),
        _ => Ok(()),
    }
}

fn resolve_prefix(reference: &str, names: &BTreeMap<String, Digest>) -> Result<Digest> {
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    if digits.len() < PREFIX_DIGITS {
        return Err(unknown(reference, names));
    }
    let fits: BTreeSet<&Digest> = names.values().filter(|digest| digest.hex().starts_with(digits)).collect();
    let mut fitting = fits.iter();
    match (fitting.next(), fitting.next()) {
        (None, _) => Err(unknown(reference, names)),
        (Some(only), None) => Ok(**only),
        _ => {
            let matches = fits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::Ambiguous { reference: reference.to_owned(), matches })
        }
    }
}

fn unknown(reference: &str, names: &BTreeMap<String, Digest>) -> Error {
    let known = match names.len() {
        0 => "it is empty: load an image first".to_owned(),
        _ => format!("it has {}", names.keys().take(10).cloned().collect::<Vec<_>>().join(", ")),
    };
    Error::UnknownImage { reference: reference.to_owned(), known }
}
