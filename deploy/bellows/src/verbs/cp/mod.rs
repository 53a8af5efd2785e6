//! `bellows cp`.

mod local;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use bellows_core::ids::ReplicaId;
use bellows_proto::operator::copy_request::Body;
use bellows_proto::operator::{CopyBegin, CopyRequest, CopyResponse};
use bellows_proto::types::input::Part;
use bellows_proto::types::{Copy, End, Input};
use clap::Args;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::exec::replica;
use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;

const AFTER: &str = "\
Examples:
  bellows cp config.yaml web:/etc/app/            into a folder of a copy of an app: the first one that is ready
  bellows cp ./site 1-2-57:/srv/site              a folder, under this name; into /srv/site/ when that is there
  bellows cp 1-2-57:/var/log/app.log .            out
  bellows cp 1-2-57:/srv/site ./backup

Files and folders keep their modes. What goes in belongs to the app's user, and its size is bounded by the writable layer of the copy \
(`resources.scratch`); it is put in place when all of it has come. Links are copied as links. Write ./a:b for a local file with a colon \
in its name.";

/// Messages that wait for the network.
const WAITING: usize = 16;
/// How long a refusal may take to arrive after what was sent is not taken any more.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of one message; the controller takes no more.
const PIECE_BYTES: usize = 32 << 10;

/// Copy files and folders in and out of a running replica
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// What: a local path, or REPLICA|APP:PATH
    #[arg(value_name = "SRC")]
    from: String,
    /// Where to: the other of the two
    #[arg(value_name = "DST")]
    to: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Local(PathBuf),
    Inside { subject: String, path: String },
}

impl Side {
    /// `SUBJECT:/PATH`, where the subject is an id or a name; all else is local.
    fn of(text: &str) -> Self {
        let named =
            |subject: &str| subject.parse::<ReplicaId>().is_ok() || bellows_core::model::bounds::is_name(subject);
        match text.split_once(':') {
            Some((subject, path)) if named(subject) => {
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Self::Inside { subject: subject.to_owned(), path }
            }
            _ => Self::Local(text.into()),
        }
    }
}

/// Copies.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    match (Side::of(&arguments.from), Side::of(&arguments.to)) {
        (Side::Local(from), Side::Inside { subject, path }) => {
            local::check_source(&from)?;
            let folder = path.ends_with('/');
            let copy = Copy { path: trimmed(&path), into: true, folder };
            let (said, answers) = begin(&subject, copy, globals).await?;
            into(from, said, answers).await
        }
        (Side::Inside { subject, path }, Side::Local(to)) => {
            let place = local::Place::of(&to)?;
            let copy = Copy { path: trimmed(&path), into: false, folder: false };
            let (said, answers) = begin(&subject, copy, globals).await?;
            let done = out(place, answers).await;
            drop(said);
            done
        }
        (Side::Local(_), Side::Local(_)) => {
            Err(Failure::usage("neither side is in a replica; write REPLICA:/PATH or APP:/PATH for one of them"))
        }
        (Side::Inside { .. }, Side::Inside { .. }) => {
            Err(Failure::usage("both sides are in replicas; copy out first, then in"))
        }
    }
}

/// Without slashes at its end.
fn trimmed(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

type Said = mpsc::Sender<CopyRequest>;

async fn begin(subject: &str, copy: Copy, globals: &Globals) -> Result<(Said, Streaming<CopyResponse>), Failure> {
    let mut connection = Connection::open(globals)?;
    let replica = replica(&mut connection, subject, globals).await?;
    let (said, to_send) = mpsc::channel(WAITING);
    let begin = CopyBegin { replica: Some(replica), copy: Some(copy) };
    said.try_send(CopyRequest { body: Some(Body::Begin(begin)) })
        .map_err(|_| Failure::failed("nothing can be sent"))?;
    let answers = connection.once(async |client| client.copy(ReceiverStream::new(to_send)).await).await?;
    Ok((said, answers))
}

async fn into(from: PathBuf, said: Said, mut answers: Streaming<CopyResponse>) -> Result<(), Failure> {
    let mut packed = tokio::task::spawn_blocking(move || local::pack(&from, Sender { said, piece: Vec::new() }));
    let heard = async {
        while let Some(_nothing) = answers.message().await.map_err(|status| connection::failure(&status))? {}
        Ok::<_, Failure>(())
    };
    tokio::pin!(heard);
    let packed = tokio::select! {
        heard = &mut heard => return heard,
        packed = &mut packed => packed.map_err(|_| Failure::failed("the thread that packs ended early"))?,
    };
    match packed {
        Ok(()) => heard.await,
        // Mostly it could not be sent because it was refused: that says why.
        Err(failure) => {
            Err(tokio::time::timeout(LAST_WORDS, heard).await.ok().and_then(Result::err).unwrap_or(failure))
        }
    }
}

async fn out(place: local::Place, mut answers: Streaming<CopyResponse>) -> Result<(), Failure> {
    let (pieces, taken) = mpsc::channel(WAITING);
    let unpacked =
        tokio::task::spawn_blocking(move || place.unpack(Receiver { pieces: taken, rest: Vec::new(), at: 0 }));
    let received = async {
        while let Some(CopyResponse { data }) =
            answers.message().await.map_err(|status| connection::failure(&status))?
        {
            if pieces.send(Ok(data)).await.is_err() {
                break; // whoever unpacks says why
            }
        }
        Ok::<_, Failure>(())
    };
    let received = received.await;
    if received.is_err() {
        // Or the beginning of it would be taken for all.
        let broken = io::Error::new(io::ErrorKind::ConnectionAborted, "the copy broke off");
        let _ = pieces.send(Err(broken)).await;
    }
    drop(pieces);
    let unpacked = unpacked.await.map_err(|_| Failure::failed("the thread that unpacks ended early"))?;
    received.and(unpacked)
}

/// Cuts an archive into messages.
struct Sender {
    said: Said,
    piece: Vec<u8>,
}

impl Sender {
    fn say(&self, part: Part) -> io::Result<()> {
        let request = CopyRequest { body: Some(Body::Input(Input { part: Some(part) })) };
        self.said.blocking_send(request).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// That was all.
    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.say(Part::End(End {}))
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.say(Part::Data(piece))
    }
}

/// Reads messages as one stream.
struct Receiver {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.rest, self.at) = (piece?, 0),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len() - self.at);
        buffer[..length].copy_from_slice(&self.rest[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let inside = |subject: &str, path: &str| Side::Inside { subject: subject.to_owned(), path: path.to_owned() };
        assert_eq!(Side::of("web:/srv"), inside("web", "/srv"));
        assert_eq!(Side::of("1-2-57:srv/x"), inside("1-2-57", "/srv/x"));
        for local in ["./web:/srv", "/a:b", "a", "A:b", "../x"] {
            assert_eq!(Side::of(local), Side::Local(local.into()));
        }
        assert_eq!((&trimmed("/srv//")[..], &trimmed("/")[..]), ("/srv", "/"));
    }
}
