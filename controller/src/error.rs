//! Why a controller did not start, or would not give a token. Each says what, where, and how to mend it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::AuthorityError;

/// Why a controller did not start. Nothing is left half-done: mend the cause and start again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made, or not be written.
    #[error("the folder {path} cannot be written; make it writable for this user, or choose another with --state")]
    FolderNotWritable {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
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
    #[error("another controller uses the folder {path}; stop it first, or choose another folder with --state")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
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
    #[error("the cluster's certificates in {path} cannot be used")]
    Authority {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: AuthorityError,
    },
    /// TLS would not take the server's certificate.
    #[error("the server's TLS configuration was refused; check the names given with --advertise")]
    Tls(#[source] tonic::transport::Error),
    /// The list of services for reflection.
    #[error("the descriptions of the services cannot be served; this build of Bellows is damaged")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// Raft's log is damaged or cannot be read.
    #[error(
        "the log in {path} cannot be read back; nothing was changed. Restore the folder from a backup, or move it away to begin anew"
    )]
    Log {
        /// The folder of the log.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metrics could not be registered.
    #[error("the metrics cannot be registered; does the same registry serve two controllers?")]
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
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// Too short or too long.
    #[error("a join token may be valid for 1 second to 365 days, not {seconds} seconds")]
    Validity {
        /// As asked.
        seconds: u64,
    },
    /// The cluster would not keep it.
    #[error("the token was not kept: {why}")]
    NotKept {
        /// Says how to mend it.
        why: String,
    },
}
