//! Blobs on their way in: hashed while they stream, visible only when whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::error::{Error, Result, io_error};

/// How much is read at a time: 128 KiB, where reading and hashing cost more than the calls.
const CHUNK_BYTES: usize = 128 << 10;

/// Copies `reader` to a new file at `path`, synced, and says what it was. Fails beyond `limit` bytes.
pub(super) fn copy_hashed(reader: &mut dyn Read, path: &Path, what: &str, limit: u64) -> Result<(Digest, u64)> {
    let mut file = File::create_new(path).map_err(io_error("create", path))?;
    let copied = hash_to(reader, &mut file, what, limit, path)?;
    file.sync_all().map_err(io_error("sync", path))?;
    Ok(copied)
}

fn hash_to(reader: &mut dyn Read, file: &mut File, what: &str, limit: u64, path: &Path) -> Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total: u64 = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok((Digest::finish(hash), total)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Error::Io { operation: "read the blob for", path: path.into(), source });
            }
        };
        total += count as u64;
        if total > limit {
            return Err(Error::TooLarge { what: what.to_owned(), limit });
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(io_error("write", path))?;
    }
}

/// Copies a blob that should have this digest and, if known, this size.
pub(super) fn copy_verified(
    reader: &mut dyn Read,
    path: &Path,
    digest: &Digest,
    size: Option<u64>,
    limit: u64,
) -> Result<u64> {
    let (actual, bytes) =
        copy_hashed(reader, path, &format!("blob {digest}"), size.unwrap_or(limit).min(limit).saturating_add(1))?;
    if let Some(expected) = size
        && expected != bytes
    {
        return Err(Error::WrongSize { digest: *digest, expected, actual: bytes });
    }
    if bytes > limit {
        return Err(Error::TooLarge { what: format!("blob {digest}"), limit });
    }
    if actual != *digest {
        return Err(Error::WrongDigest { expected: *digest, actual });
    }
    Ok(bytes)
}

/// Reads at most `limit` bytes.
pub(super) fn read_bounded(reader: &mut dyn Read, what: &str, limit: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: what.to_owned(), limit });
    }
    Ok(bytes)
}

/// Makes renames in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync the folder", folder))
}

/// Replaces `path` by `bytes`: whole or not at all, also when the power fails.
pub(super) fn replace_file(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(temporary).map_err(io_error("create", temporary))?;
    file.write_all(bytes).map_err(io_error("write", temporary))?;
    file.sync_all().map_err(io_error("sync", temporary))?;
    fs::rename(temporary, path).map_err(io_error("replace", path))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}
