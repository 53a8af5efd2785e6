//! What the ingress itself answers, instead of an app: a status, when to come back, and the reason in a sentence.

use bellows_agent_core::traffic::Refusal;

use super::http1::request::Bad;

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
    /// A sentence, without a full stop.
    pub(crate) reason: String,
}

impl Answer {
    fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, retry_after: None, reason: reason.into() }
    }

    pub(crate) fn bad(bad: Bad) -> Self {
        Self::new(bad.0, bad.1)
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(408, "the head of the request did not come in time")
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(408, "the body of the request did not come in time")
    }

    pub(crate) fn body_too_large(most: u64) -> Self {
        Self::new(413, format!("the body of the request is too large: this app takes {most} bytes"))
    }

    pub(crate) fn no_app(host: &str, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        Self::new(404, format!("no app takes requests for host {host:?} and path {path:?} on this port"))
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
        Self { status: 503, retry_after: Some(refusal.retry_after()), reason: refusal.to_string() }
    }

    /// The copy broke its word; something of the request may have reached it.
    pub(crate) fn failed(what: &str) -> Self {
        Self::new(502, format!("the app's copy failed: {what}"))
    }

    pub(crate) fn no_answer() -> Self {
        Self::new(504, "the app's copy did not answer in time")
    }
}

/// The words of a status.
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// As gRPC says it, by its table for answers of intermediaries; so its clients know what to try again.
pub(crate) fn grpc(answer: &Answer) -> Vec<u8> {
    let status = match answer.status {
        400 | 431 => 13,             // internal
        404 | 405 => 12,             // unimplemented
        413 => 8,                    // resource exhausted
        408 | 502 | 503 | 504 => 14, // unavailable
        _ => 2,                      // unknown
    };
    let mut text = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\ngrpc-status: {status}\r\ngrpc-message: "
    );
    for byte in answer.reason.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.push_str("\r\n\r\n");
    text.into_bytes()
}

/// As HTTP/1.1 says it. The connection ends with it.
pub(crate) fn http1(answer: &Answer) -> Vec<u8> {
    let Answer { status, retry_after, reason } = answer;
    let retry = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    let length = reason.len() + 1;
    format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{retry}Connection: close\r\n\r\n{reason}\n",
        phrase(*status),
    )
    .into_bytes()
}
