//! The state folder: whose it is, which layout it has, and that only one controller uses it.
//!
//! ```text
//! version          1
//! lock             held exclusively while a controller runs
//! authority.pem    the cluster's key and certificate
//! credential.json  the administrator's credential
//! raft/            the log and its snapshots
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Version of the folder's layout.
const LAYOUT: u32 = 1;

/// Digits of a process number, with room to spare.
const MOST_PID_BYTES: u64 = 16;

/// An opened state folder. The lock goes with it.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Opens the folder, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        make_private_folder(path).map_err(not_writable(path))?;
        check_layout(path)?;
        let lock = lock(path)?;
        write_layout(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.path.join("authority.pem")
    }

    pub(crate) fn credential(&self) -> PathBuf {
        self.path.join("credential.json")
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }
}

fn check_layout(path: &Path) -> Result<(), StartError> {
    let version = path.join("version");
    match fs::read_to_string(&version) {
        Ok(text) => known_layout(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => only_known_files(path),
        Err(source) => Err(StartError::Unreadable { path: version, source }),
    }
}

fn known_layout(path: &Path, text: &str) -> Result<(), StartError> {
    match text.trim().parse::<u32>() {
        Ok(found) if found <= LAYOUT => Ok(()),
        Ok(found) => Err(StartError::NewerVersion { path: path.to_owned(), found, known: LAYOUT }),
        Err(_) => Err(StartError::NotAStateFolder {
            path: path.to_owned(),
            why: "its file `version` holds no number".to_owned(),
        }),
    }
}

/// A folder without a version is new, or somebody else's.
fn only_known_files(path: &Path) -> Result<(), StartError> {
    let unreadable = |source| StartError::Unreadable { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !["lock", "version.new"].iter().any(|known| name == *known) {
            let why = format!("it holds `{}` and no file `version`", name.display());
            return Err(StartError::NotAStateFolder { path: path.to_owned(), why });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, StartError> {
    let file = path.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(&file).map_err(not_writable(&file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StartError::FolderInUse { path: path.to_owned(), pid: noted_pid(&lock) });
        }
        Err(TryLockError::Error(source)) => return Err(not_writable(&file)(source)),
    }
    let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    noted.map_err(not_writable(&file)).map(|()| lock)
}

/// Who holds the lock, for the message; nothing when it has not written its number yet.
fn noted_pid(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(MOST_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Written at every start, because that also proves that the folder can be written.
fn write_layout(path: &Path) -> Result<(), StartError> {
    let version = path.join("version");
    replace_file(&version, format!("{LAYOUT}\n").as_bytes(), 0o600).map_err(not_writable(&version))
}

fn not_writable(path: &Path) -> impl Fn(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::NotWritable { path: path.clone(), flag: "--state", source }
}

/// Makes the folder and its parents; only the owner may look into it.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces `path` by `bytes`: whole or not at all, also when the power fails.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A leftover of a killed process would keep its own mode: it goes first.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> StartError {
        StateFolder::open(path).expect_err("must be refused")
    }

    #[test]
    fn a_second_controller_is_refused_and_a_later_one_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = StateFolder::open(folder.path()).expect("a new folder");
        let own = Some(std::process::id());
        assert!(matches!(refused(folder.path()), StartError::FolderInUse { pid, .. } if pid == own));
        drop(first);
        StateFolder::open(folder.path()).expect("the lock went with its owner");
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("version"), "2\n").expect("writable");
        assert!(matches!(refused(folder.path()), StartError::NewerVersion { found: 2, known: 1, .. }));
        fs::write(folder.path().join("version"), "text").expect("writable");
        assert!(matches!(refused(folder.path()), StartError::NotAStateFolder { .. }));
        fs::remove_file(folder.path().join("version")).expect("removable");
        fs::write(folder.path().join("thesis.tex"), "precious").expect("writable");
        assert!(refused(folder.path()).to_string().contains("thesis.tex"));
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        fs::write(&path, "").expect("writable");
        assert!(matches!(refused(&path), StartError::NotWritable { .. }));
    }
}
