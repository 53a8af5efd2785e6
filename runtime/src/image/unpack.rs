//! From blobs to one flattened tree.
//!
//! ```text
//! trees/<hex>/ there? ──yes──▶ read image.json
//!      │ no
//!      ▼
//! lock of this image ─▶ there now? ─▶ staging: layers in order, folders' owners, user, image.json ─▶ syncfs ─▶ rename
//! ```
//! A crash anywhere before the rename leaves a temporary folder and nothing else.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::blobs::sync_folder;
use super::config::{self, ImageConfig, User};
use super::decode::{self, Stop, Used};
use super::digest::Digest;
use super::entry::{Action, Entry};
use super::error::{Error, Result, io_error, os_error};
use super::limits::Limits;
use super::metadata::{self, Parsed};
use super::perform::{Tree, read_inside};
use super::plan::Plan;
use super::store::Store;
use super::user;

/// `/etc/passwd` and `/etc/group` of an image, each: 4 MiB, or 40,000 users at 100 bytes a line.
pub(super) const ACCOUNTS_BYTES: u64 = 4 << 20;

/// Notes kept of what was left out; a hostile image gets no more room than this.
const NOTES: usize = 100;

/// An image ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its files: one tree to be used as a read-only lower layer. Shared by all replicas, never to be written to.
    pub root: PathBuf,
    /// How to run it.
    pub config: ImageConfig,
    /// What was left out on purpose, the first 100.
    pub skipped: Vec<Skipped>,
}

impl Image {
    /// Another user of the image, by the image's own `/etc/passwd` and `/etc/group`: `name`, `uid`, `name:group`, `uid:gid`; empty means root.
    pub fn user(&self, spec: &str) -> Result<User> {
        user::resolve(spec, &accounts(&self.root, "etc/passwd")?, &accounts(&self.root, "etc/group")?)
    }
}

fn accounts(root: &Path, path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&read_inside(root, path, ACCOUNTS_BYTES)?.unwrap_or_default()).into_owned())
}

/// Something of the image that is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The entry, escaped.
    pub entry: String,
    /// Why.
    pub why: String,
}

/// What `image.json` beside the tree says.
#[derive(Serialize, Deserialize)]
struct Record {
    config: ImageConfig,
    skipped: Vec<Skipped>,
}

impl Store {
    /// Whether the image's tree is there.
    pub fn is_unpacked(&self, digest: &Digest) -> Result<bool> {
        let path = self.tree_path(digest);
        path.try_exists().map_err(io_error("look for", &path))
    }

    /// Unpacks the image unless it is unpacked already. All its blobs must be here. Safe to call from several threads and processes.
    /// Owners are kept when the caller is root.
    pub fn unpack(&self, digest: &Digest) -> Result<Image> {
        if self.is_unpacked(digest)? {
            return self.read_tree(digest);
        }
        let _one_at_a_time = self.lock_tree(digest)?;
        if !self.is_unpacked(digest)? {
            let staging = self.staging()?;
            let tree = staging.path().join("tree");
            self.unpack_to(&tree, digest)?;
            self.publish_tree(&tree, digest)?;
        }
        self.read_tree(digest)
    }

    fn read_tree(&self, digest: &Digest) -> Result<Image> {
        let folder = self.tree_path(digest);
        let path = folder.join("image.json");
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        let record: Record = serde_json::from_slice(&bytes).map_err(|source| Error::DamagedStore { path, source })?;
        Ok(Image { digest: *digest, root: folder.join("rootfs"), config: record.config, skipped: record.skipped })
    }

    fn unpack_to(&self, folder: &Path, digest: &Digest) -> Result<()> {
        let parsed = self.read_manifest(digest)?;
        let (configuration, diff_ids) =
            metadata::parse_config(&parsed, &self.read_metadata("config", &parsed.config)?)?;
        let root = folder.join("rootfs");
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(io_error("create the folder", &root))?;
        let skipped = write_layers(&root, &parsed, &diff_ids, self.limits(), |layer| self.open_blob(layer))?;
        let (passwd, group) = (accounts(&root, "etc/passwd")?, accounts(&root, "etc/group")?);
        let config = config::resolve(*digest, &configuration, &passwd, &group)?;
        let record = serde_json::to_vec_pretty(&Record { config, skipped }).expect("texts and numbers are always JSON");
        let path = folder.join("image.json");
        fs::write(&path, record).map_err(io_error("write", &path))
    }

    fn publish_tree(&self, tree: &Path, digest: &Digest) -> Result<()> {
        let written = File::open(tree).map_err(io_error("open the folder", tree))?;
        // One call for the whole file system instead of one per file.
        rustix::fs::syncfs(&written).map_err(os_error("sync", tree))?;
        let _lock = self.lock(FlockOperation::LockShared)?;
        match fs::rename(tree, self.tree_path(digest)) {
            // Somebody was faster: a collected lock file lets two unpack the same. Both trees are the same too.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            result => {
                result.map_err(io_error("publish the tree", tree))?;
                sync_folder(&self.folder().join("trees"))
            }
        }
    }
}

fn write_layers(
    root: &Path,
    parsed: &Parsed,
    diff_ids: &[Digest],
    limits: &Limits,
    open: impl Fn(&Digest) -> Result<File>,
) -> Result<Vec<Skipped>> {
    let mut plan = Plan::new(limits);
    let mut tree = Tree::open(root)?;
    let mut used = Used::default();
    let mut skipped = Vec::new();
    for (layer, diff_id) in parsed.layers.iter().zip(diff_ids) {
        plan.begin_layer();
        decode::walk(open(&layer.digest)?, layer, diff_id, limits, &mut used, &mut |entry, content, shown| {
            note(&mut skipped, entry, shown);
            for step in plan.add(entry)? {
                tree.perform(&step, entry, content)?;
            }
            Ok::<(), Stop>(())
        })?;
    }
    tree.finish(plan.folders())?;
    if tree.attributes_lost() > 0 {
        let why = format!(
            "{} extended attributes, which the file system of the store or its rights refuse",
            tree.attributes_lost()
        );
        skipped.push(Skipped { entry: String::new(), why });
    }
    Ok(skipped)
}

fn note(skipped: &mut Vec<Skipped>, entry: &Entry, shown: &str) {
    if let Action::Skip(why) = entry.action
        && skipped.len() < NOTES
    {
        skipped.push(Skipped { entry: shown.to_owned(), why: why.to_owned() });
    }
}
