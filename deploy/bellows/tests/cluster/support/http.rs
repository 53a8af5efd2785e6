//! Requests from the host to a replica's own address, as curl makes them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Status line, head and body of `GET path`.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The body of an answer that must be 200.
pub fn body(address: SocketAddr, path: &str) -> String {
    let answer = get(address, path).unwrap_or_else(|e| panic!("GET http://{address}{path}: {e}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    assert!(head.lines().next().is_some_and(|status| status.contains(" 200")), "GET http://{address}{path}: {answer}");
    body.to_owned()
}
