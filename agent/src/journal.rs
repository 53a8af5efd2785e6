//! The journal: one file of lines, `CHECKSUM NUMBER JSON`, numbers without gaps. Appended in one write per step, and synced where a record must be
//! on disk before anything else happens. A line that the last write left unfinished is cut off; damage before it is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bellows_agent_core::Record;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::specs::SpecBook;
use crate::state::{StateError, file_error, replace_file};

/// The file is rewritten in its shortest form when it has grown beyond this: 4 MiB are about 10,000 replicas come and gone.
const COMPACT_BYTES: u64 = 4 << 20;

/// Room on the disk that is kept for the journal ahead of its end: a full disk must stop new replicas, not the agent that looks after the old
/// ones. 1 MiB is about 2,500 replicas come and gone.
const RESERVE_BYTES: u64 = 1 << 20;

/// What can be wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading, writing or syncing.
    #[error(transparent)]
    State(#[from] StateError),
    /// A line before the end is not what was written.
    #[error(
        "journal {path} is damaged at line {line}: restore it from a backup, or, to forget every order (replicas that run will be strays), \
         stop this node's replicas and move the file away"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A line is whole and says what this program does not know.
    #[error(
        "journal {path} has something in line {line} that this program does not understand: use the program that wrote it; replicas run on until then"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What exactly.
        #[source]
        source: serde_json::Error,
    },
    /// A record cannot be put into words.
    #[error("cannot encode a record of the journal")]
    Encode(#[source] serde_json::Error),
}

/// One line: a record of the core, and the whole spec where it is about one.
#[derive(Serialize, Deserialize)]
struct Entry {
    record: Record,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec: Option<String>,
}

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    next: u64,
    bytes: u64,
    compact_at: u64,
    /// Where the room that is kept for it ends.
    reserved_to: u64,
}

impl Journal {
    /// Reads what was kept, and the specs it holds; then rewrites nothing: call `compact` once the records are understood.
    pub(crate) fn open(path: &Path, specs: &mut SpecBook) -> Result<(Self, Vec<Record>), JournalError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(file_error("read", path)(source).into()),
        };
        let (entries, good_bytes) = parse(path, &text)?;
        let file = open_to_append(path)?;
        file.set_len(good_bytes).map_err(file_error("cut the unfinished end of", path))?;
        let next = entries.len() as u64;
        let records = entries.into_iter().map(|entry| specs.take_entry(entry.record, entry.spec)).collect();
        let path = path.to_owned();
        let mut journal = Self { path, file, next, bytes: good_bytes, compact_at: COMPACT_BYTES, reserved_to: 0 };
        journal.reserve();
        Ok((journal, records))
    }

    /// Appends in one write; syncs when one of the records asks for it. After an error nothing of it is in the file.
    pub(crate) fn append(&mut self, records: &[Record], specs: &SpecBook) -> Result<(), JournalError> {
        let (next, before) = (self.next, self.bytes);
        let lines = self.encode(records, specs)?;
        if let Err(error) = self.file.write_all(&lines) {
            self.next = next;
            if let Err(cut) = self.file.set_len(before) {
                tracing::warn!(path = %self.path.display(), %cut, "the unfinished end of the journal stays until the next start");
            }
            return Err(file_error("append to", &self.path)(error).into());
        }
        self.bytes += lines.len() as u64;
        if records.iter().any(Record::durable) {
            self.file.sync_data().map_err(file_error("sync", &self.path))?;
        }
        if self.bytes + RESERVE_BYTES / 2 > self.reserved_to {
            self.reserve();
        }
        Ok(())
    }

    pub(crate) fn wants_compaction(&self) -> bool {
        self.bytes > self.compact_at
    }

    /// Replaces the file by its shortest form. On a full disk the long one stays, and that is no error.
    pub(crate) fn compact(&mut self, records: &[Record], specs: &SpecBook) -> Result<(), JournalError> {
        let next = std::mem::take(&mut self.next);
        let lines = self.encode(records, specs)?;
        match replace_file(&self.path, &lines, 0o600) {
            Ok(()) => {}
            Err(error) if error.disk_is_full() => {
                self.next = next;
                self.compact_at = self.bytes + COMPACT_BYTES;
                tracing::warn!(path = %self.path.display(), "the disk is full: the journal is not shortened; make room there, or no new replica starts here");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.file = open_to_append(&self.path)?;
        self.bytes = lines.len() as u64;
        self.compact_at = COMPACT_BYTES;
        self.reserve();
        Ok(())
    }

    /// Keeps room behind the end of the file. Not every file system can, and a full one has none: then the journal may fail later, with words.
    fn reserve(&mut self) {
        let (end, room) = (self.bytes.cast_signed(), RESERVE_BYTES.cast_signed());
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, room) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(errno) => {
                tracing::warn!(path = %self.path.display(), %errno, "no room could be kept for the journal; make room on that disk");
            }
        }
        // Also when it failed: the next try, and the next warning, come half of it further on.
        self.reserved_to = self.bytes + RESERVE_BYTES;
    }

    fn encode(&mut self, records: &[Record], specs: &SpecBook) -> Result<Vec<u8>, JournalError> {
        let mut lines = Vec::new();
        for record in records {
            let spec = match record {
                Record::Spec { digest, .. } => specs.find(digest).map(|spec| hex::encode(spec.encode_to_vec())),
                _ => None,
            };
            let json = serde_json::to_string(&Entry { record: record.clone(), spec }).map_err(JournalError::Encode)?;
            let body = format!("{} {json}", self.next);
            lines.extend_from_slice(format!("{} {body}\n", checksum(body.as_bytes())).as_bytes());
            self.next += 1;
        }
        Ok(lines)
    }
}

fn open_to_append(path: &Path) -> Result<File, StateError> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(file_error("open", path))
}

/// 64 bits of SHA-256: enough against rot; nobody is kept out by it.
fn checksum(body: &[u8]) -> String {
    hex::encode(&Sha256::digest(body)[..8])
}

/// All whole lines, and how many bytes they are. Only the last line may be broken.
fn parse(path: &Path, text: &[u8]) -> Result<(Vec<Entry>, u64), JournalError> {
    let (mut entries, mut good_bytes) = (Vec::new(), 0);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    for (number, line) in lines.iter().enumerate() {
        match whole(line, number) {
            Some(json) => entries.push(serde_json::from_str(json).map_err(|source| JournalError::Foreign {
                path: path.to_owned(),
                line: number + 1,
                source,
            })?),
            None if number + 1 == lines.len() => {
                tracing::warn!(path = %path.display(), line = number + 1, "the journal's last line was not finished; it is cut off");
                break;
            }
            None => return Err(JournalError::Damaged { path: path.to_owned(), line: number + 1 }),
        }
        good_bytes += line.len() as u64;
    }
    Ok((entries, good_bytes))
}

/// What a line says, if it is as it was written.
fn whole(line: &[u8], number: usize) -> Option<&str> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, body) = line.split_once(' ')?;
    let (written_number, json) = body.split_once(' ')?;
    let right = sum == checksum(body.as_bytes()) && written_number.parse() == Ok(number);
    right.then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_agent_core::{Fence, RunSpec, SpecDigest};
    use bellows_proto::types::AppSpec;

    fn records() -> Vec<Record> {
        let fence = |term| Record::Fence(Fence { incarnation: 1, term });
        let spec = Record::Spec { digest: SpecDigest([7; 32]), run: RunSpec::default() };
        vec![fence(1), spec, fence(2)]
    }

    fn book() -> SpecBook {
        let mut specs = SpecBook::default();
        specs.insert(SpecDigest([7; 32]), AppSpec { name: "web".to_owned(), ..AppSpec::default() });
        specs
    }

    fn reopen(path: &Path) -> Result<(Vec<Record>, SpecBook), JournalError> {
        let mut specs = SpecBook::default();
        let (_, records) = Journal::open(path, &mut specs)?;
        Ok((records, specs))
    }

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, kept) = Journal::open(&path, &mut SpecBook::default()).expect("a new journal");
        assert_eq!(kept, Vec::new());
        journal.append(&records()[..2], &book()).expect("appended");
        journal.append(&records()[2..], &book()).expect("appended");
        (folder, path)
    }

    #[test]
    fn what_was_written_is_read_with_its_specs() {
        let (_folder, path) = written();
        let (kept, specs) = reopen(&path).expect("a good journal");
        assert_eq!(kept, records());
        assert_eq!(specs.find(&SpecDigest([7; 32])).map(|spec| spec.name.clone()), Some("web".to_owned()));
    }

    #[test]
    fn every_torn_tail_is_cut_off() {
        let (_folder, path) = written();
        let whole = fs::read(&path).expect("readable");
        let last = whole.len() - whole.split_inclusive(|b| *b == b'\n').next_back().expect("a line").len();
        for length in last..whole.len() {
            fs::write(&path, &whole[..length]).expect("writable");
            let (kept, _) = reopen(&path).expect("a torn tail is tolerated");
            assert_eq!(kept, records()[..2], "cut at {length}");
        }
        fs::write(&path, &whole[..whole.len() - 3]).expect("writable");
        let mut specs = SpecBook::default();
        let (mut journal, _) = Journal::open(&path, &mut specs).expect("a torn tail is tolerated");
        journal.append(&records()[2..], &specs).expect("appended after the cut");
        assert_eq!(reopen(&path).expect("whole again").0, records());
    }

    #[test]
    fn a_damaged_middle_is_refused_with_its_line() {
        let (_folder, path) = written();
        let mut whole = fs::read(&path).expect("readable");
        whole[20] ^= 1;
        fs::write(&path, whole).expect("writable");
        let error = reopen(&path).expect_err("the first line is damaged").to_string();
        assert!(error.contains("damaged at line 1"), "{error}");
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_and_stays() {
        let (_folder, path) = written();
        let body = "3 {\"record\":{\"Unheard\":1}}";
        let line = format!("{} {body}\n", checksum(body.as_bytes()));
        File::options().append(true).open(&path).and_then(|mut f| f.write_all(line.as_bytes())).expect("written");
        let before = fs::read(&path).expect("readable");
        let error = reopen(&path).expect_err("it is of the future").to_string();
        assert!(error.contains("line 4") && error.contains("the program that wrote it"), "{error}");
        assert_eq!(fs::read(&path).expect("readable"), before);
    }

    #[test]
    fn a_missing_line_is_refused() {
        let (_folder, path) = written();
        let whole = fs::read_to_string(&path).expect("readable");
        let without_first: String = whole.split_inclusive('\n').skip(1).collect();
        fs::write(&path, without_first).expect("writable");
        assert!(matches!(reopen(&path), Err(JournalError::Damaged { line: 1, .. })));
    }

    /// A disk of 4 MiB; gone with this, also when a test fails.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        /// None without root, who alone can mount it.
        fn mount() -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                println!("skipped: only root can mount a small disk");
                return None;
            }
            let folder = tempfile::tempdir().expect("a folder");
            let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
            nix::mount::mount(none, folder.path(), Some("tmpfs"), flags, Some("size=4m")).expect("root may mount");
            Some(Self(folder))
        }

        fn fill(&self) {
            let filler = File::create(self.0.path().join("filler")).expect("a file");
            let full = (0..).find_map(|_| (&filler).write_all(&[1; 4096]).err()).expect("a disk has an end");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            if let Err(errno) = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH) {
                eprintln!("{} stays mounted: {errno}", self.0.path().display());
            }
        }
    }

    #[test]
    fn a_full_disk_leaves_room_for_the_journal() {
        let Some(disk) = SmallDisk::mount() else { return };
        let path = disk.0.path().join("journal");
        let (mut journal, _) = Journal::open(&path, &mut SpecBook::default()).expect("a new journal");
        journal.append(&records(), &book()).expect("appended");
        disk.fill();
        journal.append(&records(), &book()).expect("room was kept");
        journal.compact(&records(), &book()).expect("no room to compact is no error");
        journal.append(&records(), &book()).expect("room was kept");
        let failed = (0..).find_map(|_| journal.append(&records(), &book()).err()).expect("the room has an end");
        assert!(failed.to_string().contains("make room on that disk"), "{failed}");
        drop(journal);
        let (kept, _) = reopen(&path).expect("nothing half-done is in it");
        assert_eq!(kept.len() % records().len(), 0);
    }

    #[test]
    fn room_is_kept_wherever_the_journal_has_grown_to() {
        let Some(disk) = SmallDisk::mount() else { return };
        let (mut journal, _) =
            Journal::open(&disk.0.path().join("journal"), &mut SpecBook::default()).expect("a new journal");
        let many: Vec<Record> = records().into_iter().cycle().take(300).collect();
        while journal.bytes < RESERVE_BYTES * 3 / 2 {
            journal.append(&many, &book()).expect("appended");
        }
        disk.fill();
        let full_at = journal.bytes;
        while journal.bytes < full_at + RESERVE_BYTES / 4 {
            journal.append(&many, &book()).expect("room was kept");
        }
    }

    #[test]
    fn compaction_begins_anew() {
        let (_folder, path) = written();
        let mut specs = SpecBook::default();
        let (mut journal, _) = Journal::open(&path, &mut specs).expect("a good journal");
        journal.compact(&records()[1..], &specs).expect("compacted");
        journal.append(&records()[..1], &specs).expect("appended");
        let expected = vec![records()[1].clone(), records()[2].clone(), records()[0].clone()];
        assert_eq!(reopen(&path).expect("a good journal").0, expected);
    }
}
