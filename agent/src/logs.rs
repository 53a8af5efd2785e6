//! A container's log as people want it: the app's own text (`UNIX_MS STREAM TAG TEXT` without the first three), in pieces that each know
//! their place, and news of more without polling.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::ReplicaId;
use bellows_runtime::ContainerId;
use bellows_runtime::handle::{Error, LogFiles, LogPart, LogReader};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::containers::Containers;
use crate::convert::Misunderstood;

/// Bytes of lines looked at in one go, and so the largest piece.
const PIECE_BYTES: usize = 64 << 10;

/// How often a followed log is looked at where the kernel has no more inotify instances (128 for each user, by default).
const WITHOUT_INOTIFY: Duration = Duration::from_millis(100);

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("this node has no log of replica {0}: it never ran here, or its log was dropped after its end")]
    Unknown(ReplicaId),
    #[error("replica {0} has no previous attempt: this is its first")]
    NoPrevious(ReplicaId),
    #[error("the log of attempt {attempt} of replica {replica} is not kept any more; the latest attempt is {latest}")]
    Dropped { replica: ReplicaId, attempt: u32, latest: u32 },
    #[error(transparent)]
    Misunderstood(Misunderstood),
    #[error("cannot find the log of container {id}")]
    Find {
        id: ContainerId,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot read the log of container {id}")]
    Read {
        id: ContainerId,
        #[source]
        source: io::Error,
    },
    #[error("the thread that reads the log ended early")]
    Interrupted,
}

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// At a place told earlier; 0 is the first line.
    At(u64),
    /// At the beginning of the last so many lines.
    Last(u32),
}

/// Some of the app's text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: Vec<u8>,
    /// The place after it.
    pub(crate) at: u64,
    /// Bytes of log before it that were overwritten before they were read.
    pub(crate) rotated_bytes: u64,
}

/// One attempt's log.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    id: ContainerId,
    reader: LogReader,
    /// Lines written before are left out.
    since_unix_ms: u64,
}

impl AttemptLog {
    /// Blocks, as all of this does. None when nothing is kept of it.
    pub(crate) fn open(
        containers: &Arc<dyn Containers>,
        id: ContainerId,
        begin: Begin,
        since_unix_ms: u64,
    ) -> Result<Option<(Self, Growth)>, LogError> {
        let files = match containers.log(&id) {
            Ok(files) => files,
            Err(Error::NoSuchContainer(_)) => return Ok(None),
            Err(source) => return Err(LogError::Find { id, source: Box::new(source) }),
        };
        let growth = Growth::of(&files);
        let opened = match begin {
            Begin::At(at) => LogReader::open(&files, at),
            Begin::Last(lines) => last_lines(&files, lines),
        };
        match opened {
            Ok(reader) => Ok(Some((Self { id, reader, since_unix_ms }, growth))),
            Err(source) => Err(LogError::Read { id, source }),
        }
    }

    /// The next piece; none when all that is written has been read.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, LogError> {
        let read = self.reader.read(PIECE_BYTES).map_err(|source| LogError::Read { id: self.id.clone(), source })?;
        let LogPart { lines, rotated_bytes } = read;
        if lines.is_empty() && rotated_bytes == 0 {
            return Ok(None);
        }
        Ok(Some(Piece { text: text_of(&lines, self.since_unix_ms), at: self.reader.at(), rotated_bytes }))
    }
}

/// Reads everything that is kept once, to find where the last lines begin.
fn last_lines(files: &LogFiles, lines: u32) -> io::Result<LogReader> {
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut reader = LogReader::open(files, 0)?;
    let mut begins: VecDeque<u64> = VecDeque::new();
    let mut ended = true;
    loop {
        let part = reader.read(PIECE_BYTES)?;
        if part.lines.is_empty() && part.rotated_bytes == 0 {
            break;
        }
        let mut at = reader.at() - part.lines.len() as u64;
        for line in part.lines.split_inclusive(|byte| *byte == b'\n') {
            if ended {
                begins.push_back(at);
            }
            if begins.len() > wanted {
                begins.pop_front();
            }
            ended = !matches!(parts(line), Some((_, b"P", _)));
            at += line.len() as u64;
        }
    }
    let at = if wanted == 0 { reader.at() } else { begins.front().copied().unwrap_or_else(|| reader.at()) };
    LogReader::open(files, at)
}

/// Time, tag and text of a line.
fn parts(line: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = matches!(stream, b"stdout" | b"stderr") && matches!(tag, b"F" | b"P");
    let time = std::str::from_utf8(time).ok()?.parse().ok()?;
    known.then_some((time, tag, text))
}

/// Tag `F` ends a line, tag `P` is continued. A line of another form is passed on as it is.
fn text_of(lines: &[u8], since_unix_ms: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        match parts(line) {
            Some((time, _, _)) if time < since_unix_ms => {}
            Some((_, b"P", rest)) => text.extend_from_slice(rest.strip_suffix(b"\n").unwrap_or(rest)),
            Some((_, _, rest)) => text.extend_from_slice(rest),
            None => text.extend_from_slice(line),
        }
    }
    text
}

/// Tells that a log has grown. What is written between its making and the first look is told too.
pub(crate) struct Growth(Option<AsyncFd<Watch>>);

/// For tokio, which asks by number.
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Growth {
    fn of(files: &LogFiles) -> Self {
        let watch = || {
            let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            for path in [&files.older, &files.newer] {
                match watch.add_watch(path, AddWatchFlags::IN_MODIFY) {
                    Ok(_) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(io::Error::from(errno)),
                }
            }
            registered(Watch(watch))
        };
        let watch = watch().inspect_err(|error| tracing::debug!(%error, "a log is looked at ten times a second"));
        Self(watch.ok())
    }

    /// Returns when something was written since the last call, or perhaps.
    pub(crate) async fn more(&mut self) {
        let Some(watch) = &self.0 else { return tokio::time::sleep(WITHOUT_INOTIFY).await };
        match watch.readable().await {
            Ok(mut ready) => {
                // Which file and how often does not matter: the reader looks for itself.
                while watch.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
                ready.clear_ready();
            }
            Err(error) => {
                tracing::debug!(%error, "a log is looked at ten times a second from now on");
                self.0 = None;
            }
        }
    }
}

#[allow(deprecated, reason = "its successor is unsafe; this descriptor lives as long as the registration that owns it")]
fn registered(watch: Watch) -> io::Result<AsyncFd<Watch>> {
    AsyncFd::new(watch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apps_text_comes_out() {
        let raw = b"17 stdout F one\n18 stderr P tw\n19 stderr F o\n20 stdout F \n";
        assert_eq!(text_of(raw, 0), b"one\ntwo\n\n");
        assert_eq!(text_of(raw, 19), b"o\n\n");
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (older, newer) = (folder.path().join("out.1"), folder.path().join("out.0"));
        let (header, log) =
            (format!("#{:020} {:020}\n", 0, 0), "1 stdout F a\n2 stdout P b\n3 stdout F b\n4 stderr F c\n");
        std::fs::write(&newer, header + log).expect("written");
        let files = LogFiles { older, newer, rotations: 0, lost_bytes: 0 };
        for (lines, expected) in [(2, "bb\nc\n"), (3, "a\nbb\nc\n"), (9, "a\nbb\nc\n"), (1, "c\n"), (0, "")] {
            let read = last_lines(&files, lines).expect("opened").read(4096).expect("read");
            assert_eq!(text_of(&read.lines, 0), expected.as_bytes(), "{lines}");
        }
    }
}
