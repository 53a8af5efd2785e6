//! Layers and layouts written by hand, so that a test can make what no honest tool would.
#![allow(dead_code, reason = "each test program uses its part")]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bellows_runtime::image::{Digest, Limits, Store};
use tar::EntryType;
use tempfile::TempDir;

pub type Outcome = Result<(), Box<dyn Error>>;

/// A layer's archive, member by member.
#[derive(Clone, Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    /// Any member at all: the name may hold anything, the size may lie.
    pub fn raw(mut self, name: &[u8], kind: u8, mode: u32, link: &[u8], size: u64, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header.set_cksum();
        self.push(header.as_bytes(), content);
        self
    }

    pub fn push(&mut self, header: &[u8], content: &[u8]) {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(content);
        let padding = content.len().next_multiple_of(512) - content.len();
        self.bytes.extend(std::iter::repeat_n(0, padding));
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(name.as_bytes(), b'0', 0o644, b"", content.len() as u64, content)
    }

    pub fn folder(self, name: &str, mode: u32) -> Self {
        self.raw(name.as_bytes(), b'5', mode, b"", 0, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', 0o777, target.as_bytes(), 0, b"")
    }

    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', 0o644, target.as_bytes(), 0, b"")
    }

    /// PAX records for the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(b"PaxHeaders/x", b'x', 0o644, b"", body.len() as u64, &body)
    }

    /// A GNU long name for the next member.
    pub fn long_name(mut self, name: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").expect("a short name fits");
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(name.len() as u64);
        header.set_cksum();
        self.push(header.as_bytes(), name);
        self
    }

    /// A GNU sparse file with one byte of content at its end.
    pub fn sparse(mut self, name: &str, real_bytes: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).expect("a short name fits");
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(1);
        let gnu = header.as_gnu_mut().expect("made as one");
        gnu.sparse[0].offset = octal(real_bytes - 1);
        gnu.sparse[0].numbytes = octal(1);
        gnu.realsize = octal(real_bytes);
        header.set_cksum();
        self.push(header.as_bytes(), b"x");
        self
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

fn octal(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[..11].copy_from_slice(format!("{number:011o}").as_bytes());
    field
}

/// How a layer is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Plain,
    Gzip,
    Zstd,
}

impl Stored {
    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub fn encode(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => archive.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(archive).expect("memory takes all");
                encoder.finish().expect("memory takes all")
            }
            Self::Zstd => zstd::encode_all(archive, 3).expect("memory takes all"),
        }
    }
}

/// The blobs of an image: manifest first.
pub struct Blobs {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Blobs {
    pub fn new(layers: &[Vec<u8>], stored: Stored) -> Self {
        Self::with_config(layers, stored, serde_json::json!({ "Cmd": ["/bin/app"] }))
    }

    pub fn with_config(layers: &[Vec<u8>], stored: Stored, run: serde_json::Value) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = serde_json::json!({
            "architecture": architecture(), "os": "linux", "config": run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| stored.encode(layer)).collect();
        let described: Vec<_> = layers.iter().map(|layer| descriptor(stored.media_type(), layer)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": described,
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layers }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn all(&self) -> impl Iterator<Item = &Vec<u8>> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }

    /// Writes an OCI layout.
    pub fn write_layout(&self, folder: &Path, tag: &str) -> Outcome {
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut image = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        image["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": tag });
        fs::write(
            folder.join("index.json"),
            serde_json::json!({ "schemaVersion": 2, "manifests": [image] }).to_string(),
        )?;
        for blob in self.all() {
            fs::write(blob_in(folder, blob), blob)?;
        }
        Ok(())
    }

    /// Sends all blobs to a store, as another node would.
    pub fn put(&self, store: &Store) -> Result<Digest, bellows_runtime::image::Error> {
        for blob in self.all() {
            store.put_blob(&Digest::of(blob), &mut &blob[..])?;
        }
        Ok(self.digest())
    }
}

pub fn blob_in(layout: &Path, blob: &[u8]) -> PathBuf {
    layout.join("blobs/sha256").join(Digest::of(blob).hex())
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    serde_json::json!({ "mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len() })
}

/// A store in a folder of its own, beside a file that nothing may touch.
pub struct Place {
    pub folder: TempDir,
    pub store: Store,
}

impl Place {
    pub fn new() -> Result<Self, Box<dyn Error>> {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Result<Self, Box<dyn Error>> {
        Self::in_folder(tempfile::tempdir()?, limits)
    }

    /// For tests that unpack hundreds of images: where there is a memory file system, each waits for no disk.
    pub fn in_memory() -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        Self::in_folder(folder, Limits::default())
    }

    fn in_folder(folder: TempDir, limits: Limits) -> Result<Self, Box<dyn Error>> {
        fs::write(folder.path().join("canary"), "alive")?;
        let store = Store::open_with(folder.path().join("store"), limits)?;
        Ok(Self { folder, store })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names in a folder of the store.
    pub fn names_in(&self, folder: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.store.folder().join(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Nothing is visible, nothing is left over, nothing outside was touched.
    pub fn assert_untouched(&self, title: &str) -> Outcome {
        assert_eq!(self.store.list()?, [], "{title}");
        for folder in ["trees", "tmp"] {
            assert_eq!(self.names_in(folder)?, [""; 0], "{title}: {folder}");
        }
        assert_eq!(fs::read_to_string(self.path("canary"))?, "alive", "{title}");
        let mut beside: Vec<_> = fs::read_dir(self.folder.path())?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        beside.sort();
        assert!(
            beside.iter().all(|name| ["canary", "layout", "store"].iter().any(|known| name == known)),
            "{title}: {beside:?}"
        );
        Ok(())
    }
}
