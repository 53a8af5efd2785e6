//! Requests at a fixed rate, whatever the answers take; or one after the other, as fast as they come. As little work for each as can be, since
//! all of it is on the same machine as what is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::Failure;

/// What is asked for, over how many connections, for how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace<'a> {
    pub door: SocketAddr,
    pub host: &'a str,
    pub path: &'a str,
    pub connections: usize,
    pub length: Duration,
    /// Requests a second, all connections together; none: one after the other on each.
    pub rate: Option<f64>,
}

/// A connection that reads answers and throws them away.
pub struct Raw {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Raw {
    pub async fn connect(door: SocketAddr, host: &str, path: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bellows-bench\r\nAccept: */*\r\n\r\n");
        Ok(Self { stream, request: request.into_bytes(), buffer: vec![0; 64 << 10] })
    }

    /// One request and its whole answer; bytes of its body.
    pub async fn ask(&mut self) -> std::io::Result<usize> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        let (head, length) = loop {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
            if let Some(found) = head(&self.buffer[..filled]) {
                break found.ok_or_else(|| wrong(&self.buffer[..filled]))?;
            }
        };
        let mut left = (head + length).checked_sub(filled).ok_or_else(|| wrong(&self.buffer[..filled]))?;
        while left > 0 {
            match self.stream.read(&mut self.buffer).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => left = left.checked_sub(count).ok_or_else(|| wrong(&self.buffer[left..count]))?,
            }
        }
        Ok(length)
    }
}

fn wrong(bytes: &[u8]) -> std::io::Error {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
    std::io::Error::other(format!("it is not answered as it should be: {text}"))
}

/// Length of a whole head and of the body that it announces; an answer that is not good, or without a length, is none.
fn head(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(bytes) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(head)) => {
            let length = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
            Some(length.filter(|_| answer.code == Some(200)).map(|length| (head, length)))
        }
        Err(_) => Some(None),
    }
}

/// Milliseconds that each request took.
pub async fn drive(pace: Pace<'_>) -> Result<Vec<f64>, Failure> {
    let began = Instant::now();
    let mut askers = tokio::task::JoinSet::new();
    for number in 0..pace.connections {
        let failed = |error| Failure::failed(format!("connecting to {}: {error}", pace.door));
        let raw = Raw::connect(pace.door, pace.host, pace.path).await.map_err(failed)?;
        let every = pace.rate.map(|rate| Duration::from_secs_f64(pace.connections as f64 / rate));
        let first = every.map_or(began, |every| began + every * number as u32 / pace.connections as u32);
        askers.spawn(ask_on(raw, first, every, began + pace.length));
    }
    let mut samples = Vec::new();
    while let Some(asked) = askers.join_next().await {
        let asked = asked.map_err(|error| Failure::from_error(&error))?;
        samples.extend(asked.map_err(|error| Failure::failed(format!("a request to {}: {error}", pace.door)))?);
    }
    Ok(samples)
}

async fn ask_on(mut raw: Raw, first: Instant, every: Option<Duration>, end: Instant) -> std::io::Result<Vec<f64>> {
    let (mut due, mut samples) = (first, Vec::new());
    while due < end {
        let mut began = Instant::now();
        match every {
            None => due = began,
            // The clock that wakes us is coarser than a request: its lateness is not the proxy's. But who still waits for the last answer is late by that.
            Some(_) if began < due => {
                tokio::time::sleep_until(due.into()).await;
                began = Instant::now();
            }
            Some(_) => began = due,
        }
        raw.ask().await?;
        samples.push(began.elapsed().as_secs_f64() * 1e3);
        due += every.unwrap_or_default();
    }
    Ok(samples)
}
