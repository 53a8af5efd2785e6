//! Where an image comes from: a folder, or a tar archive (plain, gzip or zstd) that is read in place, not unpacked. Members are asked for
//! by name; nothing outside the folder or archive is ever opened.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::blobs::{copy_hashed, read_bounded};
use super::error::{Error, Result, io_error, os_error};
use super::limits::Limits;

/// Links from member to member, as `docker save` made them: one is usual.
const MAX_HOPS: usize = 8;

/// An image's files, wherever they are.
pub(super) struct Source {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Folder(OwnedFd),
    Archive { file: Rc<File>, members: BTreeMap<String, Member> },
}

enum Member {
    File { offset: u64, bytes: u64 },
    Link(String),
}

impl Source {
    /// Opens a folder or archive. A compressed archive is decompressed into `scratch` first.
    pub(super) fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(io_error("open the image", path))?;
        let kind = if metadata.is_dir() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Kind::Folder(rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(os_error("open the image", path))?)
        } else if metadata.is_file() {
            open_archive(path, scratch, limits)?
        } else {
            return Err(not_an_image(path, "it is neither a folder nor a file".to_owned()));
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn not_an_image(&self, why: String) -> Error {
        not_an_image(&self.path, why)
    }

    /// A member's content and size; none when there is no such member.
    pub(super) fn open_member(&self, name: &str) -> Result<Option<(Box<dyn Read>, u64)>> {
        match &self.kind {
            Kind::Folder(folder) => self.open_in_folder(folder, name),
            Kind::Archive { file, members } => Ok(find(members, name).map(|(offset, bytes)| {
                let section = Section { file: Rc::clone(file), at: offset, end: offset + bytes };
                (Box::new(section) as Box<dyn Read>, bytes)
            })),
        }
    }

    fn open_in_folder(&self, folder: &OwnedFd, name: &str) -> Result<Option<(Box<dyn Read>, u64)>> {
        let full = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::XDEV) => return Err(self.not_an_image(format!("{name} leads out of the folder"))),
            Err(errno) => return Err(os_error("open", full)(errno)),
        };
        let metadata = file.metadata().map_err(io_error("look at", &full))?;
        match metadata.is_file() {
            true => Ok(Some((Box::new(file), metadata.len()))),
            false => Err(self.not_an_image(format!("{name} is not a file"))),
        }
    }

    /// A member that must be there.
    pub(super) fn require(&self, name: &str) -> Result<(Box<dyn Read>, u64)> {
        self.open_member(name)?
            .ok_or_else(|| Error::MissingMember { source_path: self.path.clone(), member: name.to_owned() })
    }

    /// A small member, in memory.
    pub(super) fn read_member(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((mut reader, _)) = self.open_member(name)? else { return Ok(None) };
        read_bounded(&mut reader, name, limit, &self.path.join(name)).map(Some)
    }
}

fn not_an_image(path: &Path, why: String) -> Error {
    Error::NotAnImage { path: path.to_owned(), why }
}

fn open_archive(path: &Path, scratch: &Path, limits: &Limits) -> Result<Kind> {
    let file = File::open(path).map_err(io_error("open the image", path))?;
    let file = decompressed(file, path, scratch, limits)?;
    let members = index(&file, path, limits)?;
    Ok(Kind::Archive { file: Rc::new(file), members })
}

fn decompressed(file: File, path: &Path, scratch: &Path, limits: &Limits) -> Result<File> {
    let mut magic = [0; 4];
    let known = file.read_at(&mut magic, 0).map_err(io_error("read", path))?;
    let mut decoder: Box<dyn Read> = match &magic[..known] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file).map_err(io_error("decompress", path))?),
        _ => return Ok(file),
    };
    let plain = scratch.join("archive.tar");
    copy_hashed(&mut decoder, &plain, &format!("{}, decompressed,", path.display()), limits.unpacked_bytes)?;
    File::open(&plain).map_err(io_error("open", plain))
}

/// Finds all members. Content is skipped by seeking; only headers are read, and no more of them than is sane.
fn index(file: &File, path: &Path, limits: &Limits) -> Result<BTreeMap<String, Member>> {
    let no_archive = |error: io::Error| not_an_image(path, format!("it is no tar archive ({error})"));
    let left = Rc::new(Cell::new(limits.header_bytes));
    let reader = Headers { file: file.try_clone().map_err(io_error("open", path))?, left: Rc::clone(&left) };
    let length = file.metadata().map_err(io_error("look at", path))?.len();
    let mut archive = tar::Archive::new(reader);
    let mut members = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(no_archive)? {
        let entry = entry.map_err(no_archive)?;
        left.set(limits.header_bytes);
        if members.len() >= limits.archive_members {
            return Err(not_an_image(path, format!("it has more than {} members", limits.archive_members)));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()), "");
        let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let member = match (entry.header().entry_type(), target) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                let (offset, bytes) = (entry.raw_file_position(), entry.size());
                if offset.saturating_add(bytes) > length {
                    return Err(not_an_image(
                        path,
                        format!("it is cut off in `{name}`, after {length} bytes: save or copy it again"),
                    ));
                }
                Member::File { offset, bytes }
            }
            (EntryType::Symlink, Some(target)) => Member::Link(normal(&target, &name)),
            (EntryType::Link, Some(target)) => Member::Link(normal(&target, "")),
            _ => continue,
        };
        members.insert(name, member);
    }
    Ok(members)
}

/// Where a path leads from a member's folder, within the archive: `..` at its top stays there.
fn normal(path: &str, from: &str) -> String {
    let mut names: Vec<&str> = from.split('/').collect();
    names.pop();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    names.join("/")
}

fn find(members: &BTreeMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = name;
    for _ in 0..MAX_HOPS {
        match members.get(name)? {
            Member::File { offset, bytes } => return Some((*offset, *bytes)),
            Member::Link(target) => name = target,
        }
    }
    None
}

/// A part of a file. A file cut off in it ends early, which the size check of the blob notices.
struct Section {
    file: Rc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

struct Headers {
    file: File,
    left: Rc<Cell<u64>>,
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let left =
            self.left.get().checked_sub(count as u64).ok_or_else(|| io::Error::other("its headers are too long"))?;
        self.left.set(left);
        Ok(count)
    }
}

impl Seek for Headers {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (path, from, expected) in [
            ("./index.json", "", "index.json"),
            ("../abc.tar", "dir/layer.tar", "abc.tar"),
            ("../../../etc/passwd", "dir/layer.tar", "etc/passwd"),
            ("/etc/passwd", "", "etc/passwd"),
        ] {
            assert_eq!(normal(path, from), expected);
        }
    }
}
