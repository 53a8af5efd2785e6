//! The check by HTTP: one request, and the status is the answer; its body is not looked at.

use bellows_proto::types::HttpCheck;
use http::header::{HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Statuses that are a success.
const GOOD: std::ops::RangeInclusive<u16> = 200..=399;

/// Success: a status from 200 to 399.
pub(super) async fn get(stream: TcpStream, check: &HttpCheck) -> Result<(), String> {
    let request = request(check, &stream)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with this, also when the check's time ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        status if GOOD.contains(&status) => Ok(()),
        status => Err(format!("status {status}")),
    }
}

fn request(check: &HttpCheck, stream: &TcpStream) -> Result<Request<String>, String> {
    let to = stream.peer_addr().map_err(|error| error.to_string())?.to_string();
    let mut request = Request::get(&check.path).body(String::new()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("bellows-health"));
    headers.insert(HOST, HeaderValue::try_from(to).map_err(|error| error.to_string())?);
    for header in &check.headers {
        let name = HeaderName::try_from(&header.name).map_err(|error| error.to_string())?;
        headers.insert(name, HeaderValue::try_from(&header.value).map_err(|error| error.to_string())?);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_proto::types::Header;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What one request is answered with, and what the server read.
    async fn asked(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let to = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
            while !seen.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut piece).await.expect("readable");
                seen.extend_from_slice(&piece[..length]);
            }
            stream.write_all(answer.as_bytes()).await.expect("writable");
            String::from_utf8(seen).expect("text")
        });
        let headers = vec![Header { name: "X-Probe".to_owned(), value: "yes".to_owned() }];
        let check = HttpCheck { port: to.port().into(), path: "/live?full=1".to_owned(), headers };
        let outcome = get(TcpStream::connect(to).await.expect("it listens"), &check).await;
        (outcome, server.await.expect("no panic"))
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        let (outcome, seen) = asked("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert!(seen.starts_with("GET /live?full=1 HTTP/1.1\r\n") && seen.contains("x-probe: yes\r\n"), "{seen}");
        assert!(seen.contains("host: 127.0.0.1:"), "{seen}");
        assert_eq!(asked("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await.0, Ok(()));
        let refused = asked("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100000\r\n\r\n").await.0;
        assert_eq!(refused, Err("status 503".to_owned()));
        assert!(asked("garbage\r\n\r\n").await.0.is_err());
        assert!(asked("").await.0.is_err(), "closed without a word");
    }
}
