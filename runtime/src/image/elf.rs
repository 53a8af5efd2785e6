//! What a dynamically linked program needs to start: its interpreter and libraries, found as the dynamic linker finds them.
//!
//! Deliberately absent: 32-bit and big-endian programs, `LD_LIBRARY_PATH`, libraries opened at run time (`dlopen`).

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::blobs::read_bounded;
use super::error::{Error, Result, io_error};

/// The largest program looked at: 2 GiB. A debug build of a large Rust program has about 0.3 GiB.
const PROGRAM_BYTES: u64 = 2 << 30;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Where dynamic linkers look without being told: Debian's folders by architecture, then those of others.
fn usual_folders() -> Vec<PathBuf> {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let debian = [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")];
    let others = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    debian.into_iter().map(PathBuf::from).chain(others.map(PathBuf::from)).collect()
}

/// What the dynamic section says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
    /// RUNPATH or RPATH, `$ORIGIN` resolved.
    folders: Vec<PathBuf>,
}

/// Interpreter and libraries, by the paths where they have to stand. Empty for a static program.
pub(super) fn companions(executable: &Path) -> Result<Vec<PathBuf>> {
    let program = needs_of(executable)?;
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut files: Vec<PathBuf> = program.interpreter.iter().map(PathBuf::from).collect();
    let mut open = VecDeque::from([(executable.to_owned(), program)]);
    let search = Search::new()?;
    while let Some((user, needs)) = open.pop_front() {
        for library in &needs.libraries {
            if found.contains_key(library) {
                continue;
            }
            let path = search.find(library, &needs.folders).ok_or_else(|| Error::CannotPack {
                path: user.clone(),
                why: format!("it needs the library {library}, which is in none of the usual folders; install it, or link statically"),
            })?;
            found.insert(library.clone(), path.clone());
            open.push_back((path.clone(), needs_of(&path)?));
            files.push(path);
        }
    }
    if files.iter().any(|file| search.needs_cache(file)) {
        files.push(PathBuf::from("/etc/ld.so.cache"));
    }
    files.sort();
    files.dedup();
    Ok(files)
}

struct Search {
    usual: Vec<PathBuf>,
    /// From `/etc/ld.so.conf.d`: the linker in the image finds these by the cache only.
    configured: Vec<PathBuf>,
}

impl Search {
    fn new() -> Result<Self> {
        let mut configured = Vec::new();
        let folder = Path::new("/etc/ld.so.conf.d");
        if folder.is_dir() {
            let entries = fs::read_dir(folder).map_err(io_error("list", folder))?;
            let mut paths = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<std::io::Result<Vec<_>>>()
                .map_err(io_error("list", folder))?;
            paths.sort();
            for path in paths {
                let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
                configured.extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
            }
        }
        Ok(Self { usual: usual_folders(), configured })
    }

    fn find(&self, library: &str, first: &[PathBuf]) -> Option<PathBuf> {
        if library.contains('/') {
            return Some(PathBuf::from(library)).filter(|path| path.is_file());
        }
        first
            .iter()
            .chain(&self.usual)
            .chain(&self.configured)
            .map(|folder| folder.join(library))
            .find(|path| path.is_file())
    }

    fn needs_cache(&self, file: &Path) -> bool {
        file.parent().is_some_and(|folder| {
            self.configured.iter().any(|other| other == folder) && !self.usual.iter().any(|other| other == folder)
        })
    }
}

fn needs_of(path: &Path) -> Result<Needs> {
    let mut file = fs::File::open(path).map_err(io_error("open the program", path))?;
    let bytes = read_bounded(&mut file, &path.display().to_string(), PROGRAM_BYTES, path)?;
    let origin = path.parent().unwrap_or(Path::new("/"));
    parse(&bytes, origin).map_err(|why| Error::CannotPack { path: path.to_owned(), why: why.to_owned() })
}

const CUT_OFF: &str = "it is cut off or damaged; build it again";

fn parse(bytes: &[u8], origin: &Path) -> std::result::Result<Needs, &'static str> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err("it is not an ELF program; name the program itself, not a script");
    }
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err("it is not a 64-bit little-endian program; only these can be packed");
    }
    let (table, size, count) = (word(bytes, 32)?, half(bytes, 54)?, half(bytes, 56)?);
    let headers = (0..count).map(|number| Segment::parse(bytes, table.checked_add(number * size).ok_or(CUT_OFF)?));
    let segments = headers.collect::<std::result::Result<Vec<_>, _>>()?;
    let mut needs = Needs::default();
    if let Some(interpreter) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        needs.interpreter = Some(text(bytes, interpreter.offset)?);
    }
    if let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) {
        read_dynamic(bytes, dynamic, &segments, origin, &mut needs)?;
    }
    Ok(needs)
}

fn read_dynamic(
    bytes: &[u8],
    dynamic: &Segment,
    segments: &[Segment],
    origin: &Path,
    needs: &mut Needs,
) -> std::result::Result<(), &'static str> {
    let mut tags = Vec::new();
    for at in (dynamic.offset..dynamic.offset.saturating_add(dynamic.bytes)).step_by(16) {
        let (tag, value) = (word(bytes, at)?, word(bytes, at + 8)?);
        if tag == DT_NULL {
            break;
        }
        tags.push((tag, value));
    }
    let Some((_, address)) = tags.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(()) };
    let texts = segments.iter().find_map(|segment| segment.to_offset(*address)).ok_or(CUT_OFF)?;
    for (tag, value) in tags {
        let at = texts.checked_add(value).ok_or(CUT_OFF);
        match tag {
            DT_NEEDED => needs.libraries.push(text(bytes, at?)?),
            DT_RPATH | DT_RUNPATH => needs.folders.extend(folders(&text(bytes, at?)?, origin)),
            _ => {}
        }
    }
    Ok(())
}

fn folders(list: &str, origin: &Path) -> Vec<PathBuf> {
    let origin = origin.display().to_string();
    let resolved = list.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
    resolved.split(':').filter(|folder| folder.starts_with('/')).map(PathBuf::from).collect()
}

/// A program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

impl Segment {
    fn parse(bytes: &[u8], at: u64) -> std::result::Result<Self, &'static str> {
        let kind = u32::from_le_bytes(field(bytes, at)?);
        let later = |by: u64| at.checked_add(by).ok_or(CUT_OFF).and_then(|at| word(bytes, at));
        Ok(Self { kind, offset: later(8)?, address: later(16)?, bytes: later(32)? })
    }

    /// Where in the file an address of memory comes from.
    fn to_offset(&self, address: u64) -> Option<u64> {
        let inside = address.checked_sub(self.address).filter(|inside| self.kind == PT_LOAD && *inside < self.bytes)?;
        self.offset.checked_add(inside)
    }
}

fn field<const N: usize>(bytes: &[u8], at: u64) -> std::result::Result<[u8; N], &'static str> {
    let at = usize::try_from(at).map_err(|_| CUT_OFF)?;
    let end = at.checked_add(N).ok_or(CUT_OFF)?;
    bytes.get(at..end).and_then(|slice| slice.try_into().ok()).ok_or(CUT_OFF)
}

fn word(bytes: &[u8], at: u64) -> std::result::Result<u64, &'static str> {
    field(bytes, at).map(u64::from_le_bytes)
}

fn half(bytes: &[u8], at: u64) -> std::result::Result<u64, &'static str> {
    field(bytes, at).map(u16::from_le_bytes).map(u64::from)
}

fn text(bytes: &[u8], at: u64) -> std::result::Result<String, &'static str> {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).ok_or(CUT_OFF)?;
    let end = rest.iter().position(|b| *b == 0).ok_or(CUT_OFF)?;
    String::from_utf8(rest[..end].to_vec()).map_err(|_| CUT_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_libc() {
        let program = std::env::current_exe().expect("a test knows its program");
        let files = companions(&program).expect("this program can be read");
        let names: Vec<&str> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        assert!(names.iter().any(|name| name.starts_with("libc.")), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-")), "{names:?}");
    }

    #[test]
    fn no_cut_off_program_panics() {
        let program = fs::read(std::env::current_exe().expect("a test knows its program")).expect("readable");
        for length in (0..2_000).chain([program.len() / 2]) {
            let _either = parse(&program[..length], Path::new("/"));
        }
        assert!(parse(b"#!/bin/sh", Path::new("/")).is_err());
    }
}
