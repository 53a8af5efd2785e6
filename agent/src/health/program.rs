//! The check by a program in the container: it returns 0. What it writes is read, so that it does not wait for its reader, and its first words are told.

use std::os::fd::AsFd;
use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_proto::types::AppSpec;
use bellows_runtime::handle::{Execute, Execution, ExecutionStreams, Exit};

use super::Checks;
use crate::calls::{Stream, registered};
use crate::containers::container;
use crate::launch::container_spec;
use crate::worker::chain;

/// Of what a failed check wrote.
const WORDS_BYTES: usize = 200;

impl Checks {
    pub(super) async fn execute(
        &self,
        replica: ReplicaId,
        attempt: u32,
        command: Vec<String>,
        app: &Arc<AppSpec>,
    ) -> Result<(), String> {
        let (images, containers) = (self.images.clone(), self.containers.clone());
        let (node, app) = (self.node.clone(), app.clone());
        let begin = move || {
            let image = images.ready(&app.image_digest).map_err(|error| chain(&error))?;
            let mut spec = container_spec(container(replica, attempt), replica, &node, &app, &image);
            spec.args = command;
            containers.execute(&spec, Execute::Piped).map_err(|error| chain(&error))
        };
        let execution = tokio::task::spawn_blocking(begin).await.map_err(|_| "a thread ended early".to_owned())??;
        finish(execution).await
    }
}

/// Dropped before its end, it kills the program.
async fn finish(mut execution: Execution) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let end = registered(execution.as_fd().try_clone_to_owned().map_err(failed)?).map_err(failed)?;
    let ExecutionStreams::Piped { input, output, errors } = &mut execution.streams else {
        return Err("it got a terminal".to_owned());
    };
    drop(input.take());
    let stream = |fd: &std::os::fd::OwnedFd| Stream::new(fd.try_clone()?);
    let (output, errors) = (stream(output).map_err(failed)?, stream(errors).map_err(failed)?);
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let ended = end.readable();
    tokio::pin!(ended);
    let (mut more_output, mut more_errors) = (true, true);
    loop {
        tokio::select! {
            piece = output.read(), if more_output => more_output = keep(&mut said, piece.map_err(failed)?),
            piece = errors.read(), if more_errors => more_errors = keep(&mut complained, piece.map_err(failed)?),
            ready = &mut ended => {
                drop(ready.map_err(failed)?);
                break;
            }
        }
    }
    keep(&mut complained, errors.read_now().map_err(failed)?);
    keep(&mut said, output.read_now().map_err(failed)?);
    let words = if complained.is_empty() { said } else { complained };
    match execution.wait().map_err(|error| chain(&error))? {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(with_words(format!("exit code {code}"), &words)),
        Exit::Signal(signal) => Err(with_words(format!("signal {signal}"), &words)),
        Exit::OutOfMemory | Exit::Unknown => Err("it was killed".to_owned()),
    }
}

/// The first words; false at the end of them all.
fn keep(words: &mut Vec<u8>, piece: Vec<u8>) -> bool {
    let room = WORDS_BYTES.saturating_sub(words.len());
    words.extend_from_slice(&piece[..piece.len().min(room)]);
    !piece.is_empty()
}

fn with_words(how: String, words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    match text.split_whitespace().collect::<Vec<_>>().join(" ") {
        words if words.is_empty() => how,
        words => format!("{how}, {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_are_told_on_one_line() {
        let mut words = Vec::new();
        assert!(keep(&mut words, b"no\n  hope\n".to_vec()));
        assert!(!keep(&mut words, Vec::new()));
        assert!(keep(&mut words, vec![b'x'; 1_000]));
        assert_eq!(words.len(), WORDS_BYTES);
        assert_eq!(with_words("exit code 1".to_owned(), b"no\n  hope\n"), "exit code 1, no hope");
        assert_eq!(with_words("exit code 1".to_owned(), b"\n"), "exit code 1");
    }
}
