//! What is kept of a container between two commands: files below `--root`, made by `create`, removed by `delete`. Each kind has a folder of its own, where the
//! container's name is the file's: so that no folder comes and goes with a container, which takes file systems much longer.
//!
//! The kinds: `config` (the configuration as it was at `create`; while this file is there, the name is taken), `state` (what this module writes), `start` (the
//! fifo on which the container's process waits, removed by `start`), `outcome` (what that process says when a step fails after `create` has ended).

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, Spec};
use serde::{Deserialize, Serialize};

use super::cgroup::Groups;
use super::{OciError, config};
use crate::kernel::process::Stat;

/// Where containers are kept when nobody says otherwise.
pub const DEFAULT_ROOT: &str = "/run/bellows-oci";

/// What is written down of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// Where its configuration came from.
    pub bundle: PathBuf,
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// Of its first process.
    pub pid: u32,
    /// When that process began, in the kernel's ticks since boot: a number that is used again is another process.
    pub pid_started: u64,
    /// When it was created.
    pub created_unix_ms: u64,
    /// Who created it.
    pub owner: u32,
    /// Its annotations.
    pub annotations: HashMap<String, String>,
    /// Its control groups.
    pub groups: Groups,
    /// Whether hooks of its creation run still.
    pub creating: bool,
}

/// The files of one container.
#[derive(Debug, Clone)]
pub struct Files {
    id: String,
    root: PathBuf,
}

/// Folders, one for each kind of file.
const CONFIG: &str = "config";
const RECORD: &str = "state";
const NEXT_RECORD: &str = "state.next";
const START: &str = "start";
const OUTCOME: &str = "outcome";

impl Files {
    /// Of a new container: nobody else has its name.
    pub fn make(root: &Path, id: &str) -> Result<Self, OciError> {
        let files = Self { id: checked(id)?.to_owned(), root: root.to_owned() };
        let path = files.path(CONFIG);
        match make_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The one that is looked for comes last.
                for kind in [RECORD, NEXT_RECORD, START, OUTCOME, CONFIG] {
                    let folder = root.join(kind);
                    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder);
                    made.map_err(OciError::file("make", &folder))?;
                }
                make_file(&path).map_err(OciError::file("make", &path)).map(|()| files)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(OciError::Exists(files.id)),
            other => other.map_err(OciError::file("make", &path)).map(|()| files),
        }
    }

    /// Of one that is there.
    pub fn open(root: &Path, id: &str) -> Result<Self, OciError> {
        let files = Self { id: checked(id)?.to_owned(), root: root.to_owned() };
        if files.path(CONFIG).is_file() { Ok(files) } else { Err(OciError::Unknown(files.id)) }
    }

    /// Names of all.
    pub fn names(root: &Path) -> Result<Vec<String>, OciError> {
        let folder = root.join(CONFIG);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(OciError::file("read", &folder))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(OciError::file("read", &folder))?.file_name();
            names.extend(name.to_str().filter(|name| checked(name).is_ok()).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.root.join(kind).join(&self.id)
    }

    /// The fifo of `start`.
    pub fn start(&self) -> PathBuf {
        self.path(START)
    }

    /// Where failures after `create` are told.
    pub fn outcome(&self) -> PathBuf {
        self.path(OUTCOME)
    }

    /// Whole or not at all: who looks meanwhile finds what was there before. Not for a container that was deleted while it was created.
    pub fn write(&self, record: &Record) -> Result<(), OciError> {
        let (path, next) = (self.path(RECORD), self.path(NEXT_RECORD));
        let text = serde_json::to_vec(record)
            .map_err(|error| OciError::Json { path: path.clone(), reason: error.to_string() })?;
        fs::write(&next, text).and_then(|()| fs::rename(&next, &path)).map_err(OciError::file("write", &path))?;
        if self.path(CONFIG).is_file() {
            return Ok(());
        }
        fs::remove_file(&path).map_err(OciError::file("remove", &path))?;
        Err(OciError::Unknown(self.id.clone()))
    }

    /// What was written; `None` while it is created.
    pub fn record(&self) -> Result<Option<Record>, OciError> {
        let path = self.path(RECORD);
        match fs::read(&path) {
            Ok(text) => config::parse(&text, &path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OciError::File { what: "read", path, source }),
        }
    }

    /// What was written, of a container that must be whole.
    pub fn whole(&self, what: &'static str) -> Result<Record, OciError> {
        let creating = || OciError::Status { what, id: self.id.clone(), status: ContainerState::Creating.to_string() };
        self.record()?.ok_or_else(creating)
    }

    /// Keeps the configuration as it is now. The file is empty: to say so once more would make some file systems write it to the disk at once.
    pub fn keep_config(&self, text: &[u8]) -> Result<(), OciError> {
        let path = self.path(CONFIG);
        let opened = fs::OpenOptions::new().write(true).open(&path);
        opened.and_then(|mut file| file.write_all(text)).map_err(OciError::file("write", &path))
    }

    /// The configuration as it was.
    pub fn config(&self) -> Result<Spec, OciError> {
        let path = self.path(CONFIG);
        config::parse(&fs::read(&path).map_err(OciError::file("read", &path))?, &path)
    }

    /// Removes all that is kept, the name last.
    pub fn remove(&self) -> Result<(), OciError> {
        [START, OUTCOME, NEXT_RECORD, RECORD, CONFIG].into_iter().try_for_each(|kind| {
            let path = self.path(kind);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(OciError::file("remove", &path)(error)),
                _ => Ok(()),
            }
        })
    }

    /// Where the container stands, by what is kept and by its process.
    pub fn status(&self, record: &Record) -> ContainerState {
        if !is_alive(record) {
            ContainerState::Stopped
        } else if record.creating {
            ContainerState::Creating
        } else if self.start().exists() {
            ContainerState::Created
        } else {
            ContainerState::Running
        }
    }
}

fn make_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// Safe as a file's name.
fn checked(id: &str) -> Result<&str, OciError> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    let good = (1..=1024).contains(&id.len()) && id.bytes().all(letter) && id != "." && id != "..";
    if good { Ok(id) } else { Err(OciError::Id(id.to_owned())) }
}

/// Whether the first process is that of the record and not only waiting to be reaped.
pub fn is_alive(record: &Record) -> bool {
    matches!(process(record.pid), Ok((started, state)) if started == record.pid_started && !matches!(state, b'Z' | b'X'))
}

/// When a process began, and the letter of its state.
pub fn process(pid: u32) -> io::Result<(u64, u8)> {
    let stat = Stat::read(pid)?;
    let state = stat.field(3)?.bytes().next().ok_or(ErrorKind::InvalidData)?;
    Ok((stat.started()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_files() {
        for good in ["a", "A_1+x.y-z", "..."] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "\u{e4}"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_taken_once_and_says_what_was_written() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().join("containers");
        assert_eq!(Files::names(&root).expect("names"), Vec::<String>::new());
        assert!(matches!(Files::open(&root, "a"), Err(OciError::Unknown(_))));
        let files = Files::make(&root, "a").expect("made");
        assert!(matches!(Files::make(&root, "a"), Err(OciError::Exists(_))));
        assert!(files.record().expect("read").is_none());
        let (pid_started, _) = process(std::process::id()).expect("ourselves");
        let mut record = Record {
            id: "a".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            pid: std::process::id(),
            pid_started,
            created_unix_ms: 7,
            owner: 0,
            annotations: HashMap::from([("k".into(), "v".into())]),
            groups: Groups::default(),
            creating: true,
        };
        files.write(&record).expect("written");
        assert_eq!(files.record().expect("read"), Some(record.clone()));
        assert_eq!(files.status(&record), ContainerState::Creating);
        record.creating = false;
        assert_eq!(files.status(&record), ContainerState::Running);
        fs::write(files.start(), "").expect("a file");
        assert_eq!(files.status(&record), ContainerState::Created);
        record.pid_started += 1;
        assert_eq!(files.status(&record), ContainerState::Stopped);
        assert_eq!(Files::names(&root).expect("names"), ["a"]);
        files.remove().expect("removed");
        assert!(matches!(files.write(&record), Err(OciError::Unknown(_))), "it was deleted meanwhile");
        assert!(Files::open(&root, "a").is_err());
        let left =
            fs::read_dir(&root).expect("kinds").map(|kind| fs::read_dir(kind.expect("a kind").path()).expect("files"));
        assert_eq!(left.map(Iterator::count).collect::<Vec<_>>(), [0; 5]);
    }
}
