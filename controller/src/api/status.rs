//! Errors as gRPC statuses; the message stays what, where, and how to mend it.

use std::io;

use bellows_core::model::command::Refusal;
use tonic::Status;

use crate::blobs::BlobError;
use crate::driver::chain;

pub(crate) fn status_of_refusal(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::UnknownApp { .. } | Refusal::UnknownNode { .. } | Refusal::UnknownImage { .. } => {
            Status::not_found(text)
        }
        Refusal::BadSpec(_) | Refusal::KeyReused { .. } => Status::invalid_argument(text),
        Refusal::WrongGeneration { .. }
        | Refusal::ScaledByPolicy { .. }
        | Refusal::ImageInUse { .. }
        | Refusal::NodeNameTaken { .. } => Status::failed_precondition(text),
    }
}

pub(crate) fn status_of_blob(error: &BlobError) -> Status {
    let text = chain(error);
    match error {
        BlobError::NotADigest { .. }
        | BlobError::WrongDigest { .. }
        | BlobError::TooLong { .. }
        | BlobError::BadManifest { .. } => Status::invalid_argument(text),
        BlobError::Missing { .. } => Status::failed_precondition(text),
        BlobError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Status::resource_exhausted(format!("{text}; make room on the controller's disk"))
        }
        BlobError::Io { .. } => {
            tracing::error!(error = text, "a blob could not be stored or read");
            Status::internal(format!("{text}; see the controller's log"))
        }
    }
}
