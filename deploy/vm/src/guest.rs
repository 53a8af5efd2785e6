//! A whole Linux in a machine: busybox, kernel modules, cgroup v2 and nothing else of control groups, a file system in memory at `/tmp`, and programs of
//! this machine at their own paths with the libraries they need. It runs one script.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Acceleration, Error, Initramfs, Machine, Missing, Said, kernel, modules, qemu};

/// What containers need of a kernel, where it is not built in; `brd` is the disk in memory.
const MODULES: [&str; 33] = [
    "overlay",
    "veth",
    "bridge",
    "dummy",
    "tun",
    "fuse",
    "inet_diag",
    "tcp_diag",
    "unix_diag",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_reject",
    "nft_reject_inet",
    "nft_redir",
    "nft_limit",
    "nft_log",
    "nft_fib",
    "nft_fib_inet",
    "nft_compat",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_mark",
    "xt_tcpudp",
    "ip_tables",
    "iptable_nat",
    "sch_fq_codel",
];
const DISK: &str = "brd";

const INIT: &str = include_str!("init.sh");
/// What [`INIT`] says last, before the exit code.
const END: &str = "the script has ended with ";

/// Makes the initramfs.
#[derive(Debug)]
pub struct Guest {
    qemu: PathBuf,
    kernel: PathBuf,
    initramfs: Initramfs,
    packed: BTreeSet<PathBuf>,
}

/// A script that ran to its end.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Everything that was said.
    pub said: Said,
}

/// Why something of this machine cannot be taken along.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Nothing can be made here.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file could not be read, or a tool not be used on it.
    #[error("cannot take {} along", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Guest {
    /// With the modules that containers need.
    pub fn new() -> Result<Self, PackError> {
        let (qemu, kernel) = (qemu()?, kernel()?);
        let busybox = fs::read(busybox().ok_or(Missing::Busybox)?).map_err(unreadable(Path::new("busybox")))?;
        let mut initramfs = Initramfs::new();
        for (folder, mode) in [
            ("mnt", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
            ("tmp", 0o755),
            ("root", 0o700),
            ("var/lib", 0o755),
            ("var/run", 0o755),
        ] {
            initramfs = initramfs.folder(folder, mode);
        }
        initramfs = initramfs.file("init", 0o755, INIT.as_bytes()).file("bin/busybox", 0o755, &busybox);
        initramfs = initramfs.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        initramfs = initramfs.file("etc/group", 0o644, b"root:x:0:\n");
        let guest = Self { qemu, kernel, initramfs, packed: BTreeSet::new() };
        guest.with_modules()
    }

    fn with_modules(mut self) -> Result<Self, PackError> {
        let folder = modules_of(&self.kernel).ok_or(Missing::Packages)?;
        let found = |wanted: &[&str]| modules::in_order(&folder, wanted).map_err(unreadable(&folder));
        let order = found(&MODULES)?;
        let names: String = order.iter().map(|(name, _)| format!("{name}\n")).collect();
        self.initramfs = self.initramfs.file("lib/m/order", 0o644, names.as_bytes());
        for (name, content) in order.iter().chain(&found(&[DISK])?) {
            self.initramfs = self.initramfs.file(&format!("lib/m/{name}.ko"), 0o644, content);
        }
        Ok(self)
    }

    /// A program at its own path, without what only debuggers read, and the libraries it names.
    pub fn program(mut self, path: &Path) -> Result<Self, PackError> {
        for library in libraries(path).map_err(unreadable(path))? {
            let content = fs::read(&library).map_err(unreadable(&library))?;
            self.pack(library, &content);
        }
        let content = stripped(path).map_err(unreadable(path))?;
        self.pack(path.to_owned(), &content);
        Ok(self)
    }

    /// A file.
    pub fn file(mut self, path: &Path, mode: u32, content: &[u8]) -> Self {
        if self.packed.insert(path.to_owned()) {
            self.initramfs = self.initramfs.file(&relative(path), mode, content);
        }
        self
    }

    fn pack(&mut self, path: PathBuf, content: &[u8]) {
        if self.packed.insert(path.clone()) {
            self.initramfs = std::mem::take(&mut self.initramfs).file(&relative(&path), 0o755, content);
        }
    }

    /// Boots it, runs `script` with busybox's shell as root, and waits until that has ended, at most `limit`.
    pub fn run(self, script: &str, limit: Duration) -> Result<Ran, Error> {
        let Self { qemu, kernel, initramfs, .. } = self;
        let initramfs = initramfs.file("run/script", 0o644, script.as_bytes()).finish();
        let acceleration = Acceleration::Software;
        let command_line = "cgroup_no_v1=all random.trust_cpu=on mitigations=off nokaslr tsc=reliable".to_owned();
        let machine = Machine { qemu, kernel, initramfs, acceleration, memory_mib: 1536, cpus: 2, command_line };
        let said = machine.run(END, limit)?;
        let last = said.console.last().map_or("", String::as_str);
        let code = last.rsplit(END).next().and_then(|code| code.trim().parse().ok()).unwrap_or(-1);
        Ok(Ran { code, said })
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> PackError {
    move |source| PackError::File { path: path.to_owned(), source }
}

fn relative(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// `X/lib/modules/VERSION` for `X/boot/vmlinuz-VERSION`.
fn modules_of(kernel: &Path) -> Option<PathBuf> {
    let version = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    let folder = kernel.parent()?.parent()?.join("lib/modules").join(version);
    folder.is_dir().then_some(folder)
}

/// One that needs no library.
fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from);
    places.into_iter().find(|path| path.is_file() && libraries(path).is_ok_and(|needed| needed.is_empty()))
}

/// What the loader says a program needs: lines with ` => /path (` or, for the loader itself, `/path (`.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&told.stdout);
    let paths = text.lines().filter_map(|line| {
        let path = line.rsplit("=> ").next()?.trim().split(" (").next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

/// As it is where there is no `strip`, only larger.
fn stripped(program: &Path) -> io::Result<Vec<u8>> {
    let small = tempfile::NamedTempFile::new()?;
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(small.path()).arg(program).status();
    let from = if done.is_ok_and(|status| status.success()) { small.path() } else { program };
    fs::read(from)
}
