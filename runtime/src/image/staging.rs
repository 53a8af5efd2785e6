//! A temporary folder of the store that its maker owns by a lock, so that what a dead process left can be told from work in progress.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::error::{Result, io_error, os_error};

/// Distinguishes the folders of one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Removed with everything in it when dropped.
pub(super) struct Staging {
    path: PathBuf,
    _owner: File,
}

impl Staging {
    /// The caller holds the store's lock at least shared: the sweeper must not see the folder before its owner's lock is on it.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue, // left by a dead process with this id
                result => result.map_err(io_error("create the folder", &path))?,
            }
            let owner = File::open(&path).map_err(io_error("open the folder", &path))?;
            lock(&owner, FlockOperation::LockExclusive).map_err(os_error("lock the folder", &path))?;
            return Ok(Self { path, _owner: owner });
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary folder stays until the next garbage collection");
        }
    }
}

/// Removes the folders whose owners are dead. The caller holds the store's lock exclusively.
pub(super) fn sweep(parent: &Path) -> Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(parent).map_err(io_error("list", parent))? {
        let path = entry.map_err(io_error("list", parent))?.path();
        let Ok(owner) = File::open(&path) else {
            continue;
        }; // its owner removed it meanwhile
        match flock(&owner, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => remove_tree(&path).map_err(io_error("remove", &path))?,
            Err(rustix::io::Errno::WOULDBLOCK) => continue,
            Err(errno) => return Err(os_error("lock the folder", &path)(errno)),
        }
        removed += 1;
    }
    Ok(removed)
}

/// Removes a folder with all in it. Images have folders that their owner may not write to; root does not care, others open them first.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// The depth is bounded by the plan that made the tree.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// `flock` that outlasts signals.
pub(super) fn lock(file: &File, how: FlockOperation) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| flock(file, how))
}
