//! What the controller's refusals mean here. Its sentences already say what, where and how to mend it.

use tonic::{Code, Status};

use crate::failure::{Failure, Kind, chain};

/// Not a controller's word but the connection's end: what comes over the wire has no source here.
pub fn broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A refusal, or an answer that broke off, as a failure with its exit code.
pub fn failure(status: &Status) -> Failure {
    if broken(status) {
        return Failure::new(
            Kind::Unreachable,
            format!("the connection to the controller broke: {}", sentence(status)),
        )
        .mend("it may have ended or been started anew: ask again");
    }
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Kind::Usage,
        Code::NotFound => Kind::NotFound,
        Code::Unavailable => Kind::Unreachable,
        Code::DeadlineExceeded => Kind::TimedOut,
        _ => Kind::Failed,
    };
    let failure = Failure::new(kind, sentence(status));
    match hint(status.code()) {
        Some(hint) => failure.mend(hint),
        None => failure,
    }
}

fn sentence(status: &Status) -> String {
    match (status.message(), std::error::Error::source(status)) {
        ("", Some(source)) => chain(source),
        ("", None) => format!("the controller answered \"{}\" without a word", status.code()),
        (message, _) => message.to_owned(),
    }
}

fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("the credential is of another cluster or has no right to this; name the right one with --credential")
        }
        Code::Unimplemented => {
            Some("the controller is of another version of Bellows; compare `bellows status` and `bellows --version`")
        }
        Code::Internal | Code::Unknown | Code::DataLoss => {
            Some("look at the controller's log; this is likely a defect of Bellows")
        }
        _ => None,
    }
}
