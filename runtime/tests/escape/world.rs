//! A runtime, perhaps a weakened one, and what its containers are to reach for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bellows_runtime::handle::{Error, Exit};
use bellows_runtime::launch::{ESCAPE, Weaken};
use bellows_runtime::{ContainerSpec, Runtime};
use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};

use crate::rows::{Row, Seen};
use crate::support::{self, Place};

pub struct World {
    place: Place,
    runtime: Runtime,
    missing: Vec<&'static str>,
    /// A process of this machine.
    victim: Child,
}

/// Whether this machine may be harmed.
pub fn in_machine() -> bool {
    std::env::var_os("BELLOWS_IN_VM").is_some()
}

impl World {
    /// `None`, said aloud, when not root.
    pub fn new(without: &[Weaken]) -> Option<Self> {
        let place = support::place()?;
        let program = place.image().join("bin/escape");
        support::put(&program, ESCAPE);
        let setuid = place.image().join("bin/setuid");
        support::put(&setuid, ESCAPE);
        fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).expect("a setuid program");
        node(&place.image(), "srv/fuse", (10, 229));
        links(&place);
        let missing: Vec<&str> = without.iter().map(|weaken| weaken.name()).collect();
        let args: Vec<&str> = if missing.is_empty() { Vec::new() } else { [&["weakened"], &missing[..]].concat() };
        let runtime = place.start_with_launcher(&args);
        let victim = Command::new(place.image().join("bin/payload")).arg("sleep").spawn().expect("a victim");
        Some(Self { place, runtime, missing, victim })
    }

    pub fn what_is_missing(&self) -> String {
        if self.missing.is_empty() { "as it is".to_owned() } else { format!("without {}", self.missing.join(", ")) }
    }

    /// One container whose only program tries it.
    pub fn inside(&self, row: &Row) -> Seen {
        let mut spec = self.spec(row);
        (row.change)(&mut spec);
        let seen = match self.runtime.launch(&spec) {
            Ok(_) => seen(self.runtime.reap(&spec.id).expect("reaped").exit),
            Err(Error::Step { failure, .. }) => return Seen::NotStarted(failure.errno.unwrap_or(0)),
            Err(error) => panic!("{}: {error:?}", row.name),
        };
        self.runtime.forget(&spec.id).expect("forgotten");
        seen
    }

    fn spec(&self, row: &Row) -> ContainerSpec {
        let words = self.words(row);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.place.spec(&row.name.replace('_', "-"), &[&["/bin/escape"], &words[..]].concat())
    }

    fn words(&self, row: &Row) -> Vec<String> {
        let disk = fs::read_to_string("/sys/block/vda/dev").unwrap_or_default();
        let major = disk.split(':').next().unwrap_or_default();
        let fill = |word: &&str| word.replace("VICTIM", &self.victim.id().to_string()).replace("DISK", major);
        row.words.iter().map(fill).collect()
    }

    /// No container at all.
    pub fn outside(&self, row: &Row) -> Seen {
        let program = self.place.image().join("bin/escape");
        let done = Command::new(program).args(self.words(row)).stdin(Stdio::null()).status().expect("it runs");
        match done.code() {
            Some(code) => seen(Exit::Code(code)),
            None => seen(Exit::Signal(std::os::unix::process::ExitStatusExt::signal(&done).unwrap_or(0))),
        }
    }

    pub fn end(mut self) {
        self.victim.kill().expect("the victim is ours");
        self.victim.wait().expect("and ends");
        self.runtime.shutdown().expect("shut down");
        self.place.assert_clean();
    }
}

/// A device that anybody may open: only the list of devices stands in between.
fn node(image: &Path, name: &str, (major, minor): (u32, u32)) {
    let (path, mode) = (image.join(name), Mode::from_raw_mode(0o666));
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
    mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)).expect("a node");
    chmod(&path, mode).expect("everybody's");
}

/// An image with links where something is mounted or written, out of its root: to places that a launcher has.
fn links(place: &Place) {
    let image = place.image().with_file_name("links");
    support::put(&image.join("bin/escape"), ESCAPE);
    node(&image, "dev/null", (1, 3));
    for folder in ["dev/pts", "dev/mqueue", "sys"] {
        fs::create_dir_all(image.join(folder)).expect("a folder");
    }
    for (name, to) in [("proc", "/image"), ("etc", "/writable")] {
        symlink(to, image.join(name)).expect("a link");
    }
}

/// What the program's end says.
pub fn seen(exit: Exit) -> Seen {
    match exit {
        Exit::Code(0) => Seen::Got,
        Exit::Code(200) => Seen::Nothing,
        Exit::Code(errno) => Seen::Refused(errno),
        Exit::Signal(signal) => Seen::Killed(signal),
        Exit::OutOfMemory => Seen::OutOfMemory,
        Exit::Unknown => panic!("nobody knows how it ended"),
    }
}
