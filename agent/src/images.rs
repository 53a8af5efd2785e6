//! Images on this node: missing blobs come from the controller by digest, the store verifies and unpacks them. The core asks for each image once at a time.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bellows_proto::node::FetchBlobRequest;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::types::BlobChunk;
use bellows_runtime::image::{Digest, Error as StoreError, Image, NotADigest, Store};
use bytes::{Buf, Bytes};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the app names no image by digest")]
    NotADigest(#[from] NotADigest),
    #[error("no controller is connected to fetch blob {0} from")]
    NotConnected(Digest),
    #[error("the controller did not give blob {digest}")]
    Fetch {
        digest: Digest,
        #[source]
        source: Box<Status>,
    },
    #[error("image store")]
    Store(#[from] StoreError),
    #[error("a thread that works on images ended early")]
    Interrupted,
}

impl ImageError {
    /// Is the failure of a kind that passes?
    pub(crate) fn passing(&self) -> bool {
        match self {
            // A full disk is told to the leader, which has other nodes, and to people, who can make room.
            Self::Store(StoreError::Io { source, .. }) => source.kind() != io::ErrorKind::StorageFull,
            Self::NotConnected(_) | Self::Interrupted => true,
            Self::Fetch { source, .. } => {
                !matches!(source.code(), Code::NotFound | Code::InvalidArgument | Code::Unimplemented)
            }
            Self::NotADigest(_) | Self::Store(_) => false,
        }
    }
}

/// The node's images.
pub(crate) struct Images {
    store: Store,
    controller: watch::Receiver<Option<Channel>>,
    ready: Mutex<BTreeMap<Digest, Arc<Image>>>,
}

/// Chunks in flight between the stream and the store: at 64 KiB or so each, half a MiB.
const CHUNKS: usize = 8;

impl Images {
    pub(crate) fn new(store: Store, controller: watch::Receiver<Option<Channel>>) -> Self {
        Self { store, controller, ready: Mutex::default() }
    }

    /// Makes an image ready: fetches what is missing, unpacks.
    pub(crate) async fn ensure(self: &Arc<Self>, image: &str) -> Result<(), ImageError> {
        let digest: Digest = image.parse()?;
        // The manifest says what else is needed, so what is missing is asked for anew until nothing is.
        while let Some(blob) =
            self.blocking(move |images| Ok(images.store.missing_blobs(&digest)?.first().map(|b| b.digest))).await?
        {
            self.fetch(blob).await?;
        }
        self.blocking(move |images| images.unpack(digest)).await?;
        Ok(())
    }

    /// An image for a launch; blocks while it is unpacked, which a ready image is already.
    pub(crate) fn ready(&self, image: &str) -> Result<Arc<Image>, ImageError> {
        let digest: Digest = image.parse()?;
        let kept = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        kept.map_or_else(|| self.unpack(digest), Ok)
    }

    fn unpack(&self, digest: Digest) -> Result<Arc<Image>, ImageError> {
        let image = Arc::new(self.store.unpack(&digest)?);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, image.clone());
        Ok(image)
    }

    async fn fetch(self: &Arc<Self>, digest: Digest) -> Result<(), ImageError> {
        let channel = self.controller.borrow().clone().ok_or(ImageError::NotConnected(digest))?;
        let failed = |source| ImageError::Fetch { digest, source: Box::new(source) };
        let request = FetchBlobRequest { digest: digest.to_string() };
        let stream = NodesClient::new(channel).fetch_blob(request).await.map_err(failed)?.into_inner();
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let pump = tokio::spawn(pump(stream, sender));
        let stored =
            self.blocking(move |images| Ok(images.store.put_blob(&digest, &mut ChunkReader::new(receiver))?)).await;
        match pump.await {
            Ok(Err(status)) => Err(failed(status)),
            Ok(Ok(())) => stored.map(|bytes| tracing::debug!(%digest, bytes, "fetched a blob")),
            Err(_) => Err(ImageError::Interrupted),
        }
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let images = self.clone();
        tokio::task::spawn_blocking(move || work(&images)).await.map_err(|_| ImageError::Interrupted)?
    }
}

/// Moves chunks from the network to the store's thread; a reader that went away ends it.
async fn pump(mut stream: Streaming<BlobChunk>, sender: mpsc::Sender<Result<Bytes, io::Error>>) -> Result<(), Status> {
    loop {
        match stream.message().await {
            Ok(Some(chunk)) => {
                if sender.send(Ok(chunk.data.into())).await.is_err() {
                    return Ok(()); // the store has seen enough, and says why itself
                }
            }
            Ok(None) => return Ok(()),
            Err(status) => {
                let broken = io::Error::new(io::ErrorKind::ConnectionAborted, status.message().to_owned());
                let told = sender.send(Err(broken)).await;
                tracing::debug!(told = told.is_ok(), "a blob's stream broke");
                return Err(status);
            }
        }
    }
}

/// Bytes of a stream, read by a thread.
struct ChunkReader {
    chunks: mpsc::Receiver<Result<Bytes, io::Error>>,
    rest: Bytes,
}

impl ChunkReader {
    fn new(chunks: mpsc::Receiver<Result<Bytes, io::Error>>) -> Self {
        Self { chunks, rest: Bytes::new() }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
