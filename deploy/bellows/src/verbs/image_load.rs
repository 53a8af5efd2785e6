//! `bellows image load`: checked here, by the same code that will unpack it, then sent blob by blob.

use std::path::{Path, PathBuf};

use bellows_proto::operator::put_blob_request::Body;
use bellows_proto::operator::{MissingBlobsRequest, PutBlobRequest, RegisterImageRequest};
use bellows_runtime::image::{Blob, Digest, Error as ImageError, Limits, Loaded, Store, Wanted};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::{output, units};

const AFTER: &str = "\
PATH is an OCI layout (folder or tar; umoci, buildah and skopeo write them) or a `docker save` archive, also compressed with gzip or \
zstd. Every digest is verified and every layer rehearsed before anything is sent; what the cluster has already is not sent again.

Examples:
  bellows image load ./web-layout --name web:1.2
  docker save web:1.2 -o web.tar && bellows image load web.tar
  docker save web:1.2 db:7 | zstd > both.tar.zst && bellows image load both.tar.zst --all
  bellows image load both.tar.zst --pick db:7 --name shop/db:7

JSON: {image, names, digest, layers, size_bytes, unpacked_bytes, sent_blobs, sent_bytes}; with --all a list of these";

/// Bytes of one message: large enough that framing costs nothing, far below gRPC's usual 4 MiB.
const CHUNK_BYTES: usize = 256 << 10;

/// Messages read ahead of the network.
const CHUNKS_AHEAD: usize = 8;

/// Bring an image into the cluster
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Folder or archive
    path: PathBuf,

    /// Its name in the cluster [default: the names it has in PATH]; where PATH has several images, chooses one
    #[arg(long)]
    name: Option<String>,

    /// Which of several images in PATH
    #[arg(long, value_name = "NAME")]
    pick: Option<String>,

    /// All images in PATH, under the names they have there
    #[arg(long, conflicts_with_all = ["name", "pick"])]
    all: bool,
}

/// Checks, sends, names.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|error| no_room(&error))?;
    let (store, images) = check(folder.path(), &arguments)?;
    images.iter().try_for_each(named)?;
    let mut connection = Connection::open(globals)?;
    let mut sent = Vec::new();
    for image in &images {
        let blobs = missing(&mut connection, &store, &image.digest).await?;
        let bytes = send(&mut connection, &store, &blobs, globals).await?;
        for name in &image.names {
            let request = RegisterImageRequest { name: name.clone(), digest: image.digest.to_string() };
            connection.ask(async |client| client.register_image(request.clone()).await).await?;
        }
        sent.push(Sent { image, blobs: blobs.len(), bytes });
    }
    told(&sent, arguments.all, globals)
}

/// What it took to bring one image in.
struct Sent<'a> {
    image: &'a Loaded,
    blobs: usize,
    bytes: u64,
}

/// Loads what is wanted into a store of our own, which verifies everything.
fn check(folder: &Path, arguments: &Arguments) -> Result<(Store, Vec<Loaded>), Failure> {
    if !arguments.path.exists() {
        return Err(
            Failure::not_found(format!("there is nothing at {}", arguments.path.display())).mend("check the path")
        );
    }
    let store = Store::open(folder.join("store")).map_err(|error| Failure::from_error(&error))?;
    let Arguments { name, pick, all, .. } = arguments;
    let wanted = Wanted { pick: pick.as_deref(), name: name.as_deref(), all: *all };
    let loaded = store.load_wanted(&arguments.path, &wanted, &Limits::default());
    Ok((store, loaded.map_err(|error| refused(&arguments.path, &error))?))
}

/// Nothing has been sent yet. That something is wrong with the image is the file's fault, not the system's.
fn refused(path: &Path, error: &ImageError) -> Failure {
    let message = format!("{} was not loaded: {}", path.display(), crate::failure::chain(error));
    match error {
        ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Failure::failed(message).mend("$TMPDIR names another place; it needs as much room as the image")
        }
        ImageError::Io { .. } => Failure::failed(message),
        ImageError::SeveralImages { .. } => {
            return Failure::usage(message).mend("--pick NAME chooses one of them, --all loads them all");
        }
        _ => Failure::usage(message),
    }
    .mend("nothing was sent, nothing is left behind; mend it and load it again")
}

fn no_room(error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot make a temporary folder in {}: {error}", std::env::temp_dir().display()))
        .mend("$TMPDIR names another place; it needs as much room as the image")
}

fn named(image: &Loaded) -> Result<(), Failure> {
    match image.names.is_empty() {
        false => Ok(()),
        true => Err(Failure::usage(format!("the image {} has no name of its own", image.digest))
            .mend("give one with --name, for example --name web:1.2; of several images, --pick chooses one first")),
    }
}

/// The blobs that the cluster does not have.
async fn missing(connection: &mut Connection, store: &Store, manifest: &Digest) -> Result<Vec<Blob>, Failure> {
    let mut blobs = store.manifest_blobs(manifest).map_err(|error| Failure::from_error(&error))?;
    let request = MissingBlobsRequest { digests: blobs.iter().map(|blob| blob.digest.to_string()).collect() };
    let answer = connection.ask(async |client| client.missing_blobs(request.clone()).await).await?;
    let mut wanted = std::collections::BTreeSet::from_iter(answer.digests);
    blobs.retain(|blob| wanted.remove(&blob.digest.to_string()));
    Ok(blobs)
}

/// Sends them one after the other; says how many bytes.
async fn send(connection: &mut Connection, store: &Store, blobs: &[Blob], globals: &Globals) -> Result<u64, Failure> {
    let total: u64 = blobs.iter().filter_map(|blob| blob.bytes).sum();
    let bar = output::progress_bar(globals.json());
    bar.set_length(total);
    let style = ProgressStyle::with_template("sending [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    for blob in blobs {
        let before = bar.position();
        let request = async |client: &mut bellows_proto::operator::operator_client::OperatorClient<_>| {
            bar.set_position(before);
            client.put_blob(stream(store.clone(), blob.digest, bar.clone())).await
        };
        connection.ask(request).await?;
    }
    bar.finish_and_clear();
    Ok(total)
}

/// The digest, then the bytes, read by a thread that may block.
fn stream(store: Store, digest: Digest, bar: ProgressBar) -> ReceiverStream<PutBlobRequest> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        // The receiver says what went wrong with the network; a short stream has a wrong digest, which the controller refuses.
        if let Err(error) = read(&store, &digest, &sender, &bar) {
            eprintln!("warning: {digest} cannot be read back: {error}");
        }
    });
    ReceiverStream::new(receiver)
}

fn read(
    store: &Store,
    digest: &Digest,
    sender: &mpsc::Sender<PutBlobRequest>,
    bar: &ProgressBar,
) -> Result<(), anyhow::Error> {
    use std::io::Read;
    let mut file = store.open_blob(digest)?;
    let mut body = Body::Digest(digest.to_string());
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // Nobody listens any more: the request has failed, and its answer is on the way to the caller.
        if sender.blocking_send(PutBlobRequest { body: Some(body) }).is_err() {
            return Ok(());
        }
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        bar.inc(count as u64);
        body = Body::Data(buffer[..count].to_vec());
    }
}

fn told(sent: &[Sent<'_>], all: bool, globals: &Globals) -> Result<(), Failure> {
    if globals.json() {
        let mut views: Vec<_> = sent.iter().map(view).collect();
        let one = if all { None } else { views.pop() };
        return match one {
            Some(one) => output::json(&one),
            None => output::json(&views),
        };
    }
    sent.iter().try_for_each(|sent| output::line(&sentence(sent)))
}

fn view(Sent { image, blobs, bytes }: &Sent<'_>) -> serde_json::Value {
    json!({
        "image": image.names.first(),
        "names": image.names,
        "digest": image.digest.to_string(),
        "layers": image.layers,
        "size_bytes": image.bytes,
        "unpacked_bytes": image.unpacked_bytes,
        "sent_blobs": blobs,
        "sent_bytes": bytes,
    })
}

fn sentence(Sent { image, blobs, bytes }: &Sent<'_>) -> String {
    let sent = match blobs {
        0 => "everything was there already".to_owned(),
        several => format!("{several} blobs of {} sent", units::show_bytes(*bytes)),
    };
    format!("{} loaded: {}, {} layers, {sent}", image.names.join(", "), image.digest, image.layers)
}
