//! This machine's side of a copy. What comes out of a replica was packed by what runs there, so it is trusted with nothing but its own folder: it is
//! unpacked into one beside its place, and moved there when all of it has come.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType};

use super::Sender;
use crate::failure::Failure;

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |error| Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

/// Is there something to copy?
pub fn check_source(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() || found.is_file() || found.is_symlink() => Ok(()),
        Ok(_) => Err(Failure::failed(format!(
            "{} is a device, pipe or socket: only files, folders and links are copied",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::not_found(format!("there is no {} here", path.display())))
        }
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// Packs what is at `path` as an archive whose top entry has its name.
pub fn pack(path: &Path, to: Sender) -> Result<(), Failure> {
    let name = match path.file_name() {
        Some(name) => PathBuf::from(name),
        // `.` and `..` have the name of the folder that they are.
        None => fs::canonicalize(path)
            .ok()
            .and_then(|whole| Some(whole.file_name()?.into()))
            .unwrap_or_else(|| "root".into()),
    };
    let mut archive = Builder::new(to);
    archive.follow_symlinks(false);
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let packed =
        if is_folder { archive.append_dir_all(&name, path) } else { archive.append_path_with_name(path, &name) };
    packed.and_then(|()| archive.into_inner()).and_then(Sender::finish).map_err(failed("send", path))
}

/// Where what comes goes.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    /// Its name there; its own where there is none.
    name: Option<PathBuf>,
}

impl Place {
    /// An existing folder takes what comes under its own name; else the path's last part becomes its name.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        if path.is_dir() {
            return Ok(Self { folder: path.to_owned(), name: None });
        }
        let folder = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => PathBuf::from("/"),
        };
        if !folder.is_dir() {
            return Err(
                Failure::not_found(format!("there is no folder {} here", folder.display())).mend("make it first")
            );
        }
        Ok(Self { folder, name: path.file_name().map(PathBuf::from) })
    }

    /// All of it, or nothing.
    pub fn unpack(self, from: impl Read) -> Result<(), Failure> {
        let staging = tempfile::Builder::new().prefix(".bellows-cp-").tempdir_in(&self.folder);
        let staging = staging.map_err(failed("make a folder in", &self.folder))?;
        let top = unpack_into(staging.path(), from)?;
        let target = self.folder.join(self.name.as_ref().unwrap_or(&top));
        put(&staging.path().join(&top), &target)
    }
}

/// The name of the top entry.
fn unpack_into(staging: &Path, from: impl Read) -> Result<PathBuf, Failure> {
    let damaged = |error: io::Error| Failure::failed(format!("what came is damaged, or broke off: {error}"));
    let mut archive = Archive::new(from);
    let mut top = None;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let kind = entry.header().entry_type();
        if !matches!(
            kind,
            EntryType::Directory
                | EntryType::Regular
                | EntryType::Symlink
                | EntryType::Continuous
                | EntryType::GNUSparse
        ) {
            return Err(Failure::failed(format!(
                "what came holds {}, which is no file, folder or link",
                name.display()
            )));
        }
        // Refuses what would lead out of the folder, by its name or by links that came before.
        if !entry.unpack_in(staging).map_err(failed("write", &name))? {
            return Err(Failure::failed(format!("what came holds {:?}, which leads out of its folder", name)));
        }
        top = top.or_else(|| name.components().next().map(|first| PathBuf::from(first.as_os_str())));
    }
    top.ok_or_else(|| Failure::failed("nothing came"))
}

fn put(from: &Path, to: &Path) -> Result<(), Failure> {
    let comes = fs::symlink_metadata(from).map_err(failed("find", from))?;
    match fs::symlink_metadata(to) {
        Ok(found) if found.is_dir() && comes.is_dir() => {
            for entry in fs::read_dir(from).map_err(failed("list", from))? {
                let name = entry.map_err(failed("list", from))?.file_name();
                put(&from.join(&name), &to.join(&name))?;
            }
            Ok(())
        }
        Ok(found) if found.is_dir() != comes.is_dir() => Err(Failure::failed(format!(
            "{} is {} here already, and what comes is not",
            to.display(),
            if found.is_dir() { "a folder" } else { "no folder" }
        ))),
        _ => fs::rename(from, to).map_err(failed("put in place", to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use tar::Header;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o4644 });
            match kind {
                EntryType::Symlink => {
                    header.set_size(0);
                    archive.append_link(&mut header, name, content).expect("added");
                }
                _ => {
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, name, content.as_bytes()).expect("added");
                }
            }
        }
        archive.into_inner().expect("written")
    }

    #[test]
    fn what_comes_is_put_in_place_whole() {
        let here = tempfile::tempdir().expect("a folder");
        let bytes = archive(&[("a", EntryType::Directory, ""), ("a/b", EntryType::Regular, "text")]);
        Place::of(here.path()).expect("a folder").unpack(&bytes[..]).expect("unpacked");
        Place::of(&here.path().join("c")).expect("a name").unpack(&bytes[..]).expect("unpacked");
        for path in ["a/b", "c/b"] {
            assert_eq!(fs::read_to_string(here.path().join(path)).expect("text"), "text");
        }
        let broken = Place::of(&here.path().join("d")).expect("a name").unpack(&bytes[..700]);
        assert!(broken.is_err());
        let mut names: Vec<_> = fs::read_dir(here.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "c"], "nothing is left of what broke off");
        assert!(Place::of(&here.path().join("none/x")).is_err());
    }

    /// As a hostile app would pack it.
    #[test]
    fn nothing_leads_out_of_its_folder() {
        let here = tempfile::tempdir().expect("a folder");
        fs::create_dir(here.path().join("outside")).expect("made");
        let outside = here.path().join("outside");
        let outside = outside.to_str().expect("text");
        let bytes = archive(&[
            ("a", EntryType::Directory, ""),
            ("a/link", EntryType::Symlink, outside),
            ("a/link/evil", EntryType::Regular, "evil"),
        ]);
        assert!(Place::of(&here.path().join("b")).expect("a name").unpack(&bytes[..]).is_err());
        assert_eq!(fs::read_dir(outside).expect("listed").count(), 0);
        let mut device = File::create(here.path().join("fifo.tar")).expect("made");
        device.write_all(&archive(&[("p", EntryType::Fifo, "")])).expect("written");
        let fifo = File::open(here.path().join("fifo.tar")).expect("it is there");
        assert!(Place::of(&here.path().join("b")).expect("a name").unpack(fifo).is_err());
    }
}
