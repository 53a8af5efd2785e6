//! Stored blobs, in the layout of the image store: `blobs/sha256/<hex>`, visible only when whole and verified.
//! An agent on the same machine may share the folder; the store's own rules for locks and temporary folders are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::error::StartError;
use crate::state::{make_private_folder, replace_file, sync_folder};

/// Version of the store's layout, as the image store writes it.
const VERSION: u32 = 1;

/// One blob: 16 GiB, as the image store takes.
const MAX_BLOB_BYTES: u64 = 16 << 30;

/// A manifest or config: 4 MiB, what registries accept. It is parsed in memory.
const MAX_METADATA_BYTES: u64 = 4 << 20;

/// As the image store's.
const MAX_LAYERS: usize = 127;

/// Distinguishes the temporary folders of one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// What can go wrong with a blob.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("cannot {operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{given}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
    NotADigest { given: String },
    #[error("the bytes have the digest {actual}, not {expected}; send the blob again, or build the image again")]
    WrongDigest { expected: BlobDigest, actual: BlobDigest },
    #[error("{what} is longer than {limit} bytes")]
    TooLong { what: String, limit: u64 },
    #[error("blob {digest} is not stored; send it with `bellows image load`")]
    Missing { digest: BlobDigest },
    #[error("manifest {digest} cannot be used: {why}")]
    BadManifest { digest: BlobDigest, why: String },
}

type Result<T> = std::result::Result<T, BlobError>;

/// `sha256:<64 hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobDigest([u8; 32]);

impl BlobDigest {
    fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl std::fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl std::str::FromStr for BlobDigest {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || BlobError::NotADigest { given: text.chars().take(80).collect() };
        let digits =
            text.strip_prefix("sha256:").filter(|digits| !digits.bytes().any(|byte| byte.is_ascii_uppercase()));
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits.ok_or_else(refused)?, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

/// The folder of blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens the folder, or makes it.
    pub(crate) fn open(root: &Path) -> std::result::Result<Self, StartError> {
        let not_writable = |source| StartError::NotWritable { path: root.to_owned(), flag: "--store", source };
        make_private_folder(root).map_err(not_writable)?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == VERSION.to_string() => {}
            Ok(found) => {
                let found = found.trim().to_owned();
                return Err(StartError::NewerStore { path: root.to_owned(), found, known: VERSION });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace_file(&version, format!("{VERSION}\n").as_bytes(), 0o600).map_err(not_writable)?;
            }
            Err(source) => return Err(StartError::Unreadable { path: version, source }),
        }
        for folder in ["blobs/sha256", "tmp"] {
            make_private_folder(&root.join(folder)).map_err(not_writable)?;
        }
        Ok(Self { root: root.to_owned() })
    }

    pub(crate) fn path(&self, digest: &BlobDigest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn has(&self, digest: &BlobDigest) -> Result<bool> {
        let path = self.path(digest);
        path.try_exists().map_err(io_error("look for", &path))
    }

    pub(crate) fn open_blob(&self, digest: &BlobDigest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::Missing { digest: *digest },
            _ => BlobError::Io { operation: "open", path, source },
        })
    }

    /// A blob on its way in.
    pub(crate) fn upload(&self, expected: BlobDigest) -> Result<Upload> {
        let lock_path = self.root.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io_error("open", &lock_path))?;
        lock.lock_shared().map_err(io_error("lock", &lock_path))?;
        let staging = Staging::create(&self.root.join("tmp"))?;
        let path = staging.path.join("blob");
        let file = File::create_new(&path).map_err(io_error("create", &path))?;
        Ok(Upload { blobs: self.clone(), expected, staging, file, hash: Sha256::new(), bytes: 0 })
    }

    /// Are manifest, config and layers all stored, and is the manifest one? Says the size of them all.
    pub(crate) fn check_image(&self, manifest: &BlobDigest) -> Result<u64> {
        let bytes = self.read_metadata(manifest)?;
        let parsed = Manifest::parse(manifest, &bytes)?;
        let mut total = bytes.len() as u64;
        for digest in parsed.blobs(manifest)? {
            let file = self.open_blob(&digest)?;
            total += file.metadata().map_err(io_error("look at", &self.path(&digest)))?.len();
        }
        Ok(total)
    }

    fn read_metadata(&self, digest: &BlobDigest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_blob(digest)?;
        file.take(MAX_METADATA_BYTES + 1).read_to_end(&mut bytes).map_err(io_error("read", &self.path(digest)))?;
        if bytes.len() as u64 > MAX_METADATA_BYTES {
            return Err(BlobError::TooLong { what: format!("manifest {digest}"), limit: MAX_METADATA_BYTES });
        }
        match BlobDigest(Sha256::digest(&bytes).into()) {
            actual if actual == *digest => Ok(bytes),
            actual => Err(BlobError::WrongDigest { expected: *digest, actual }),
        }
    }
}

/// A blob on its way in: hashed while it streams. Dropped before `finish`, it leaves nothing behind.
pub(crate) struct Upload {
    blobs: Blobs,
    expected: BlobDigest,
    staging: Staging,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Upload {
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<()> {
        self.bytes += chunk.len() as u64;
        if self.bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLong { what: format!("blob {}", self.expected), limit: MAX_BLOB_BYTES });
        }
        self.hash.update(chunk);
        self.file.write_all(chunk).map_err(io_error("write", &self.staging.path))
    }

    /// Makes it visible when the digest is right.
    pub(crate) fn finish(self) -> Result<()> {
        let actual = BlobDigest(self.hash.finalize().into());
        if actual != self.expected {
            return Err(BlobError::WrongDigest { expected: self.expected, actual });
        }
        self.file.sync_all().map_err(io_error("sync", &self.staging.path))?;
        let target = self.blobs.path(&self.expected);
        fs::rename(self.staging.path.join("blob"), &target).map_err(io_error("publish", &target))?;
        let folder = self.blobs.root.join("blobs/sha256");
        sync_folder(&folder).map_err(io_error("sync the folder", &folder))
    }
}

/// A temporary folder that its lock tells from those of dead processes.
struct Staging {
    path: PathBuf,
    _owner: File,
}

impl Staging {
    fn create(parent: &Path) -> Result<Self> {
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}-c{number}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue, // a dead process had our id
                result => result.map_err(io_error("create the folder", &path))?,
            }
            let owner = File::open(&path).map_err(io_error("open the folder", &path))?;
            owner.lock().map_err(io_error("lock the folder", &path))?;
            return Ok(Self { path, _owner: owner });
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary folder stays until the next garbage collection");
        }
    }
}

/// As much of a manifest as is needed to find its blobs.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(serde::Deserialize)]
struct Descriptor {
    digest: String,
}

impl Manifest {
    fn parse(digest: &BlobDigest, bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| BlobError::BadManifest { digest: *digest, why };
        let parsed: Self = serde_json::from_slice(bytes).map_err(|error| {
            bad(format!("it is not an image manifest ({error}); an index must be resolved to one platform first"))
        })?;
        match (parsed.schema_version, parsed.layers.len()) {
            (2, 0..=MAX_LAYERS) => Ok(parsed),
            (2, layers) => Err(bad(format!("it has {layers} layers, {MAX_LAYERS} are allowed; squash it"))),
            (version, _) => {
                Err(bad(format!("it has schema version {version}, only 2 is known; save it with a current tool")))
            }
        }
    }

    /// Config and layers.
    fn blobs(&self, manifest: &BlobDigest) -> Result<Vec<BlobDigest>> {
        let descriptors = std::iter::once(&self.config).chain(&self.layers);
        let parse = |descriptor: &Descriptor| {
            descriptor
                .digest
                .parse()
                .map_err(|error: BlobError| BlobError::BadManifest { digest: *manifest, why: error.to_string() })
        };
        let mut blobs = descriptors.map(parse).collect::<Result<Vec<BlobDigest>>>()?;
        blobs.sort_unstable();
        blobs.dedup();
        Ok(blobs)
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> BlobDigest {
        BlobDigest(Sha256::digest(bytes).into())
    }

    fn put(blobs: &Blobs, bytes: &[u8]) -> BlobDigest {
        let mut upload = blobs.upload(digest(bytes)).expect("an upload");
        upload.write(bytes).expect("written");
        upload.finish().expect("published");
        digest(bytes)
    }

    fn names(folder: PathBuf) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn a_wrong_digest_and_a_broken_upload_leave_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let blobs = Blobs::open(folder.path()).expect("opened");
        let mut upload = blobs.upload(digest(b"right")).expect("an upload");
        upload.write(b"wrong").expect("written");
        assert!(matches!(upload.finish(), Err(BlobError::WrongDigest { .. })));
        drop(blobs.upload(digest(b"cut short")).expect("an upload"));
        assert_eq!(names(folder.path().join("blobs/sha256")), 0);
        assert_eq!(names(folder.path().join("tmp")), 0);
    }

    #[test]
    fn an_image_is_whole_or_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let blobs = Blobs::open(folder.path()).expect("opened");
        let (config, layer) = (put(&blobs, b"{}"), digest(b"layer"));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}},{{"digest":"{layer}"}}]}}"#
        );
        let manifest = put(&blobs, text.as_bytes());
        assert!(matches!(blobs.check_image(&manifest), Err(BlobError::Missing { digest }) if digest == layer));
        put(&blobs, b"layer");
        assert_eq!(blobs.check_image(&manifest).expect("whole"), text.len() as u64 + 2 + 5);
        let index = put(&blobs, br#"{"schemaVersion":2,"manifests":[]}"#);
        assert!(matches!(blobs.check_image(&index), Err(BlobError::BadManifest { .. })));
    }

    #[test]
    fn digests_are_read_strictly() {
        for bad in [
            "",
            "sha256:",
            "sha256:00",
            "md5:00",
            "../../etc/passwd",
            &"a".repeat(64),
            &format!("sha256:{}", "A".repeat(64)),
        ] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad}");
        }
    }
}
