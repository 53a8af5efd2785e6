//! The folder: whose it is and whether this program may write it.

use super::disk::open;
use bellows_controller::storage::StorageError;
use std::fs;
use std::path::Path;

fn refused(path: &Path) -> StorageError {
    open(path).err().expect("must be refused")
}

#[test]
fn two_cannot_share_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = open(folder.path()).expect("a new folder");
    assert!(matches!(refused(folder.path()), StorageError::Locked { .. }));
    drop(first);
    open(folder.path()).expect("the lock went with its owner");
}

#[test]
fn a_file_is_not_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    fs::write(&path, "").expect("room");
    assert!(matches!(refused(&path), StorageError::NotWritable { .. }));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    // Nobody, not even root, makes files in this one.
    let error = refused(Path::new("/sys/kernel"));
    assert!(matches!(error, StorageError::NotWritable { .. }), "{error}");
    assert!(error.to_string().starts_with("/sys/kernel cannot be written"), "{error}");
}
