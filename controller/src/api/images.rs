//! Blobs in and out. Disk work runs on threads that may block; memory stays bounded by small channels of chunks.

use std::fs::File;
use std::io::Read;

use bellows_proto::operator as wire;
use bellows_proto::types::BlobChunk;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::put_blob_request::Body;

use super::status_of_blob;
use super::streams::Answers;
use crate::blobs::{BlobDigest, BlobError, Blobs};
use crate::convert::Malformed;

/// Digests in one question: an image has at most 129 blobs.
const MAX_ASKED: usize = 1_024;

/// Chunks on their way between network and disk; each at most 4 MiB inwards (gRPC's limit), 256 KiB outwards.
const CHUNKS_WAITING: usize = 4;
const CHUNK_BYTES: usize = 256 << 10;

/// Which of these are not stored?
pub(super) async fn missing(blobs: Blobs, digests: Vec<String>) -> Result<Vec<String>, Status> {
    if digests.len() > MAX_ASKED {
        return Err(
            Malformed::new("digests", format!("{} digests, at most {MAX_ASKED} are taken", digests.len())).into()
        );
    }
    blocking(move || {
        let mut missing = Vec::new();
        for text in digests {
            if !blobs.has(&text.parse()?)? {
                missing.push(text);
            }
        }
        Ok(missing)
    })
    .await
}

/// Is the image whole? Says its size.
pub(super) async fn check(blobs: Blobs, digest: &str) -> Result<u64, Status> {
    let digest: BlobDigest = parse("digest", digest)?;
    blocking(move || blobs.check_image(&digest)).await
}

/// Stores what the stream brings.
pub(super) async fn put(blobs: Blobs, mut stream: Streaming<wire::PutBlobRequest>) -> Result<(), Status> {
    let first = stream.message().await?.and_then(|first| first.body);
    let Some(Body::Digest(text)) = first else {
        return Err(Malformed::new("digest", "must come in the first message").into());
    };
    let digest = parse("digest", &text)?;
    let (chunks, given) = mpsc::channel(CHUNKS_WAITING);
    let stored = tokio::spawn(blocking(move || store(&blobs, digest, given)));
    let relayed = relay(&mut stream, chunks).await;
    let stored = stored.await.map_err(|error| Status::internal(format!("storing a blob panicked: {error}")))?;
    // What the disk said comes first: the relay ends only because of it.
    stored.and(relayed)
}

/// Data, or the end of a whole blob. A channel closed before the end is a blob cut short.
enum Chunk {
    Data(Vec<u8>),
    End,
}

async fn relay(stream: &mut Streaming<wire::PutBlobRequest>, chunks: mpsc::Sender<Chunk>) -> Result<(), Status> {
    loop {
        let chunk = match stream.message().await?.map(|message| message.body) {
            Some(Some(Body::Data(data))) => Chunk::Data(data),
            Some(_) => return Err(Malformed::new("data", "is missing in a message after the first").into()),
            None => Chunk::End,
        };
        let end = matches!(chunk, Chunk::End);
        if chunks.send(chunk).await.is_err() || end {
            return Ok(());
        }
    }
}

fn store(blobs: &Blobs, digest: BlobDigest, mut given: mpsc::Receiver<Chunk>) -> Result<(), BlobError> {
    let mut upload = blobs.upload(digest)?;
    while let Some(chunk) = given.blocking_recv() {
        match chunk {
            Chunk::Data(data) => upload.write(&data)?,
            Chunk::End => return upload.finish(),
        }
    }
    Ok(()) // cut short: the relay knows why
}

/// The bytes of a stored blob.
pub(super) async fn fetch(blobs: Blobs, digest: &str) -> Result<Answers<BlobChunk>, Status> {
    let digest: BlobDigest = parse("digest", digest)?;
    let opening = blobs.clone();
    let file = blocking(move || opening.open_blob(&digest)).await.map_err(|status| match status.code() {
        tonic::Code::FailedPrecondition => Status::not_found(status.message().to_owned()),
        _ => status,
    })?;
    let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
    spawn_blocking(move || send_file(file, &digest, &chunks));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn send_file(mut file: File, digest: &BlobDigest, chunks: &mpsc::Sender<Result<BlobChunk, Status>>) {
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data);
        let chunk = match read {
            Ok(0) => return,
            Ok(_) => Ok(BlobChunk { data }),
            Err(error) => Err(Status::internal(format!("cannot read blob {digest}: {error}"))),
        };
        let failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

fn parse(field: &str, text: &str) -> Result<BlobDigest, Status> {
    text.parse().map_err(|error: BlobError| Malformed::new(field, error.to_string()).into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|error| Status::internal(format!("work on blobs panicked: {error}")))?;
    done.map_err(|error| status_of_blob(&error))
}
