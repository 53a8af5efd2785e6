//! The first file system of a kernel: a cpio archive in the form `newc`, made in memory.
//!
//! An entry is a header of 110 bytes (`070701` and 13 numbers of 8 hexadecimal digits), the name with a zero, padding to 4 bytes, the
//! content, padding to 4 bytes; the last one is called `TRAILER!!!` (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources).

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// The kernel reads archives in blocks; other readers expect whole ones.
const BLOCK_BYTES: usize = 512;

/// An archive that grows. Folders above an entry are made when they are missing.
#[derive(Debug, Clone, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

/// A header's numbers that differ between entries.
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl Initramfs {
    /// With `/dev/console`, without which the first process has no output.
    pub fn new() -> Self {
        Self::default().device("dev/console", 0o600, 5, 1)
    }

    /// A folder, with mode 0755 those above it that are missing.
    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.push(&Entry { name: path, mode: FOLDER | mode, device: (0, 0), content: &[] });
        }
        self
    }

    /// A file. Its content must be below 4 GiB: the form has no room for more.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.parents(path);
        self.push(&Entry { name: path, mode: FILE | mode, device: (0, 0), content });
        self
    }

    /// A symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.parents(path);
        self.push(&Entry { name: path, mode: LINK | 0o777, device: (0, 0), content: target.as_bytes() });
        self
    }

    /// A character device.
    pub fn device(mut self, path: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.parents(path);
        self.push(&Entry { name: path, mode: CHARACTER_DEVICE | mode, device: (major, minor), content: &[] });
        self
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.push(&Entry { name: "TRAILER!!!", mode: 0, device: (0, 0), content: &[] });
        self.pad(BLOCK_BYTES);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.push(&Entry { name: folder, mode: FOLDER | 0o755, device: (0, 0), content: &[] });
            }
        }
    }

    fn push(&mut self, entry: &Entry<'_>) {
        self.inode += 1;
        let bytes = u32::try_from(entry.content.len()).expect("contents below 4 GiB, as documented");
        let name = u32::try_from(entry.name.len() + 1).expect("names are short");
        let (major, minor) = entry.device;
        // Inode, mode, owner, group, links, time, size, device of the file system (2), device (2), length of the name, checksum.
        let numbers = [self.inode, entry.mode, 0, 0, 1, 0, bytes, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(entry.name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(entry.content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let sample = Initramfs::new().file("init", 0o755, b"program").folder("proc", 0o555).link("bin/sh", "busybox");
        sample.file("usr/lib/deep/file", 0o640, &[7; 1001]).file("usr/lib/other", 0o600, b"").finish()
    }

    #[test]
    fn entries_are_aligned_and_the_trailer_ends_them() {
        let bytes = sample();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let mut names = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "at {at}");
            let number = |index: usize| {
                let from = at + 6 + 8 * index;
                let digits = std::str::from_utf8(&bytes[from..from + 8]).expect("text");
                usize::from_str_radix(digits, 16).expect("a number")
            };
            let (size, name) = (number(6), number(11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).expect("text"));
            at = ((at + 110 + name).next_multiple_of(4) + size).next_multiple_of(4);
            if names.last().is_some_and(|name| name == "TRAILER!!!") {
                break;
            }
        }
        let expected = [
            "dev",
            "dev/console",
            "init",
            "proc",
            "bin",
            "bin/sh",
            "usr",
            "usr/lib",
            "usr/lib/deep",
            "usr/lib/deep/file",
            "usr/lib/other",
        ];
        assert_eq!(names[..names.len() - 1], expected);
        assert!(bytes[at..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn cpio_reads_it() {
        let Ok(mut cpio) =
            Command::new("cpio").args(["-itv", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            println!("skipped: cpio is not installed");
            return;
        };
        cpio.stdin.take().expect("stdin is piped").write_all(&sample()).expect("it reads to the end");
        let output = cpio.wait_with_output().expect("it ends");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{said}");
        for line in ["crw-------", "-rwxr-xr-x", "dr-xr-xr-x", "bin/sh -> busybox", "1001", "usr/lib/deep/file"] {
            assert!(said.contains(line), "no {line} in\n{said}");
        }
        assert_eq!(said.lines().count(), 11, "{said}");
    }
}
