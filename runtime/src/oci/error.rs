//! Why a command on a bundle or container failed.

use std::io;
use std::path::PathBuf;

use crate::kernel::cgroup::CgroupError;
use crate::launch::wire::Failure;

/// One variant per operation; the printed chain reads as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file could not be read or written, a folder not made or removed.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Not JSON, or not of the specification's form.
    #[error("cannot understand {path}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The configuration asks for what cannot be, or is not done here.
    #[error("config.json: {field}: {reason}")]
    Refused {
        /// The member.
        field: String,
        /// Why, and what would help.
        reason: String,
    },
    /// An id is used in file and cgroup names.
    #[error(
        "container id {0:?} must be 1 to 1024 characters of a-z, A-Z, 0-9, '_', '+', '-' and '.', and not \".\" or \"..\""
    )]
    Id(String),
    /// There is one already.
    #[error("container with id {0:?} already exists: delete it first or choose another id")]
    Exists(String),
    /// There is none.
    #[error("container {0:?} does not exist")]
    Unknown(String),
    /// The container's status does not allow it.
    #[error("cannot {what} container {id:?}: it is {status}")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// Of whom.
        id: String,
        /// What it is.
        status: String,
    },
    /// A signal nobody knows.
    #[error("unknown signal {0:?}: give a number or a name such as SIGTERM")]
    Signal(String),
    /// A step of setting it up failed; everything was undone.
    #[error("cannot {}: {}{}", .0.step, .0.cause, .0.undo.as_deref().map(|undo| format!("; moreover {undo}")).unwrap_or_default())]
    Step(Failure),
    /// The kernel refused something that is no step.
    #[error("cannot {what}")]
    Kernel {
        /// What.
        what: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A hook on the host's side failed.
    #[error("{hook} failed: {reason}")]
    Hook {
        /// Which, and what it executes.
        hook: String,
        /// Why.
        reason: String,
    },
    /// Its cgroup.
    #[error("cgroup of the container")]
    Cgroup(#[from] CgroupError),
}

impl OciError {
    /// For [`OciError::File`].
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// For [`OciError::Kernel`].
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }

    /// For [`OciError::Refused`].
    pub(crate) fn refused(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { field: field.into(), reason: reason.into() }
    }
}
