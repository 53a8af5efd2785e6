//! From a layer's blob to its entries: decompressed, hashed, metered. What a decoder could be made to do without end (bytes, headers) stops
//! at the [`Limits`].

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::entry::{self, Action, Entry};
use super::error::{Error, Result};
use super::limits::Limits;
use super::metadata::{Encoding, LayerBlob};
use super::refusal::{Refusal, Rule};

/// How much is read at a time, in bytes: as for blobs.
const CHUNK_BYTES: usize = 128 << 10;

/// A tar archive is made of blocks of this many bytes.
const BLOCK_BYTES: u64 = 512;

/// What an image has used up so far, over all its layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Content of files.
    pub bytes: u64,
    /// Content of files of the present layer.
    layer_bytes: u64,
    /// Archive members.
    pub entries: u64,
}

/// Why a visitor stops.
pub(super) enum Stop {
    /// The entry breaks a rule; `decode` adds which entry and layer.
    Rule(Rule),
    /// The layer's content cannot be read.
    Unreadable(io::Error),
    /// Something else.
    Error(Error),
}

impl From<Rule> for Stop {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Sees each entry with its content (which it need not read) and its name as shown to people.
pub(super) type Visit<'a> = dyn FnMut(&Entry, &mut dyn Read, &str) -> std::result::Result<(), Stop> + 'a;

/// Goes through a layer to its end, and checks that its unpacked bytes have the digest that the config names.
pub(super) fn walk(
    blob: File,
    layer: &LayerBlob,
    diff_id: &Digest,
    limits: &Limits,
    used: &mut Used,
    visit: &mut Visit<'_>,
) -> Result<()> {
    used.layer_bytes = 0;
    let unreadable = |source| Error::UnreadableLayer { layer: layer.digest, expected: layer.encoding.name(), source };
    let meter = Rc::new(Meter::new(layer.bytes, used.bytes, limits));
    let metered = Metered {
        inner: decoder(blob, layer.encoding).map_err(unreadable)?,
        hash: Sha256::new(),
        meter: Rc::clone(&meter),
        given: 0,
    };
    let mut archive = tar::Archive::new(metered);
    let mut last = String::from("(the first)");
    let fault = |error: io::Error, last: &str| match meter.tripped.take() {
        Some(rule) => refused(layer, &format!("after {last}"), rule),
        None => unreadable(error),
    };
    for member in archive.entries().map_err(unreadable)? {
        let mut member = member.map_err(|error| fault(error, &last))?;
        last = member.path_bytes().escape_ascii().to_string();
        meter.within_entry();
        let result = one(&mut member, &last, limits, used, layer.bytes, visit);
        result.map_err(|stop| match (stop, meter.tripped.take()) {
            (_, Some(rule)) | (Stop::Rule(rule), None) => refused(layer, &last, rule),
            (Stop::Unreadable(source), None) => unreadable(source),
            (Stop::Error(error), None) => error,
        })?;
        meter.between_entries();
    }
    meter.within_entry();
    let mut metered = archive.into_inner();
    io::copy(&mut metered, &mut io::sink()).map_err(|error| fault(error, &last))?;
    match Digest::finish(metered.hash) {
        actual if actual == *diff_id => Ok(()),
        actual => Err(Error::WrongDiffId { layer: layer.digest, expected: diff_id.to_string(), actual }),
    }
}

fn refused(layer: &LayerBlob, entry: &str, rule: Rule) -> Error {
    Error::Refused(Box::new(Refusal { layer: layer.digest, entry: entry.to_owned(), rule }))
}

fn one<R: Read>(
    member: &mut tar::Entry<'_, R>,
    shown: &str,
    limits: &Limits,
    used: &mut Used,
    layer_bytes: u64,
    visit: &mut Visit<'_>,
) -> std::result::Result<(), Stop> {
    used.entries += 1;
    if used.entries > limits.inodes {
        return Err(Rule::TooManyInodes { limit: limits.inodes }.into());
    }
    let size = member.size();
    let Some(entry) = entry::read(member, limits)? else { return drain(member, 0, size) };
    if let Action::File { bytes } = entry.action {
        // Asked before reading: a sparse file may announce any size at no cost.
        used.take(bytes, layer_bytes, limits)?;
    }
    let mut counted = Counted { inner: member, count: 0 };
    visit(&entry, &mut counted, shown)?;
    let seen = counted.count;
    drain(counted.inner, seen, size)
}

/// Reads what the visitor left; an archive that ends before is a lie about sizes.
fn drain(reader: &mut impl Read, seen: u64, expected: u64) -> std::result::Result<(), Stop> {
    let rest = io::copy(reader, &mut io::sink()).map_err(Stop::Unreadable)?;
    match seen + rest {
        actual if actual == expected => Ok(()),
        actual => Err(Rule::SizeLie { expected, actual }.into()),
    }
}

impl Used {
    fn take(&mut self, more: u64, stored_bytes: u64, limits: &Limits) -> std::result::Result<(), Rule> {
        self.bytes = self.bytes.saturating_add(more);
        self.layer_bytes = self.layer_bytes.saturating_add(more);
        if self.bytes > limits.unpacked_bytes {
            return Err(Rule::TooManyBytes { limit: limits.unpacked_bytes });
        }
        if self.layer_bytes > limits.ratio_free_bytes.max(stored_bytes.saturating_mul(limits.ratio)) {
            return Err(Rule::Bomb { limit: limits.ratio });
        }
        Ok(())
    }
}

fn decoder(blob: File, encoding: Encoding) -> io::Result<Box<dyn Read>> {
    let blob = BufReader::with_capacity(CHUNK_BYTES, blob);
    Ok(match encoding {
        Encoding::Plain => Box::new(blob),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        // The window is bounded by the library's default, 128 MiB.
        Encoding::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
    })
}

/// Counts what comes out of the decoder. Shared with the loop that knows what is being read.
struct Meter {
    /// What may still be decoded in this layer.
    bytes_left: Cell<u64>,
    on_exhausted: Rule,
    /// What may still be read before the next entry.
    headers_left: Cell<u64>,
    headers_limit: u64,
    between_entries: Cell<bool>,
    tripped: RefCell<Option<Rule>>,
}

impl Meter {
    fn new(layer_bytes: u64, used_bytes: u64, limits: &Limits) -> Self {
        let by_size = limits.unpacked_bytes.saturating_sub(used_bytes).saturating_add(archive_overhead(limits));
        let by_ratio = limits.ratio_free_bytes.max(layer_bytes.saturating_mul(limits.ratio));
        let on_exhausted = match by_size < by_ratio {
            true => Rule::TooManyBytes { limit: limits.unpacked_bytes },
            false => Rule::Bomb { limit: limits.ratio },
        };
        Self {
            bytes_left: Cell::new(by_size.min(by_ratio)),
            on_exhausted,
            headers_left: Cell::new(limits.header_bytes),
            headers_limit: limits.header_bytes,
            between_entries: Cell::new(true),
            tripped: RefCell::new(None),
        }
    }

    fn between_entries(&self) {
        self.headers_left.set(self.headers_limit);
        self.between_entries.set(true);
    }

    fn within_entry(&self) {
        self.headers_left.set(u64::MAX);
        self.between_entries.set(false);
    }

    fn count(&self, bytes: u64) -> io::Result<()> {
        self.take(&self.headers_left, bytes, || Rule::HeaderTooLarge { limit: self.headers_limit })?;
        self.take(&self.bytes_left, bytes, || self.on_exhausted.clone())
    }

    fn take(&self, left: &Cell<u64>, bytes: u64, rule: impl Fn() -> Rule) -> io::Result<()> {
        match left.get().checked_sub(bytes) {
            Some(rest) => left.set(rest),
            None => {
                self.tripped.replace(Some(rule()));
                return Err(io::Error::other("a limit is reached"));
            }
        }
        Ok(())
    }
}

/// Headers and padding that the entries allowed may have beside their content: 3 blocks of 512 bytes each (header, long name, padding).
fn archive_overhead(limits: &Limits) -> u64 {
    limits.inodes.saturating_mul(3 * BLOCK_BYTES)
}

struct Metered {
    inner: Box<dyn Read>,
    hash: Sha256,
    meter: Rc<Meter>,
    given: u64,
}

impl Metered {
    /// `umoci insert` ends its layers without the padding of the last file, and Go's reader, which everybody tests with, does not mind.
    /// So a block that ends early *between* entries is filled up; one that ends within a file's content is not.
    fn fill_last_block(&mut self, buffer: &mut [u8]) -> usize {
        let missing = usize::try_from(self.given.next_multiple_of(BLOCK_BYTES) - self.given).unwrap_or(0);
        let count = missing.min(buffer.len());
        buffer[..count].fill(0);
        self.given += count as u64;
        count
    }
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.meter.between_entries.get() {
            return Ok(self.fill_last_block(buffer));
        }
        self.meter.count(count as u64)?;
        self.hash.update(&buffer[..count]);
        self.given += count as u64;
        Ok(count)
    }
}

struct Counted<'a, R> {
    inner: &'a mut R,
    count: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
