//! One who asks: a connection that is kept, one request after the other, each followed to its last byte.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::Message;

/// Whoever says nothing for so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client with one connection at most.
pub struct Asker {
    door: SocketAddr,
    host: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Asker {
    pub fn new(door: SocketAddr, host: &str) -> Self {
        Self { door, host: host.to_owned(), connection: None }
    }

    /// Bytes of the body of a whole, good answer; else what was wrong with it.
    pub async fn get(&mut self, path: &str) -> Result<usize, String> {
        let asked = tokio::time::timeout(PATIENCE, self.asked(path)).await;
        let got = asked.unwrap_or_else(|_| Err(format!("not within {PATIENCE:?}")));
        if got.is_err() {
            self.connection = None;
        }
        got
    }

    async fn asked(&mut self, path: &str) -> Result<usize, String> {
        let text = |error: hyper::Error| crate::failure::chain(&error);
        let request = Request::get(path).header("host", &self.host).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let mut connection = match self.connection.take() {
            Some(kept) if !kept.is_closed() => kept,
            _ => connect(self.door).await?,
        };
        connection.ready().await.map_err(text)?;
        let answer = connection.send_request(request).await.map_err(text)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(text)?.to_bytes();
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()));
        }
        self.connection = Some(connection);
        Ok(body.len())
    }
}

async fn connect(door: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = stream(door).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // How it ends is told to whoever asked.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn stream(door: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(door).await.map_err(|error| format!("connecting to {door}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// A WebSocket: so many messages, each said again by the other side, then a polite end.
pub async fn converse(
    door: SocketAddr,
    host: &str,
    path: &str,
    messages: u32,
    pause: Duration,
) -> Result<usize, String> {
    let whole = async {
        let url = format!("ws://{host}{path}");
        let (mut socket, _) =
            tokio_tungstenite::client_async(url, stream(door).await?).await.map_err(|error| error.to_string())?;
        for number in 0..messages {
            let said = Message::text(format!("message {number}"));
            socket.send(said.clone()).await.map_err(|error| error.to_string())?;
            match socket.next().await {
                Some(Ok(heard)) if heard == said => tokio::time::sleep(pause).await,
                other => return Err(format!("after {number} messages: {other:?}")),
            }
        }
        socket.close(None).await.map_err(|error| error.to_string())?;
        match socket.next().await {
            Some(Ok(Message::Close(_))) | None => Ok(messages as usize),
            other => Err(format!("at the end: {other:?}")),
        }
    };
    let in_time = tokio::time::timeout(PATIENCE + pause * messages, whole).await;
    in_time.unwrap_or_else(|_| Err("not in time".to_owned()))
}
