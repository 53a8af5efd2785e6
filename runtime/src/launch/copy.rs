//! Files in and out of a container as a tar archive, by a process that has entered it: every path, and every link that the app puts in its way, is
//! followed where it leads for the app itself, which is never out of the container.
//!
//! What comes in is unpacked into a folder of its own beside its place, and moved there when all of it has come: nothing half-written is ever in the
//! place of a file. Deliberately not copied: devices, pipes and sockets; and file systems below a folder that goes out, `/proc` first of all.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

/// Who owns what comes in.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What went wrong, at which path.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The path does not exist.
    #[error("there is no {0} in the replica")]
    Missing(PathBuf),
    /// A folder was meant.
    #[error("{0} is no folder in the replica")]
    NotAFolder(PathBuf),
    /// A file cannot take the place of a folder, nor a folder that of a file.
    #[error("{0} is {1} in the replica already, and what comes is not")]
    OtherKind(PathBuf, &'static str),
    /// Not a file, folder or link.
    #[error("{0} is a device, pipe or socket: only files, folders and links are copied")]
    Special(PathBuf),
    /// An entry that would lead out of its folder.
    #[error("the archive holds {0:?}, which is not below its top folder")]
    Stray(PathBuf),
    /// Nothing came.
    #[error("the archive is empty")]
    Empty,
    /// It broke off, or is none.
    #[error("the archive broke off, or is damaged: {0}")]
    Damaged(io::Error),
    /// The writable layer is full.
    #[error("{0} does not fit: the replica's writable layer is full; its app's `resources.scratch` bounds it")]
    Full(PathBuf),
    /// Anything else.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// Doing what.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CopyError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CopyError::Full(path.to_owned()),
        _ => CopyError::File { what, path: path.to_owned(), source },
    }
}

/// What is at `path` itself; nothing where nothing is.
fn look(path: &Path) -> Result<Option<Metadata>, CopyError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// Writes what is at `path` as an archive whose only top entry has its name; of `/`, a folder named `root`.
pub fn pack(path: &Path, out: impl Write) -> Result<(), CopyError> {
    let found = look(path)?.ok_or_else(|| CopyError::Missing(path.to_owned()))?;
    let mut archive = Builder::new(out);
    let name = path.file_name().map_or_else(|| PathBuf::from("root"), PathBuf::from);
    add(&mut archive, path, &name, &found, found.dev())?;
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed("send", path))
}

fn add(
    archive: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    found: &Metadata,
    device: u64,
) -> Result<(), CopyError> {
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    let send = failed("send", path);
    if found.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, name, io::empty()).map_err(send)?;
        return add_all_in(archive, path, name, device);
    }
    if found.is_symlink() {
        let target = fs::read_link(path).map_err(failed("read the link", path))?;
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        return archive.append_link(&mut header, name, target).map_err(send);
    }
    if !found.is_file() {
        // What was asked for by name is told; among others it is left out.
        return if name.components().count() == 1 { Err(CopyError::Special(path.to_owned())) } else { Ok(()) };
    }
    let file = File::open(path).map_err(failed("open", path))?;
    // A file that shrinks meanwhile is filled up: the archive has promised so many bytes.
    let content = file.chain(io::repeat(0)).take(found.len());
    archive.append_data(&mut header, name, content).map_err(send)
}

fn add_all_in(archive: &mut Builder<impl Write>, path: &Path, name: &Path, device: u64) -> Result<(), CopyError> {
    let entries = fs::read_dir(path).map_err(failed("list", path))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for below in names {
        let (inner, inner_name) = (path.join(&below), name.join(&below));
        match look(&inner)? {
            Some(found) if !found.is_dir() || found.dev() == device => {
                add(archive, &inner, &inner_name, &found, device)?;
            }
            // Another file system, or gone meanwhile.
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Where what comes in goes: the folder, and its name there where another one is wanted.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    name: Option<PathBuf>,
}

/// An existing folder takes what comes under its own name; else the path's last part becomes its name.
fn place(path: &Path, must_be_folder: bool) -> Result<Place, CopyError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(Place { folder: path.to_owned(), name: None }),
        Ok(_) if must_be_folder => return Err(CopyError::NotAFolder(path.to_owned())),
        Err(_) if must_be_folder => return Err(CopyError::Missing(path.to_owned())),
        _ => {}
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            Ok(Place { folder: folder.to_owned(), name: path.file_name().map(PathBuf::from) })
        }
        Ok(_) => Err(CopyError::NotAFolder(folder.to_owned())),
        Err(_) => Err(CopyError::Missing(folder.to_owned())),
    }
}

/// The folder of its own in which whoever has this number unpacks.
fn staging(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!(".bellows-cp-{number}"))
}

/// Unpacks an archive with one top entry at `path`.
pub fn unpack(path: &Path, must_be_folder: bool, number: u32, owner: Owner, from: impl Read) -> Result<(), CopyError> {
    let place = place(path, must_be_folder)?;
    let staging = staging(&place.folder, number);
    fs::create_dir(&staging).map_err(failed("make a folder in", &place.folder))?;
    let done = unpack_into(&staging, owner, from).and_then(|top| {
        let target = place.folder.join(place.name.as_ref().unwrap_or(&top));
        put(&staging.join(&top), &target)
    });
    let cleaned = fs::remove_dir_all(&staging).map_err(failed("remove", &staging));
    done.and(cleaned)
}

/// After whoever unpacked was killed.
pub fn clean(path: &Path, must_be_folder: bool, number: u32) {
    if let Ok(place) = place(path, must_be_folder) {
        // Mostly it is gone already.
        let _ = fs::remove_dir_all(staging(&place.folder, number));
    }
}

/// The name of the top entry.
fn unpack_into(staging: &Path, owner: Owner, from: impl Read) -> Result<PathBuf, CopyError> {
    let mut archive = Archive::new(from);
    let mut top: Option<PathBuf> = None;
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(CopyError::Damaged)? {
        let mut entry = entry.map_err(CopyError::Damaged)?;
        let name = entry.path().map_err(CopyError::Damaged)?.into_owned();
        let first = inside(&name)?;
        if top.get_or_insert_with(|| first.clone()) != &first {
            return Err(CopyError::Stray(name));
        }
        let path = staging.join(&name);
        let mode = entry.header().mode().map_err(CopyError::Damaged)? & 0o7777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir(&path).map_err(failed("make the folder", &name))?;
                folders.push((path, mode));
                continue;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(CopyError::Damaged)?.ok_or(CopyError::Empty)?;
                symlink(&target, &path).map_err(failed("make the link", &name))?;
                lchown(&path, Some(owner.uid), Some(owner.gid)).map_err(failed("give away", &name))?;
                continue;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            _ => return Err(CopyError::Special(name)),
        }
        write(&mut entry, &path, &name)?;
        give(&path, &name, owner, mode)?;
    }
    // Afterwards, as a folder that cannot be written would take nothing.
    for (path, mode) in folders.iter().rev() {
        give(path, path, owner, *mode)?;
    }
    top.ok_or(CopyError::Empty)
}

fn write(content: &mut impl Read, path: &Path, name: &Path) -> Result<(), CopyError> {
    let mut file = File::create_new(path).map_err(failed("make", name))?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = match content.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) => return Err(CopyError::Damaged(error)),
        };
        file.write_all(&piece[..length]).map_err(failed("write", name))?;
    }
}

/// Owner first: a change of it takes away the bits that make a program run as its owner.
fn give(path: &Path, name: &Path, owner: Owner, mode: u32) -> Result<(), CopyError> {
    chown(path, Some(owner.uid), Some(owner.gid)).map_err(failed("give away", name))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", name))
}

/// The first part of a path that stays below its folder.
fn inside(name: &Path) -> Result<PathBuf, CopyError> {
    let stray = || CopyError::Stray(name.to_owned());
    let mut parts = name.components();
    let first = match parts.next() {
        Some(Component::Normal(first)) => PathBuf::from(first),
        _ => return Err(stray()),
    };
    if parts.all(|part| matches!(part, Component::Normal(_))) { Ok(first) } else { Err(stray()) }
}

/// Moves what was unpacked to its place: whole where nothing is or a file is replaced by one, file by file where a folder is.
fn put(from: &Path, to: &Path) -> Result<(), CopyError> {
    let comes = look(from)?.ok_or_else(|| CopyError::Missing(from.to_owned()))?;
    match look(to)? {
        Some(found) if found.is_dir() && comes.is_dir() => {
            for entry in fs::read_dir(from).map_err(failed("list", from))? {
                let name = entry.map_err(failed("list", from))?.file_name();
                put(&from.join(&name), &to.join(&name))?;
            }
            Ok(())
        }
        Some(found) if found.is_dir() => Err(CopyError::OtherKind(to.to_owned(), "a folder")),
        Some(_) if comes.is_dir() => Err(CopyError::OtherKind(to.to_owned(), "no folder")),
        _ => fs::rename(from, to).map_err(failed("put in place", to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
    }

    fn packed(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(path, &mut bytes).expect("packed");
        bytes
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("from/sub")).expect("made");
        fs::write(dir.path().join("from/a"), "alpha").expect("written");
        fs::write(dir.path().join("from/sub/b"), "beta").expect("written");
        symlink("a", dir.path().join("from/link")).expect("made");
        fs::create_dir(dir.path().join("to")).expect("made");
        dir
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .expect("a folder")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_goes_and_comes() {
        let dir = tree();
        let bytes = packed(&dir.path().join("from"));
        unpack(&dir.path().join("to"), false, 1, owner(), &bytes[..]).expect("unpacked");
        assert_eq!(names(&dir.path().join("to")), ["from"]);
        assert_eq!(names(&dir.path().join("to/from")), ["a", "link", "sub"]);
        assert_eq!(fs::read_to_string(dir.path().join("to/from/sub/b")).expect("text"), "beta");
        assert_eq!(fs::read_link(dir.path().join("to/from/link")).expect("a link"), Path::new("a"));
        // Under another name, and then into what is there.
        unpack(&dir.path().join("new"), false, 1, owner(), &bytes[..]).expect("unpacked");
        assert_eq!(names(&dir.path().join("new")), ["a", "link", "sub"]);
        fs::write(dir.path().join("to/from/c"), "stays").expect("written");
        fs::write(dir.path().join("to/from/a"), "old").expect("written");
        unpack(&dir.path().join("to"), true, 1, owner(), &bytes[..]).expect("unpacked");
        assert_eq!(names(&dir.path().join("to/from")), ["a", "c", "link", "sub"]);
        assert_eq!(fs::read_to_string(dir.path().join("to/from/a")).expect("text"), "alpha");
    }

    #[test]
    fn what_breaks_off_leaves_what_was_there() {
        let dir = tree();
        fs::write(dir.path().join("to/a"), "old").expect("written");
        let big = dir.path().join("a");
        fs::write(&big, vec![7; 100_000]).expect("written");
        let bytes = packed(&big);
        let broken = unpack(&dir.path().join("to"), false, 1, owner(), &bytes[..50_000]);
        assert!(matches!(broken, Err(CopyError::Damaged(_))), "{broken:?}");
        assert_eq!(names(&dir.path().join("to")), ["a"]);
        assert_eq!(fs::read_to_string(dir.path().join("to/a")).expect("text"), "old");
        assert!(matches!(unpack(&dir.path().join("to"), false, 1, owner(), &[][..]), Err(CopyError::Empty)));
        // Killed in the midst of it, and cleaned up by somebody else.
        fs::create_dir(dir.path().join("to/.bellows-cp-9")).expect("made");
        clean(&dir.path().join("to"), false, 9);
        assert_eq!(names(&dir.path().join("to")), ["a"]);
    }

    #[test]
    fn each_mistake_has_its_words() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        let (folder, file) = (packed(&at("from")), packed(&at("from/a")));
        let told =
            |path: &Path, must, bytes: &[u8]| unpack(path, must, 1, owner(), bytes).expect_err("a mistake").to_string();
        assert!(told(&at("none/x"), false, &file).contains("there is no"), "no parent");
        assert!(told(&at("from/a"), true, &file).contains("is no folder"), "a folder was meant");
        assert!(
            told(&at("from/a"), false, &folder).contains("is no folder in the replica already"),
            "a folder on a file"
        );
        fs::create_dir(at("to/a")).expect("made");
        assert!(told(&at("to"), false, &file).contains("is a folder in the replica already"), "a file on a folder");
        let missing = pack(&at("none"), io::sink()).expect_err("nothing there").to_string();
        assert!(missing.contains("there is no"), "{missing}");
        assert!(matches!(pack(Path::new("/dev/null"), io::sink()), Err(CopyError::Special(_))));
    }

    #[test]
    fn archives_cannot_lead_out() {
        let dir = tree();
        for name in ["../x", "/x", "top/../../x"] {
            let mut archive = Builder::new(Vec::new());
            let mut header = Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"x"[..]).expect("added");
            let bytes = archive.into_inner().expect("written");
            let stray = unpack(&dir.path().join("to"), false, 1, owner(), &bytes[..]);
            assert!(matches!(stray, Err(CopyError::Stray(_))), "{name}: {stray:?}");
        }
        assert_eq!(names(&dir.path().join("to")), [""; 0]);
    }

    /// A link in the archive and then a file behind it: the link is met as a link.
    #[test]
    fn a_link_in_the_archive_is_not_followed() {
        let dir = tree();
        let mut archive = Builder::new(Vec::new());
        let mut folder = Header::new_gnu();
        folder.set_entry_type(EntryType::Directory);
        folder.set_size(0);
        folder.set_mode(0o755);
        archive.append_data(&mut folder, "top", io::empty()).expect("added");
        let mut link = Header::new_gnu();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "top/out", dir.path().join("from")).expect("added");
        let mut file = Header::new_gnu();
        file.set_size(4);
        file.set_mode(0o644);
        archive.append_data(&mut file, "top/out", &b"evil"[..]).expect("added");
        let bytes = archive.into_inner().expect("written");
        assert!(unpack(&dir.path().join("to"), false, 1, owner(), &bytes[..]).is_err());
        assert_eq!(names(&dir.path().join("from")), ["a", "link", "sub"]);
    }
}
