//! What outlives a controller: its raft log, its term and vote, and snapshots of its model.
//!
//! ```text
//! log/       raft-engine: entries, and with each batch the term, the vote and the batch's number
//! mark       number of the last batch that was acknowledged
//! snapshot   newest snapshot of the model, replaced as a whole, with its checksum
//! ```
//!
//! All three are in one folder; that only one process uses it is the state folder's business.
//!
//! The log's own recovery cuts a damaged tail off, whether or not it was acknowledged. The mark is what tells the
//! two apart: a log that ends before the mark is refused, with words, instead of forgetting what people declared. What
//! was cut off is kept beside it (`<log file>.torn-at-<byte>`), for whoever mends it.
//!
//! A batch costs two `fdatasync`: the log's and the mark's. The mark is a file of two slots that are written in turn,
//! in place: writing it to another file and renaming that would cost two more, and a torn write harms only the slot
//! whose batch was not acknowledged yet.

mod checked;
mod error;
mod log;
mod mark;
mod snapshot;

pub use error::StorageError;
pub use log::DiskLog;
