//! The state folder: one version, one agent at a time, files replaced whole.
//!
//! ```text
//!   version      the form of everything beside it
//!   lock         held while an agent runs; says which process
//!   identity/    machine, key, certificates
//!   journal      the sum of orders
//!   contact      when a leader was last in touch: the boot, and milliseconds since then
//!   runtime/     the runtime's own
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::clock::SinceBoot;

/// The form of the folder that this program reads and writes.
const VERSION: &str = "1";

/// What can be wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder.
    #[error("cannot {operation} {path}{}", remedy(source))]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another program's form.
    #[error(
        "state folder {path} has version {found:?}, this program knows {VERSION}: use the program that wrote it, or name another folder with --state"
    )]
    Version {
        /// Which folder.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// Two agents in one folder.
    #[error("state folder {path} is in use by process {pid}: stop that agent, or name another folder with --state")]
    InUse {
        /// Which folder.
        path: PathBuf,
        /// What the lock file says.
        pid: String,
    },
}

impl StateError {
    /// Would room on the disk mend it?
    pub(crate) fn disk_is_full(&self) -> bool {
        matches!(self, Self::File { source, .. } if is_full(source))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How to mend what people can mend.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_full(error) => " (make room on that disk, then start the agent again; replicas run on)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (make that file system writable, or name a folder on another with --state)"
        }
        io::ErrorKind::PermissionDenied => " (run as the owner of that folder, or as root)",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => " (name a folder with --state)",
        _ => "",
    }
}

/// Says which operation on which path failed.
pub(crate) fn file_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { operation, path, source }
}

/// A state folder that this process holds.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateFolder {
    /// Makes the folder if it is new, checks its version, takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        make_folder(path)?;
        let path = path.canonicalize().map_err(file_error("resolve", path))?;
        // Looked at before anything is written: the folder of another version stays as it is.
        check_version(&path)?;
        let lock = take_lock(&path)?;
        if !check_version(&path)? {
            replace_file(&path.join("version"), format!("{VERSION}\n").as_bytes(), 0o644)?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.path.join("runtime")
    }

    /// The folder of keys and certificates; nobody else reads it.
    pub(crate) fn identity(&self) -> Result<PathBuf, StateError> {
        let path = self.path.join("identity");
        make_folder(&path)?;
        Ok(path)
    }

    /// A leader is in touch now. Not synced: a power cut ends the replicas for which it counts.
    pub(crate) fn touch_contact(&self, boot: &str, now: SinceBoot) -> Result<(), StateError> {
        let path = self.path.join("contact");
        fs::write(&path, format!("{boot} {}", now.0.as_millis())).map_err(file_error("write", &path))
    }

    /// When a leader was last in touch, if ever in this boot of the server. A file that cannot be understood was being written when
    /// the agent was killed: just then.
    pub(crate) fn contact(&self, boot: &str) -> Option<SinceBoot> {
        let text = fs::read_to_string(self.path.join("contact")).ok()?;
        let (in_boot, millis) = text.split_once(' ')?;
        let moment = SinceBoot(Duration::from_millis(millis.parse().ok()?));
        (in_boot == boot).then_some(moment)
    }
}

fn make_folder(path: &Path) -> Result<(), StateError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(file_error("create the folder", path))
}

fn take_lock(folder: &Path) -> Result<Flock<File>, StateError> {
    let path = folder.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(file_error("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())
            };
            write(&mut lock).map_err(file_error("write", &path))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(file_error("read", &path))?;
            Err(StateError::InUse { path: folder.to_owned(), pid })
        }
        Err((_, errno)) => Err(file_error("lock", &path)(errno.into())),
    }
}

/// Says whether there is a version; another one than ours is refused.
fn check_version(folder: &Path) -> Result<bool, StateError> {
    let path = folder.join("version");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == VERSION => Ok(true),
        Ok(found) => Err(StateError::Version { path: folder.to_owned(), found: found.trim().to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(file_error("read", &path)(source)),
    }
}

/// Writes a file whole or not at all: a temporary one, synced, takes its place.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(|error| {
        // On a full disk the beginning of it would only take room.
        let _ = fs::remove_file(&temporary);
        file_error("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_in_one_folder_are_refused_with_the_pid() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = StateFolder::open(folder.path()).expect("it is free");
        let second = StateFolder::open(folder.path()).expect_err("it is taken").to_string();
        assert!(second.contains(&format!("in use by process {}", std::process::id())), "{second}");
        drop(first);
        StateFolder::open(folder.path()).expect("it is free again");
    }

    #[test]
    fn the_last_contact_counts_in_its_boot_only_and_by_no_date() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateFolder::open(folder.path()).expect("it is free");
        assert_eq!(state.contact("boot-1"), None);
        let then = SinceBoot(Duration::from_millis(81_234));
        state.touch_contact("boot-1", then).expect("writable");
        // Whatever dates the file system bears.
        let file = File::options().write(true).open(folder.path().join("contact")).expect("it is there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("the date can be set");
        assert_eq!(state.contact("boot-1"), Some(then));
        assert_eq!(state.contact("boot-2"), None);
        fs::write(folder.path().join("contact"), "boot-1").expect("writable");
        assert_eq!(state.contact("boot-1"), None, "half a line");
    }

    #[test]
    fn another_version_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("version"), "7\n").expect("writable");
        let error = StateFolder::open(folder.path()).expect_err("it is of the future").to_string();
        assert!(error.contains("version \"7\""), "{error}");
    }
}
