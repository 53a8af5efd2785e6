//! What can go wrong with a disk, where, and how to mend it.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// The way out that holds for every loss.
const MEND_LOSS: &str = "put the missing files back from a backup; or, if other members are alive, \
     replace this member by a new one with an empty state folder";

/// Why the state folder or the log in it cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    /// Read-only file system, another owner, or not a folder.
    #[error("{} cannot be written; it must be a folder on a writable file system that belongs to the user that runs bellows", path.display())]
    NotWritable {
        /// The folder of the log.
        path: PathBuf,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the raft log in {} is in use by another process; stop that one, or name another state folder", path.display())]
    Locked {
        /// The log's folder.
        path: PathBuf,
    },
    /// raft-engine wants text.
    #[error("the name of folder {} is not valid UTF-8; name another state folder", path.display())]
    NotUtf8 {
        /// As configured.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}; if the disk is full, make room and start again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// raft-engine does not open.
    #[error("the raft log in {} cannot be read; {mend}", path.display(), mend = MEND_LOSS)]
    OpenLog {
        /// The log's folder.
        path: PathBuf,
        /// From raft-engine.
        #[source]
        source: raft_engine::Error,
    },
    /// An entry is damaged.
    #[error("entries {first} to {last} of the raft log in {} cannot be read; {mend}", path.display(), mend = MEND_LOSS)]
    ReadLog {
        /// The log's folder.
        path: PathBuf,
        /// First index that was asked for.
        first: u64,
        /// Last index that was asked for.
        last: u64,
        /// From raft-engine.
        #[source]
        source: raft_engine::Error,
    },
    /// What was acknowledged is gone.
    #[error("the raft log in {} ends at batch {found} (entry {found_index}), but batch {acknowledged} (entry {acknowledged_index}) was acknowledged: its end is lost or damaged (what is left of it is in the files named .torn-at-); {mend}", path.display(), mend = MEND_LOSS)]
    LogShorter {
        /// The log's folder.
        path: PathBuf,
        /// Last batch in the log.
        found: u64,
        /// Last entry in the log.
        found_index: u64,
        /// Last batch that was acknowledged.
        acknowledged: u64,
        /// Last entry at that time.
        acknowledged_index: u64,
    },
    /// A log without its mark.
    #[error("{} is missing or damaged, so it cannot be told whether the raft log beside it is complete; {mend}", path.display(), mend = MEND_LOSS)]
    MarkLost {
        /// The mark.
        path: PathBuf,
    },
    /// The entries do not follow each other or the snapshot.
    #[error("the raft log in {} has a gap: entry {wanted} is missing; {mend}", path.display(), mend = MEND_LOSS)]
    Gap {
        /// The log's folder.
        path: PathBuf,
        /// The first entry that is missing.
        wanted: u64,
    },
    /// The state record in the log is not one.
    #[error("the state record of the raft log in {} is damaged; {mend}", path.display(), mend = MEND_LOSS)]
    StateRecord {
        /// The log's folder.
        path: PathBuf,
    },
    /// The snapshot's bytes are not those that were written.
    #[error("snapshot {} is damaged ({what}); {mend}", path.display(), mend = MEND_LOSS)]
    SnapshotDamaged {
        /// The snapshot.
        path: PathBuf,
        /// How it shows.
        what: &'static str,
    },
    /// The snapshot that the log relies on is not there.
    #[error("the raft log relies on a snapshot at entry {wanted}, but {} holds {}; {mend}", path.display(), match found { Some(index) => format!("one at entry {index}"), None => "none".to_owned() }, mend = MEND_LOSS)]
    SnapshotLost {
        /// The snapshot.
        path: PathBuf,
        /// What the log relies on.
        wanted: u64,
        /// What is there.
        found: Option<u64>,
    },
    /// A batch cannot be encoded.
    #[error("cannot encode batch {batch} for the raft log")]
    Encode {
        /// Its number.
        batch: u64,
        /// From raft-engine.
        #[source]
        source: raft_engine::Error,
    },
    /// A batch is not in the log.
    #[error("cannot append batch {batch} to the raft log in {}; if the disk is full, make room and start again: nothing that was acknowledged is lost", path.display())]
    Append {
        /// The log's folder.
        path: PathBuf,
        /// Its number.
        batch: u64,
        /// From raft-engine.
        #[source]
        source: raft_engine::Error,
    },
    /// The disk does not promise to keep it.
    #[error("cannot sync the raft log in {}; check the disk, then start again: nothing that was acknowledged is lost", path.display())]
    Sync {
        /// The log's folder.
        path: PathBuf,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// Old log files stay.
    #[error("cannot remove old files of the raft log in {}", path.display())]
    Purge {
        /// The log's folder.
        path: PathBuf,
        /// From raft-engine.
        #[source]
        source: raft_engine::Error,
    },
    /// What is on the disk is unknown after a failed write.
    #[error("the raft log in {} failed earlier and takes no more; start this controller again", path.display())]
    AfterFailure {
        /// The log's folder.
        path: PathBuf,
    },
}
