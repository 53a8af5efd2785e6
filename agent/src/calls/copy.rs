//! `bellows cp`: files in or out of a replica as a tar archive, packed and unpacked by somebody inside.

use std::os::fd::AsFd;

use bellows_proto::node::CopyCall;
use bellows_proto::node::call_reply::Body;
use bellows_proto::types;
use bellows_runtime::handle::{Copy, ExecutionStreams, Exit};
use tokio::sync::watch;

use super::exec::{ExecError, feed, forward};
use super::stream::{Stream, registered};
use super::{Caller, Calls};
use crate::convert;

/// Of what went wrong, in words.
const WORDS_BYTES: usize = 4 << 10;

impl Calls {
    pub(super) async fn copy(&self, call: CopyCall, caller: Caller) -> Result<(), ExecError> {
        let replica = convert::replica(call.replica)?;
        let what = wanted(call.copy.unwrap_or_default())?;
        let standing = self.running(replica).await?;
        let (spec, _) = self.spec_of(replica, standing).await?;
        let containers = self.containers.clone();
        let begin = move || containers.copy(&spec, what).map_err(|error| ExecError::Runtime(Box::new(error)));
        let mut execution = tokio::task::spawn_blocking(begin).await.map_err(|_| ExecError::Interrupted)??;
        let end = registered(execution.as_fd().try_clone_to_owned()?)?;
        let ExecutionStreams::Piped { input, output, errors } = &mut execution.streams else {
            return Err(ExecError::Interrupted);
        };
        let input = input.take().map(Stream::new).transpose()?.map(std::sync::Arc::new);
        let (output, errors) = (Stream::new(output.try_clone()?)?, Stream::new(errors.try_clone()?)?);
        let (answers, inputs) = caller.split();
        let (over, is_over) = watch::channel(false);
        let fed = feed(&execution.streams, input, inputs, false, &answers);
        let sent = forward(&output, Body::Data, &answers, is_over);
        let complained = words(&errors);
        let ended = async {
            let seen = end.readable().await;
            over.send_replace(true);
            seen.map(drop).map_err(ExecError::from)
        };
        let finish = async { tokio::try_join!(sent, complained, ended) };
        let words = tokio::select! {
            done = finish => done?.1,
            fault = fed => return Err(fault),
        };
        match execution.wait().map_err(|error| ExecError::Runtime(Box::new(error)))? {
            Exit::Code(0) => Ok(()),
            Exit::Code(_) => Err(ExecError::Copy(words)),
            other => Err(ExecError::Copy(format!(
                "whoever copied was killed ({other:?}): has the replica ended, or no memory left?"
            ))),
        }
    }
}

fn wanted(copy: types::Copy) -> Result<Copy, ExecError> {
    let types::Copy { path, into, folder } = copy;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ExecError::Copy(format!("{path:?} is no absolute path in the replica; begin it with \"/\"")));
    }
    let path = path.into();
    Ok(if into { Copy::In { path, must_be_folder: folder } } else { Copy::Out { path } })
}

/// To its end; the first of it is kept.
async fn words(errors: &Stream) -> Result<String, ExecError> {
    let mut said = Vec::new();
    loop {
        match errors.read().await? {
            piece if piece.is_empty() => return Ok(String::from_utf8_lossy(&said).into_owned()),
            piece => said.extend(piece.into_iter().take(WORDS_BYTES.saturating_sub(said.len()))),
        }
    }
}
