//! What both shapes share: files of numbers in directories.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::CgroupError;

/// A control file that stays open while there are descriptors enough, and its path for errors.
#[derive(Debug)]
pub struct Kept {
    file: OnceLock<File>,
    how: OpenOptions,
    path: PathBuf,
}

impl Kept {
    pub fn writing(path: PathBuf) -> Result<Self, CgroupError> {
        Self::open(path, OpenOptions::new().write(true).clone())
    }

    pub fn reading(path: PathBuf) -> Result<Self, CgroupError> {
        Self::open(path, OpenOptions::new().read(true).clone())
    }

    /// Opened when it is first read, and written where that is wished: no launch waits for it.
    pub fn later(path: PathBuf, is_written: bool) -> Self {
        Self { file: OnceLock::new(), how: OpenOptions::new().read(true).write(is_written).clone(), path }
    }

    fn open(path: PathBuf, how: OpenOptions) -> Result<Self, CgroupError> {
        let kept = Self { file: OnceLock::new(), how, path };
        kept.file().map(drop)?;
        Ok(kept)
    }

    pub fn file(&self) -> Result<&File, CgroupError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let opened =
            self.how.open(&self.path).map_err(|source| CgroupError::Read { path: self.path.clone(), source })?;
        Ok(self.file.get_or_init(|| opened))
    }

    /// It is opened again when it is used.
    pub fn close(&mut self) {
        self.file.take();
    }

    pub fn set(&self, value: &str) -> Result<(), CgroupError> {
        self.file()?.write_all_at(value.as_bytes(), 0).map_err(|source| CgroupError::Write {
            path: self.path.clone(),
            value: value.to_owned(),
            source,
        })
    }

    pub fn text(&self) -> Result<String, CgroupError> {
        let mut buffer = [0_u8; 4096];
        match self.file()?.read_at(&mut buffer, 0) {
            Ok(n) => Ok(String::from_utf8_lossy(&buffer[..n]).into_owned()),
            Err(source) => Err(CgroupError::Read { path: self.path.clone(), source }),
        }
    }

    /// The file's only number.
    pub fn number(&self) -> Result<u64, CgroupError> {
        self.text()?.trim().parse().map_err(|_| self.strange())
    }

    /// The number after `key` on a line of its own.
    pub fn keyed(&self, key: &str) -> Result<u64, CgroupError> {
        let text = self.text()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| self.strange())
    }

    fn strange(&self) -> CgroupError {
        let source = io::Error::new(ErrorKind::InvalidData, "not the number that was expected");
        CgroupError::Read { path: self.path.clone(), source }
    }
}

/// A control file that is opened when it is used: an open descriptor of each, for each container, would bound their number.
#[derive(Debug)]
pub struct Rare(PathBuf);

impl Rare {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn set(&self, value: &str) -> Result<(), CgroupError> {
        write(&self.0, value)
    }

    /// To be used several times in a row.
    pub fn both(&self) -> Result<Kept, CgroupError> {
        Kept::open(self.0.clone(), OpenOptions::new().read(true).write(true).clone())
    }

    pub fn reading(&self) -> Result<Kept, CgroupError> {
        Kept::reading(self.0.clone())
    }
}

pub fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    Kept::writing(path.to_owned())?.set(value)
}

/// Some kernels are built without it.
pub fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    if is_there(path)? { write(path, value) } else { Ok(()) }
}

/// Only the kernel's word says that something is not there.
pub fn is_there(path: &Path) -> Result<bool, CgroupError> {
    path.try_exists().map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// Writes what is there already: some files act on being written.
pub fn rewrite(path: &Path) -> Result<(), CgroupError> {
    let text = fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })?;
    write(path, text.trim())
}

/// Whether it was not there before.
pub fn make(path: &Path) -> Result<bool, CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(CgroupError::Make { path: path.to_owned(), source }),
    }
}

/// Removes a directory; its last process may be on its way out still, which the kernel calls busy for some microseconds.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    const TRIES: u32 = 1000;
    for _ in 0..TRIES {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::yield_now(),
            Err(source) => return Err(CgroupError::Remove { path: path.to_owned(), source }),
        }
    }
    Err(CgroupError::Remove { path: path.to_owned(), source: ErrorKind::ResourceBusy.into() })
}

/// Names of the directories below `path`.
pub fn children(path: &Path) -> Result<Vec<String>, CgroupError> {
    let read = |source| CgroupError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_type().map_err(read)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Makes every directory from `root` down to `root/below`.
pub fn make_all(root: &Path, below: &str) -> Result<PathBuf, CgroupError> {
    let mut path = root.to_owned();
    for part in below.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        make(&path)?;
    }
    Ok(path)
}

/// Removes `root/below` and then every directory above it, up to `root`, that has become empty.
pub fn remove_all(root: &Path, below: &str) -> Result<(), CgroupError> {
    let mut path = root.join(below);
    remove(&path)?;
    while path.pop() && path != root {
        if children(&path).is_ok_and(|left| !left.is_empty()) || fs::remove_dir(&path).is_err() {
            break;
        }
    }
    Ok(())
}

/// After an error: what of `root/below` was made goes, unless somebody is in it.
pub fn undo(root: &Path, below: &str) {
    let used = children(&root.join(below)).is_ok_and(|groups| !groups.is_empty());
    if !used && let Err(error) = remove_all(root, below) {
        tracing::warn!(error = &error as &dyn std::error::Error, "a cgroup that is not in use is left behind");
    }
}

/// Those that can be signalled. A `cgroup.procs` of v2 says 0 for a process that ends while it is read, which to `kill` is its caller's whole process group.
pub fn pids(path: &Path) -> Result<Vec<u32>, CgroupError> {
    Ok(listed(path)?.into_iter().filter(|pid| *pid != 0).collect())
}

/// As the kernel says it: 0 is also a process outside of our PID namespace.
pub fn listed(path: &Path) -> Result<Vec<u32>, CgroupError> {
    let file = path.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(source) => Err(CgroupError::Read { path: file, source }),
    }
}
