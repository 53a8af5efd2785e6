//! Heads between their two forms. What is written here is read by the same strict reader as any request's text.

use std::io;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, request, response};

use crate::ingress::http1::framing::Framing;
use crate::ingress::http1::hop::is_hop;
use crate::ingress::http1::request::number;

/// Those that askers and apps may send, and those that the ingress adds.
const FIELDS_MOST: usize = 128 + 16;

/// A request as text, and whether its body follows in chunks. `ends`: none follows.
pub(super) fn request_text(request: &request::Parts, ends: bool) -> (Vec<u8>, bool) {
    let authority = request.uri.authority().map(|authority| authority.as_str());
    let path = match request.uri.path_and_query() {
        Some(path) => path.as_str(),
        None => authority.unwrap_or("*"),
    };
    let mut text = Vec::with_capacity(512);
    for part in [request.method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    if let Some(authority) = authority {
        field(b"host", authority.as_bytes(), &mut text);
    }
    for (name, value) in &request.headers {
        // One that says something else than the authority is written: two are refused by whoever reads this.
        let said = name == HOST && authority.is_some_and(|authority| authority.as_bytes() == value.as_bytes());
        if !said && name != COOKIE && !is_hop(name.as_str().as_bytes()) {
            field(name.as_str().as_bytes(), value.as_bytes(), &mut text);
        }
    }
    write_cookies(&request.headers, &mut text);
    let sized = request.headers.contains_key(CONTENT_LENGTH);
    let chunked = !ends && !sized;
    if chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if !sized && matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
        text.extend_from_slice(b"content-length: 0\r\n");
    }
    text.extend_from_slice(b"\r\n");
    (text, chunked)
}

/// HTTP/2 may send them one by one; an app of HTTP/1.1 looks for one field.
fn write_cookies(headers: &HeaderMap, text: &mut Vec<u8>) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        field(b"cookie", &cookies.join(&b"; "[..]), text);
    }
}

/// How the asker of an answer reads it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asker {
    /// It asked for the head alone.
    pub(super) head_only: bool,
    /// HTTP/1.0: knows no chunks.
    pub(super) old: bool,
}

/// An answer as text, and whether its body follows in chunks. `ends`: none follows.
pub(super) fn response_text(response: &response::Parts, asker: Asker, ends: bool) -> (Vec<u8>, bool) {
    let status = response.status;
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    let bodyless = asker.head_only || without_body(status);
    let grpc = is_grpc(&response.headers);
    let sized = response.headers.contains_key(CONTENT_LENGTH);
    let chunked = !bodyless && !ends && !asker.old && (!sized || grpc);
    for (name, value) in &response.headers {
        let replaced = chunked && name == CONTENT_LENGTH;
        if !replaced && !is_hop(name.as_str().as_bytes()) {
            field(name.as_str().as_bytes(), value.as_bytes(), &mut text);
        }
    }
    if chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if ends && !sized && !bodyless {
        text.extend_from_slice(b"content-length: 0\r\n");
    }
    text.extend_from_slice(b"\r\n");
    (text, chunked)
}

/// Its status comes behind its body, so that it needs chunks, which can have trailers.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn without_body(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Fields as lines.
pub(super) fn fields(fields: &HeaderMap, text: &mut Vec<u8>) {
    for (name, value) in fields {
        field(name.as_str().as_bytes(), value.as_bytes(), text);
    }
}

fn field(name: &[u8], value: &[u8], text: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A head that was read from its text.
pub(super) struct Whole<T> {
    /// Of its text.
    pub(super) length: usize,
    /// What follows.
    pub(super) body: Framing,
    pub(super) head: T,
}

/// Nothing when it is not whole yet.
type Read<T> = io::Result<Option<Whole<T>>>;

/// A request read from its text; nothing when it is not whole yet.
pub(super) fn read_request(text: &[u8]) -> Read<(Request<()>, Asker)> {
    const BAD: &str = "a request's head is malformed";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MOST];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(text).map_err(|_| malformed(BAD))? else { return Ok(None) };
    let method = Method::from_bytes(head.method.unwrap_or_default().as_bytes()).map_err(|_| malformed(BAD))?;
    let asker = Asker { head_only: method == Method::HEAD, old: head.version == Some(0) };
    let (mut headers, framing) = read_fields(head.headers)?;
    let host = headers.remove(HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    let path = head.path.unwrap_or("/");
    let uri = Uri::builder().scheme("http").authority(authority.unwrap_or("localhost")).path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri.build().map_err(|_| malformed(BAD))?;
    // Whatever its sender can do: trailers arrive here, and are passed on as far as they can be.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    *request.headers_mut() = headers;
    Ok(Some(Whole { length, body: framing.unwrap_or(Framing::NONE), head: (request, asker) }))
}

/// An answer read from its text, likewise.
pub(super) fn read_response(text: &[u8], head_only: bool) -> Read<Response<()>> {
    const BAD: &str = "an answer's head is malformed";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MOST];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(text).map_err(|_| malformed(BAD))? else { return Ok(None) };
    let status = StatusCode::from_u16(head.code.unwrap_or_default()).map_err(|_| malformed(BAD))?;
    let (headers, framing) = read_fields(head.headers)?;
    let body = if head_only || without_body(status) { Framing::NONE } else { framing.unwrap_or(Framing::UntilClose) };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(Whole { length, body, head: response }))
}

/// Trailers, from their lines.
pub(super) fn trailers(text: &[u8]) -> io::Result<HeaderMap> {
    const BAD: &str = "its trailers are malformed";
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MOST];
    match httparse::parse_headers(text, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(read_fields(fields)?.0),
        _ => Err(malformed(BAD)),
    }
}

/// Without those of the connection; and the body that they tell of, if they do.
fn read_fields(fields: &[httparse::Header<'_>]) -> io::Result<(HeaderMap, Option<Framing>)> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    let mut framing = None;
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed("a field's name is malformed"))?;
        if name.as_str() == "transfer-encoding" {
            framing = Some(Framing::CHUNKED);
        } else if name == CONTENT_LENGTH && framing.is_none() {
            framing = number(field.value).map(Framing::Length);
        }
        if !is_hop(field.name.as_bytes()) {
            let value = HeaderValue::from_bytes(field.value);
            headers.append(name, value.map_err(|_| malformed("a field's value is malformed"))?);
        }
    }
    Ok((headers, framing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_head_of_text() {
        let request = Request::post("https://a.example/x?y")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("host", "a.example")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (parts, ()) = request.into_parts();
        let (text, chunked) = request_text(&parts, false);
        let expected =
            "POST /x?y HTTP/1.1\r\nhost: a.example\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!((String::from_utf8_lossy(&text).as_ref(), chunked), (expected, true));
        let Whole { length, body, head: (request, asker) } = read_request(&text).expect("well-formed").expect("whole");
        assert_eq!((length, body, asker.head_only), (text.len(), Framing::CHUNKED, false));
        assert_eq!(
            (request.uri().to_string().as_str(), request.headers()["te"].as_bytes()),
            ("http://a.example/x?y", &b"trailers"[..])
        );
        let (text, chunked) = request_text(&parts, true);
        assert!(!chunked && text.ends_with(b"content-length: 0\r\n\r\n"));
    }

    #[test]
    fn an_answer_has_trailers_only_in_chunks() {
        let of = |length: bool, grpc: bool| {
            let mut response = Response::builder();
            response = if length { response.header("content-length", "5") } else { response };
            response = if grpc { response.header("content-type", "application/grpc+proto") } else { response };
            let (parts, ()) = response.body(()).expect("an answer").into_parts();
            response_text(&parts, Asker::default(), false).1
        };
        assert_eq!([of(false, false), of(true, false), of(true, true)], [true, false, true]);
        let trailers = trailers(b"grpc-status: 0\r\n\r\n").expect("well-formed");
        assert_eq!(trailers["grpc-status"], "0");
    }
}
