//! Why a controller did not start, or would not give a token. Each says what, where, and how to mend it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::AuthorityError;
use crate::storage::StorageError;

/// Why a controller did not start. Nothing is left half-done: mend the cause and start again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the state folder cannot be read.
    #[error("{path} cannot be read; it must belong to the user who runs the controller")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Written by a newer Bellows.
    #[error(
        "the folder {path} was written by a newer version of Bellows (layout {found}, this version knows {known}); start that version, or choose an empty folder with --state"
    )]
    NewerVersion {
        /// The folder.
        path: PathBuf,
        /// The layout it has.
        found: u32,
        /// The newest layout known here.
        known: u32,
    },
    /// The folder has files of something else.
    #[error("the folder {path} is not a controller's: {why}; choose an empty folder with --state")]
    NotAStateFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Two controllers, one folder.
    #[error("{} uses the folder {path}; stop it first, or choose another folder with --state", holder(*pid))]
    FolderInUse {
        /// The folder.
        path: PathBuf,
        /// The other one's process, as it noted it.
        pid: Option<u32>,
    },
    /// Raft's log: damaged, not readable, not writable.
    #[error("the controller's log cannot be used")]
    Log(#[from] StorageError),
    /// The member would not start from what the log holds.
    #[error("the log in {path} does not suit this controller")]
    Member {
        /// The state folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image store was written by a newer Bellows.
    #[error(
        "the image store {path} has version {found}, this program knows {known}; start the newer program, or choose another folder with --store"
    )]
    NewerStore {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The version known here.
        known: u32,
    },
    /// The folder of images, or a file in the state folder.
    #[error("{path} cannot be written; {} or choose another folder with {flag}", remedy(source))]
    NotWritable {
        /// The folder or file.
        path: PathBuf,
        /// How to choose another.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody listens there already, or the address is not ours.
    #[error("cannot listen on {address} ({purpose}); stop what listens there, or choose another address with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// How to choose another.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Keys and certificates.
    #[error("the cluster's certificates cannot be used")]
    Authority(#[from] AuthorityError),
    /// TLS would not take the server's certificate.
    #[error("the server's TLS configuration was refused; check the names given with --advertise")]
    Tls(#[source] tonic::transport::Error),
    /// The list of services for reflection.
    #[error("the descriptions of the services cannot be served; this build of Bellows is damaged")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The metrics could not be registered.
    #[error("the metrics cannot be registered; does one registry serve two controllers?")]
    Metrics(#[source] prometheus::Error),
    /// A thread could not be started.
    #[error("a thread for {purpose} cannot be started; raise the limit of processes (ulimit -u)")]
    Thread {
        /// What for.
        purpose: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The driver ended before it led.
    #[error("the controller ended while it started: {why}")]
    Ended {
        /// Says how to mend it.
        why: String,
    },
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[error("no join token was made: {why}")]
pub struct CreateTokenError {
    /// Says how to mend it.
    pub why: String,
}

/// How to mend what people can mend; a half-sentence.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on that disk and start again: nothing that was acknowledged is lost,"
        }
        io::ErrorKind::ReadOnlyFilesystem => "make that file system writable,",
        _ => "make it writable for this user,",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another controller".to_owned(), |pid| format!("another controller (process {pid})"))
}
