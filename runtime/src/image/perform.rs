//! Does what `plan` decided, on disk, below one folder. Every path is opened from the root's descriptor with `openat2` told to stay
//! beneath it and to cross no link, no mount and no magic link: should the plan be wrong, or somebody else write to the folder, the
//! kernel refuses, and nothing outside is touched.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::decode::Stop;
use super::entry::{Entry, Meta};
use super::error::{Error, Result, os_error};
use super::plan::Step;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// How much is copied at a time, in bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// A tree being written.
pub(super) struct Tree {
    /// For messages.
    path: PathBuf,
    root: OwnedFd,
    /// Only root can give files away.
    keeps_owners: bool,
    /// The folder written to last, since archives come folder by folder.
    recent: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
    /// Attributes that the file system refused.
    attributes_lost: u64,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(os_error("open the folder", path))?;
        let keeps_owners = rustix::process::geteuid().is_root();
        Ok(Self {
            path: path.to_owned(),
            root,
            keeps_owners,
            recent: None,
            buffer: vec![0; CHUNK_BYTES],
            attributes_lost: 0,
        })
    }

    pub(super) fn attributes_lost(&self) -> u64 {
        self.attributes_lost
    }

    /// Performs one step of an entry.
    pub(super) fn perform(
        &mut self,
        step: &Step,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> std::result::Result<(), Stop> {
        match step {
            Step::Remove(path) => self.remove(path)?,
            Step::MakeFolder(path) => self.make_folder(path)?,
            Step::MakeFile(path) => self.make_file(path, &entry.meta, content)?,
            Step::MakeFifo(path) => self.make_fifo(path, &entry.meta)?,
            Step::MakeSymbolicLink { path, target } => self.make_symbolic_link(path, target, &entry.meta)?,
            Step::MakeHardLink { path, target } => self.make_hard_link(path, target)?,
        }
        Ok(())
    }

    /// Gives the folders their final owners, modes and times; the deepest first, since a mode may close what is below.
    pub(super) fn finish<'a>(&mut self, folders: impl IntoIterator<Item = (Vec<u8>, &'a Meta)>) -> Result<()> {
        for (path, meta) in folders {
            let folder = self.folder(&path, OFlags::RDONLY)?;
            self.describe(folder.as_fd(), meta).map_err(self.failed("describe the folder", &path))?;
        }
        Ok(())
    }

    fn failed(&self, operation: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        os_error(operation, self.path.join(OsStr::from_bytes(path)))
    }

    fn folder(&self, path: &[u8], access: OFlags) -> Result<OwnedFd> {
        let relative: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), BENEATH)
            .map_err(self.failed("open the folder", path))
    }

    /// The folder of a path, and the name in it.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p [u8])> {
        let (parent, name) = split(path);
        if self.recent.as_ref().is_none_or(|(recent, _)| recent != parent) {
            self.recent = Some((parent.to_vec(), self.folder(parent, OFlags::PATH)?));
        }
        let (_, folder) = self.recent.as_ref().expect("it was set a line above");
        Ok((folder.as_fd(), name))
    }

    fn remove(&mut self, path: &[u8]) -> Result<()> {
        let failed = self.failed("remove", path);
        let (folder, name) = self.parent(path)?;
        let removed = remove_all(folder, name);
        self.recent = None; // it may have been in what is gone now
        removed.map_err(failed)
    }

    fn make_folder(&mut self, path: &[u8]) -> Result<()> {
        let failed = self.failed("make the folder", path);
        let (folder, name) = self.parent(path)?;
        rustix::fs::mkdirat(folder, name, Mode::RWXU).map_err(failed)
    }

    fn make_file(&mut self, path: &[u8], meta: &Meta, content: &mut dyn Read) -> std::result::Result<(), Stop> {
        let failed = self.failed("make the file", path);
        let (folder, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
        self.copy(content, &mut file, path)?;
        Ok(self.describe(file.as_fd(), meta).map_err(self.failed("describe the file", path))?)
    }

    fn copy(&mut self, content: &mut dyn Read, file: &mut File, path: &[u8]) -> std::result::Result<(), Stop> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let copied = copy_through(&mut buffer, content, file);
        self.buffer = buffer;
        copied.map_err(|fault| match fault {
            CopyFault::Read(error) => Stop::Unreadable(error),
            CopyFault::Write(source) => {
                Stop::Error(Error::Io { operation: "write", path: self.path.join(OsStr::from_bytes(path)), source })
            }
        })
    }

    fn make_fifo(&mut self, path: &[u8], meta: &Meta) -> Result<()> {
        let failed = self.failed("make the FIFO", path);
        let keeps_owners = self.keeps_owners;
        let (folder, name) = self.parent(path)?;
        let make = || -> rustix::io::Result<()> {
            rustix::fs::mknodat(folder, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            describe_unopened(folder, name, meta, keeps_owners)?;
            rustix::fs::chmodat(folder, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
        };
        make().map_err(failed)
    }

    fn make_symbolic_link(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<()> {
        let failed = self.failed("make the symbolic link", path);
        let keeps_owners = self.keeps_owners;
        let (folder, name) = self.parent(path)?;
        let made = rustix::fs::symlinkat(target, folder, name);
        made.and_then(|()| describe_unopened(folder, name, meta, keeps_owners)).map_err(failed)
    }

    fn make_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let failed = self.failed("make the hard link", path);
        let (target_folder, target_name) = split(target);
        let target_folder = self.folder(target_folder, OFlags::PATH)?;
        let (folder, name) = self.parent(path)?;
        // Without AT_SYMLINK_FOLLOW: of a symbolic link, the link itself.
        rustix::fs::linkat(&target_folder, target_name, folder, name, AtFlags::empty()).map_err(failed)
    }

    /// Owner first: giving a file away clears its setuid bits and capabilities. Times last: all else changes them.
    fn describe(&mut self, file: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<()> {
        if self.keeps_owners {
            rustix::fs::fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
        }
        for (name, value) in &meta.attributes {
            match rustix::fs::fsetxattr(file, &**name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => self.attributes_lost += 1,
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode))?;
        rustix::fs::futimens(file, &times(meta))
    }
}

/// For what must not be opened: owner and times, the link itself.
fn describe_unopened(folder: BorrowedFd<'_>, name: &[u8], meta: &Meta, keeps_owners: bool) -> rustix::io::Result<()> {
    if keeps_owners {
        rustix::fs::chownat(
            folder,
            name,
            Some(Uid::from_raw(meta.uid)),
            Some(Gid::from_raw(meta.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    rustix::fs::utimensat(folder, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(meta: &Meta) -> Timestamps {
    let (tv_sec, nanoseconds) = meta.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

enum CopyFault {
    Read(io::Error),
    Write(io::Error),
}

fn copy_through(buffer: &mut [u8], content: &mut dyn Read, file: &mut File) -> std::result::Result<(), CopyFault> {
    loop {
        match content.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&buffer[..count]).map_err(CopyFault::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyFault::Read(error)),
        }
    }
}

/// Removes a file, link or folder with all in it. The depth is bounded by the plan that made it.
fn remove_all(folder: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    for member in Dir::read_from(&inner)? {
        let member = member?;
        if !is_dots(member.file_name()) {
            remove_all(inner.as_fd(), member.file_name().to_bytes())?;
        }
    }
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Reads a small regular file of the tree as a process inside the image would find it: links are followed, but never out of it.
/// None when there is no such file, or it is no regular one.
pub(super) fn read_inside(root: &Path, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(os_error("open the folder", root))?;
    // NONBLOCK: what is there may be a FIFO that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let full = root.join(path);
    let file = match rustix::fs::openat2(&root_fd, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(os_error("open", full)(errno)),
    };
    if !file.metadata().map_err(super::error::io_error("look at", &full))?.is_file() {
        return Ok(None);
    }
    super::blobs::read_bounded(&mut &file, path, limit, &full).map(Some)
}
