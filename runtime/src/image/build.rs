//! Makes a single-layer image in the store. Deterministic: the same files and config have the same digest, whoever builds and when.
//! The layer is stored uncompressed, so that the digest does not depend on the version of a compressor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use oci_spec::image::{
    Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, MediaType, Os, RootFsBuilder,
};
use serde_json::Value;
use tar::{EntryType, Header};

use super::blobs::copy_hashed;
use super::digest::Digest;
use super::docker::{descriptor, manifest};
use super::elf;
use super::error::{Error, Result, io_error};
use super::metadata::{self, this_architecture};
use super::rehearse::rehearse;
use super::store::{Store, check_name};

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of this machine; links are followed.
    File(PathBuf),
    /// No content: an empty folder.
    Folder,
    /// A symbolic link to this path.
    Link(PathBuf),
}

/// One file of the image to be. Folders above it come by themselves, with mode 0755. Everything belongs to root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Absolute path inside the image.
    pub path: PathBuf,
    /// Permission bits, such as 0o755. Of links ignored.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// How the image is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Words after it.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute path; empty for `/`.
    pub working_dir: String,
    /// `uid:gid` or empty for root.
    pub user: String,
    /// Such as `SIGTERM`; empty for the default.
    pub stop_signal: String,
    /// Such as `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// Free text by name.
    pub labels: BTreeMap<String, String>,
}

/// The program (first in the list) and what its dynamic linker needs (interpreter and libraries), at the same paths as here. A static
/// program is alone. The program's own path may be changed, that of the others may not.
pub fn executable_with_libraries(executable: &Path) -> Result<Vec<FileSpec>> {
    let file = |path: PathBuf| FileSpec { path: path.clone(), mode: 0o755, content: Content::File(path) };
    let executable = std::path::absolute(executable).map_err(io_error("find", executable))?;
    let companions = elf::companions(&executable)?;
    Ok(std::iter::once(executable).chain(companions).map(file).collect())
}

impl Store {
    /// Builds an image of one layer, stores it under `name` and says its digest.
    pub fn build(&self, name: &str, files: &[FileSpec], config: &BuildConfig) -> Result<Digest> {
        check_name(name)?;
        let staging = self.staging()?;
        let archive = staging.path().join("layer.tar");
        write_layer(&archive, files)?;
        let mut reader = File::open(&archive).map_err(io_error("open", &archive))?;
        let layer = staging.path().join("layer");
        let (layer_digest, layer_bytes) = copy_hashed(&mut reader, &layer, "the layer", self.limits().blob_bytes)?;
        let config = config_json(config, &layer_digest);
        let manifest = manifest(
            descriptor(MediaType::ImageConfig, &Digest::of(&config), config.len() as u64),
            vec![descriptor(MediaType::ImageLayer, &layer_digest, layer_bytes)],
        );
        let staged =
            [("config", &config), ("manifest", &manifest)].map(|(name, bytes)| (staging.path().join(name), bytes));
        let mut blobs = vec![(layer_digest, layer)];
        for (path, bytes) in staged {
            let (digest, _) = copy_hashed(&mut &bytes[..], &path, "metadata", self.limits().metadata_bytes)?;
            blobs.push((digest, path));
        }
        let digest = Digest::of(&manifest);
        // A file that changed while it was packed, or a path that no layer may have, shows here.
        let parsed = metadata::parse_manifest(digest, &manifest, self.limits())?;
        rehearse(&parsed, manifest.len() as u64, &config, self.limits(), |_| {
            let layer = staging.path().join("layer");
            File::open(&layer).map_err(io_error("open", layer))
        })?;
        self.publish_blobs(blobs)?;
        self.register(name, &digest)?;
        Ok(digest)
    }
}

fn config_json(config: &BuildConfig, layer: &Digest) -> Vec<u8> {
    let run = ConfigBuilder::default()
        .entrypoint(config.entrypoint.clone())
        .cmd(config.cmd.clone())
        .env(config.env.clone())
        .working_dir(if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() })
        .user(config.user.clone())
        .stop_signal(config.stop_signal.clone())
        .exposed_ports(config.exposed_ports.clone())
        .labels(config.labels.clone().into_iter().collect::<std::collections::HashMap<_, _>>())
        .build()
        .expect("no field of a config is required");
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(vec![layer.to_string()]).build();
    let image: ImageConfiguration = ImageConfigurationBuilder::default()
        .architecture(Arch::from(this_architecture()))
        .os(Os::Linux)
        .config(run)
        .rootfs(rootfs.expect("no field of a rootfs is required"))
        .build()
        .expect("no field of a configuration is required");
    let value = serde_json::to_value(&image).expect("a configuration is always JSON");
    serde_json::to_vec(&sorted(value)).expect("a value is always JSON")
}

/// oci-spec keeps ports and labels in hash maps, whose order changes from run to run; digests must not.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn write_layer(archive: &Path, files: &[FileSpec]) -> Result<()> {
    let writer = File::create_new(archive).map_err(io_error("create", archive))?;
    let mut builder = tar::Builder::new(io::BufWriter::new(writer));
    let mut members: BTreeMap<PathBuf, &FileSpec> = BTreeMap::new();
    let mut folders = BTreeSet::new();
    for file in files {
        let path = relative(&file.path)?;
        folders.extend(path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned));
        members.insert(path, file);
    }
    for folder in folders.iter().filter(|folder| !members.contains_key(*folder)) {
        append(&mut builder, folder, &mut header(EntryType::Directory, 0o755, 0), &mut io::empty(), archive)?;
    }
    for (path, file) in &members {
        append_file(&mut builder, path, file, archive)?;
    }
    let mut writer = builder.into_inner().map_err(io_error("write", archive))?;
    writer.flush().map_err(io_error("write", archive))
}

/// Below the image's root, without `.` and `..`.
fn relative(path: &Path) -> Result<PathBuf> {
    let refused = |why: &str| Error::CannotPack { path: path.to_owned(), why: why.to_owned() };
    let inside =
        path.strip_prefix("/").map_err(|_| refused("its path in the image is not absolute; begin it with /"))?;
    if inside.as_os_str().is_empty() || inside.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(refused("its path in the image has `..` or names the root; write it out"));
    }
    Ok(inside.to_owned())
}

fn append_file(builder: &mut tar::Builder<impl Write>, path: &Path, file: &FileSpec, archive: &Path) -> Result<()> {
    match &file.content {
        Content::Folder => {
            append(builder, path, &mut header(EntryType::Directory, file.mode, 0), &mut io::empty(), archive)
        }
        Content::Bytes(bytes) => append(
            builder,
            path,
            &mut header(EntryType::Regular, file.mode, bytes.len() as u64),
            &mut &bytes[..],
            archive,
        ),
        Content::File(source) => {
            let reader = File::open(source).map_err(io_error("open", source))?;
            let metadata = reader.metadata().map_err(io_error("look at", source))?;
            if !metadata.is_file() {
                return Err(Error::CannotPack {
                    path: source.clone(),
                    why: "it is not a file; name files one by one".to_owned(),
                });
            }
            append(
                builder,
                path,
                &mut header(EntryType::Regular, file.mode, metadata.len()),
                &mut reader.take(metadata.len()),
                archive,
            )
        }
        Content::Link(target) => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            builder.append_link(&mut header, path, target).map_err(io_error("write", archive))
        }
    }
}

fn append(
    builder: &mut tar::Builder<impl Write>,
    path: &Path,
    header: &mut Header,
    content: &mut dyn Read,
    archive: &Path,
) -> Result<()> {
    builder.append_data(header, path, content).map_err(io_error("pack to", archive))
}

/// Owner root, time 0.
fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}
