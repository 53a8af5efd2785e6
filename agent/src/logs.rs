//! Reads a container's two log files, across their rotation, and gives the app's own text: `UNIX_MS STREAM TAG TEXT` without the first three.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_runtime::ContainerId;
use bellows_runtime::handle::Error;

use crate::containers::Containers;
use crate::convert::Misunderstood;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("this node has no log of replica {0}: it never ran here, or its log was dropped after its end")]
    Unknown(ReplicaId),
    #[error(transparent)]
    Misunderstood(Misunderstood),
    #[error("cannot find the log of container {id}")]
    Find {
        id: ContainerId,
        #[source]
        source: Box<Error>,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread that reads the log ended early")]
    Interrupted,
}

/// A place in one container's log.
pub(crate) struct LogReader {
    containers: Arc<dyn Containers>,
    id: ContainerId,
    /// How often the files had changed roles, and how far the newer one was read.
    place: Option<(u64, u64)>,
    /// The beginning of a line that is still being written.
    unfinished: Vec<u8>,
}

impl LogReader {
    pub(crate) fn open(containers: Arc<dyn Containers>, id: ContainerId) -> Self {
        Self { containers, id, place: None, unfinished: Vec::new() }
    }

    /// The app's text since the last call; at the first call all that is kept, or its last lines.
    pub(crate) fn read(&mut self, tail_lines: Option<u32>) -> Result<Vec<u8>, LogError> {
        let raw = self.read_raw()?;
        let mut bytes = std::mem::take(&mut self.unfinished);
        bytes.extend_from_slice(&raw);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.unfinished = bytes.split_off(whole);
        let text = text_of(&bytes);
        Ok(match tail_lines {
            Some(lines) => last_lines(&text, lines).to_vec(),
            None => text,
        })
    }

    fn read_raw(&mut self) -> Result<Vec<u8>, LogError> {
        let files = self
            .containers
            .log(&self.id)
            .map_err(|source| LogError::Find { id: self.id.clone(), source: Box::new(source) })?;
        let mut raw = Vec::new();
        let offset = match self.place {
            Some((rotations, offset)) if rotations == files.rotations => offset,
            // What was the newer file is the older one now: its rest first.
            Some((rotations, offset)) if rotations + 1 == files.rotations => {
                read_from(&files.older, offset, &mut raw)?;
                0
            }
            _ => {
                self.unfinished.clear();
                read_from(&files.older, 0, &mut raw)?;
                0
            }
        };
        let read = read_from(&files.newer, offset, &mut raw)?;
        self.place = Some((files.rotations, offset + read));
        Ok(raw)
    }
}

/// Appends what the file holds from there; a file that is not there holds nothing.
fn read_from(path: &Path, offset: u64, to: &mut Vec<u8>) -> Result<u64, LogError> {
    let mut read = || {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file?,
        };
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(to)
    };
    let read = read().map_err(|source| LogError::Read { path: path.to_owned(), source })?;
    Ok(read as u64)
}

/// Tag `F` ends a line, tag `P` is continued. A line of another form is passed on as it is.
fn text_of(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(b"stdout" | b"stderr"), Some(b"F"), Some(rest)) => text.extend_from_slice(rest),
            (Some(_), Some(b"stdout" | b"stderr"), Some(b"P"), Some(rest)) => {
                text.extend_from_slice(rest.strip_suffix(b"\n").unwrap_or(rest));
            }
            _ => text.extend_from_slice(line),
        }
    }
    text
}

fn last_lines(text: &[u8], lines: u32) -> &[u8] {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    // What follows the last end is a line too.
    let open = usize::from(ends.last().is_some_and(|end| *end < text.len()));
    let skipped = (ends.len() + open).saturating_sub(lines);
    match skipped {
        0 => text,
        skipped => text.get(ends.get(skipped - 1).copied().unwrap_or(text.len())..).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apps_text_comes_out() {
        let raw = b"17 stdout F one\n18 stderr P tw\n19 stderr F o\n20 stdout F \n";
        assert_eq!(text_of(raw), b"one\ntwo\n\n");
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes(), "{text:?} {lines}");
        }
    }
}
