//! HTTP/2 from whoever asks, and to apps that declare it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use bellows_agent::ingress::{IngressConfig, Patience};
use bellows_agent_core::traffic::{Protocol, Terms};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};

use crate::http1::wait;
use crate::links::{nodes, pair};
use crate::support::{House, Server, head, hold, read, replica};

/// Runs on an event loop of its own.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bounded = async { tokio::time::timeout(crate::support::PATIENCE, work).await.expect("in time") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded)
}

/// A connection with prior knowledge.
pub async fn dial(house: &House) -> SendRequest<Bytes> {
    dial_with(house, &h2::client::Builder::new()).await
}

async fn dial_with(house: &House, builder: &h2::client::Builder) -> SendRequest<Bytes> {
    let stream = house.connect();
    stream.set_nonblocking(true).expect("set");
    let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
    let (link, connection) = builder.handshake(stream).await.expect("a beginning");
    tokio::task::spawn_local(async move { connection.await.ok() });
    link
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).expect("a request")
}

/// All of a body, and its trailers.
pub async fn all(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}

/// Status and body.
async fn ask(link: &SendRequest<Bytes>, request: Request<()>) -> (u16, String) {
    let mut link = link.clone().ready().await.expect("ready");
    let (answer, _) = link.send_request(request, true).expect("sent");
    let answer = answer.await.expect("an answer");
    let status = answer.status().as_u16();
    let (body, _) = all(answer.into_body()).await.expect("a body");
    (status, String::from_utf8(body).expect("text"))
}

/// Sends all of a body as the other side takes it.
pub async fn send_all(mut stream: h2::SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("open").expect("open");
        stream.send_data(body.split_to(room.min(body.len())), body.is_empty()).expect("sent");
    }
}

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// An app that speaks HTTP/2 at 127.0.0.1; each request is given to `serve` on one event loop.
pub fn app<F: Future<Output = ()> + 'static>(serve: impl Fn(Asked) -> F + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let serve = std::rc::Rc::new(serve);
            while let Ok((stream, _)) = listener.accept().await {
                let serve = serve.clone();
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok(asked)) = connection.accept().await {
                        tokio::task::spawn_local(serve(asked));
                    }
                });
            }
        });
    });
    port
}

pub fn house2(port: u16, terms: Terms) -> House {
    let house = House::with(port, terms, Protocol::Http2, IngressConfig::default());
    house.copy(1, false);
    house
}

/// Answers with what it was asked, a body's length and trailers.
async fn echo((request, mut respond): Asked) {
    let mut said = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        said.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
    }
    let (body, trailers) = all(request.into_body()).await.expect("a whole request");
    said.push_str(&format!("{} bytes, trailers {:?}\n", body.len(), trailers.map(|t| t["x-end"].clone())));
    let mut stream = respond.send_response(Response::new(()), false).expect("answered");
    stream.send_data(said.into(), false).expect("sent");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().expect("a value"));
    stream.send_trailers(trailers).expect("sent");
}

#[test]
fn many_requests_at_once_reach_an_app_of_http_1_on_the_same_port() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    run(async {
        let link = dial(&house).await;
        let mut request = get("/x?y");
        for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("x-forwarded-for", "9.9.9.9"), ("te", "trailers")]
        {
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let (status, seen) = ask(&link, request).await;
        let expected = "GET /x?y HTTP/1.1\r\nHost: a.example\r\ncookie: a=1; b=2\r\nX-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n\
             Forwarded: for=127.0.0.1;proto=http;host=\"a.example\"\r\n\r\n";
        assert_eq!((status, seen.as_str()), (200, expected));
        let all = (0..100).map(|n| {
            let link = link.clone();
            tokio::task::spawn_local(async move { ask(&link, get(&format!("/{n}"))).await })
        });
        for (n, one) in all.collect::<Vec<_>>().into_iter().enumerate() {
            let (status, seen) = one.await.expect("no panic");
            assert!(status == 200 && seen.starts_with(&format!("GET /{n} HTTP/1.1\r\n")), "{seen}");
        }
    });
    assert!(house.get("/old").contains("GET /old HTTP/1.1"), "HTTP/1.1 on the same port");
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn bodies_pass_whole_in_chunks_and_by_length_both_ways() {
    let size = 3 << 20;
    let server = Server::start(1, 0, move |mut stream| {
        let asked = head(&mut stream);
        assert!(asked.contains(&format!("content-length: {size}\r\n")), "{asked}");
        let body = read(&mut stream, size);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("said");
        for piece in body.chunks(100_000) {
            stream.write_all(format!("{:x};ext=1\r\n", piece.len()).as_bytes()).expect("said");
            stream.write_all(piece).expect("said");
            stream.write_all(b"\r\n").expect("said");
        }
        stream.write_all(b"0\r\nx-sum: 9\r\n\r\n").expect("said");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let body: Bytes = (0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    run(async {
        let mut link = dial(&house).await.ready().await.expect("ready");
        let request = Request::post("http://a.example/").header("content-length", size).body(()).expect("a request");
        let (answer, stream) = link.send_request(request, false).expect("sent");
        tokio::task::spawn_local(send_all(stream, body.clone()));
        let (back, trailers) = all(answer.await.expect("an answer").into_body()).await.expect("a body");
        assert!(back == body, "{} of {size} bytes", back.len());
        assert_eq!(trailers.expect("trailers")["x-sum"], "9");
    });
}

#[test]
fn an_app_of_http_2_is_reached_by_both_versions_with_trailers() {
    let house = house2(app(echo), Terms::default());
    run(async {
        let mut link = dial(&house).await.ready().await.expect("ready");
        let request = Request::post("http://a.example/up").body(()).expect("a request");
        let (answer, mut stream) = link.send_request(request, false).expect("sent");
        stream.send_data(Bytes::from_static(b"hello"), false).expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().expect("a value"));
        stream.send_trailers(trailers).expect("sent");
        let answer = answer.await.expect("an answer");
        let (said, trailers) = all(answer.into_body()).await.expect("a body");
        let said = String::from_utf8(said).expect("text");
        assert!(said.starts_with("POST http://a.example/up\n") && said.contains("te: trailers\n"), "{said}");
        assert!(said.contains("x-forwarded-for: 127.0.0.1\n"), "{said}");
        assert!(said.ends_with("5 bytes, trailers Some(\"1\")\n"), "{said}");
        assert_eq!(trailers.expect("trailers")["x-sum"], "7");
    });
    let said = house.say(b"POST /old HTTP/1.1\r\nHost: b.example\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("POST http://b.example/old\n"), "{said}");
    assert!(said.contains("3 bytes, trailers None") && said.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{said}");
    let said = house.say(b"GET / HTTP/1.0\r\nHost: b.example\r\n\r\n");
    assert!(said.ends_with("0 bytes, trailers None\n"), "without chunks: {said}");
    assert!(house.ingress.connections(replica(1)) > 0);
    house.copy(1, true);
    wait(|| house.ingress.connections(replica(1)) == 0);
}

#[test]
fn streams_flow_both_ways_at_once_and_over_a_link_to_another_node() {
    let port = app(|(request, mut respond): Asked| async move {
        let mut body = request.into_body();
        let mut stream = respond.send_response(Response::new(()), false).expect("answered");
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).expect("released");
            stream.send_data(data, false).expect("sent");
        }
        stream.send_data(Bytes::new(), true).expect("sent");
    });
    let (asked, owner, address) = pair(port, Terms::default(), Protocol::Http2, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    for (house, counting) in [(&owner, &owner), (&asked, &owner)] {
        run(async {
            let mut link = dial(house).await.ready().await.expect("ready");
            let (answer, mut stream) = link.send_request(get("/bidi"), false).expect("sent");
            stream.send_data(Bytes::from_static(b"one"), false).expect("sent");
            let mut back = answer.await.expect("an answer").into_body();
            assert_eq!(back.data().await.expect("more").expect("data"), "one");
            assert_eq!(counting.ingress.in_flight(replica(1)), 1);
            stream.send_data(Bytes::from_static(b"two"), true).expect("sent");
            assert_eq!(all(back).await.expect("a body").0, b"two");
        });
        wait(|| counting.ingress.in_flight(replica(1)) == 0);
    }
}

#[test]
fn resets_pass_both_ways() {
    let (told, heard) = mpsc::sync_channel(4);
    let port = app(move |(request, mut respond): Asked| {
        let told = told.clone();
        async move {
            if request.uri().path() == "/cut" {
                let mut stream = respond.send_response(Response::new(()), false).expect("answered");
                stream.send_data(Bytes::from_static(b"half"), false).expect("sent");
                drop(all(request.into_body()).await); // until its asker has seen that half
                return stream.send_reset(Reason::INTERNAL_ERROR);
            }
            told.send("begun".to_owned()).expect("told");
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(format!("{reason:?}")).expect("told");
        }
    });
    let house = house2(port, Terms::default());
    run(async {
        let mut link = dial(&house).await.ready().await.expect("ready");
        let (answer, mut stream) = link.send_request(get("/cut"), false).expect("sent");
        let mut body = answer.await.expect("a head").into_body();
        assert_eq!(body.data().await.expect("more").expect("data"), "half");
        stream.send_data(Bytes::new(), true).expect("sent");
        let cut = all(body).await;
        assert_eq!(cut.expect_err("it is not whole").reason(), Some(Reason::INTERNAL_ERROR));
        let mut link = link.ready().await.expect("ready");
        let (answer, mut stream) = link.send_request(get("/never"), false).expect("sent");
        let begun = tokio::task::spawn_blocking(move || (heard.recv(), heard)).await.expect("no panic");
        assert_eq!(begun.0.as_deref(), Ok("begun"));
        stream.send_reset(Reason::CANCEL);
        let ended = tokio::task::spawn_blocking(move || begun.1.recv()).await.expect("no panic");
        assert_eq!(ended.as_deref(), Ok("Ok(CANCEL)"));
        drop(answer);
    });
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn an_answer_before_the_body_was_sent_counts() {
    let server = Server::says(1, b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    run(async {
        let mut link = dial(&house).await.ready().await.expect("ready");
        let (answer, mut stream) = link.send_request(get("/"), false).expect("sent");
        stream.send_data(Bytes::from_static(b"beginning"), false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 413);
        assert_eq!(all(answer.into_body()).await.expect("a body").0, b"no");
        let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reason, Reason::NO_ERROR, "no more of it is wanted");
    });
}

#[test]
fn each_stream_is_admitted_or_held_by_itself() {
    let (begun, seen) = mpsc::sync_channel(10);
    let (go, gone) = mpsc::sync_channel::<()>(10);
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(1, 0, move |mut stream| {
        while !head(&mut stream).is_empty() {
            begun.send(()).expect("told");
            gone.lock().expect("not poisoned").recv().expect("told to go on");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("said");
        }
    });
    let house = House::new(server.port, Terms { limit: Some(1), ..hold(2, 60_000) });
    house.copy(1, false);
    run(async {
        let link = dial(&house).await;
        let asks: Vec<_> = (0..3)
            .map(|_| {
                let link = link.clone();
                tokio::task::spawn_local(async move { ask(&link, get("/")).await.0 })
            })
            .collect();
        let demand = || house.ingress.demand().first().map(|(_, demand)| demand.held);
        while demand() != Some(2) {
            tokio::task::yield_now().await;
        }
        let (status, said) = ask(&link, get("/")).await;
        assert!(status == 503 && said.contains("2 requests wait already"), "{said}");
        seen.recv().expect("one is in the app");
        assert!(seen.try_recv().is_err(), "no other is");
        for _ in 0..3 {
            go.send(()).expect("told");
        }
        for one in asks {
            assert_eq!(one.await.expect("no panic"), 200);
        }
    });
}

#[test]
fn what_an_app_of_http_2_refused_is_asked_again_elsewhere_and_a_wrong_version_is_told() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let port = app(move |(_, mut respond): Asked| {
        let count = count.clone();
        async move {
            match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => respond.send_reset(Reason::REFUSED_STREAM),
                _ => drop(respond.send_response(Response::new(()), true)),
            }
        }
    });
    let house = house2(port, Terms::default());
    run(async { assert_eq!(ask(&dial(&house).await, get("/")).await.0, 200) });
    let old = Server::echo(1);
    let house = house2(old.port, Terms::default());
    let said = house.get("/");
    assert!(said.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && said.contains("the app's copy failed"), "{said}");
}

#[test]
fn an_app_that_hangs_is_given_up_and_the_connection_goes_on() {
    let port = app(|(request, mut respond): Asked| async move {
        if request.uri().path() == "/hang" {
            return std::future::pending().await;
        }
        drop(respond.send_response(Response::new(()), true));
    });
    let short = Duration::from_millis(300);
    let patience = Patience { answer: short, ..Patience::default() };
    let config = IngressConfig { patience, ..IngressConfig::default() };
    let house = House::with(port, Terms::default(), Protocol::Http2, config);
    house.copy(1, false);
    run(async {
        let link = dial(&house).await;
        let (status, said) = ask(&link, get("/hang")).await;
        assert!(status == 504 && said.contains("did not answer in time"), "{said}");
        assert_eq!(ask(&link, get("/")).await.0, 200);
    });
}

#[test]
fn a_connection_without_requests_is_ended_politely() {
    let short = Duration::from_millis(300);
    let house = House::patient(1, Terms::default(), Patience { idle: short, ..Patience::default() });
    let mut stream = house.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an end");
    let goaway = all.windows(5).filter(|bytes| bytes == b"\0\0\x08\x07\0").count();
    assert!(goaway >= 1, "GOAWAY came before the end: {all:?}");
}

/// What comes back to these frames until the connection ends, or `until` is in it; and did it end?
fn frames(house: &House, write: impl FnOnce(&mut std::net::TcpStream), until: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = house.connect();
    let mut writer = stream.try_clone().expect("a second handle");
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    write(&mut writer);
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while !all.windows(until.len()).any(|bytes| bytes == until) {
        match stream.read(&mut some) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return (all, false),
            Ok(0) | Err(_) => return (all, true),
            Ok(count) => all.extend_from_slice(&some[..count]),
        }
    }
    (all, false)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET / ` of `http://h`, in HPACK's static table and one literal.
const GET: &[u8] = b"\x82\x86\x84\x41\x01h";
/// GOAWAY, of eight bytes.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0";

/// The reason in the last GOAWAY.
fn reason(all: &[u8]) -> Option<u32> {
    let at = all.windows(GOAWAY.len()).rposition(|bytes| bytes == GOAWAY)?;
    let code = all.get(at + 13..at + 17)?;
    Some(u32::from_be_bytes(code.try_into().expect("four bytes")))
}

const ENHANCE_YOUR_CALM: Option<u32> = Some(11);

#[test]
fn floods_end_their_connection_and_nothing_else() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let (rapid, ended) = frames(
        &house,
        |writer| {
            for n in 0..20_000 {
                let mut both = frame(1, 5, 2 * n + 1, GET);
                both.extend(frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
                if writer.write_all(&both).is_err() {
                    return; // it has had enough
                }
            }
        },
        GOAWAY,
    );
    assert!(reason(&rapid) == ENHANCE_YOUR_CALM || ended, "rapid reset: {:?}", reason(&rapid));
    let (continuation, ended) = frames(
        &house,
        |writer| {
            let field = [&b"\0\x01x\x7f\xf1\x1e"[..], &[b'y'; 4000]].concat();
            let mut sent = writer.write_all(&frame(1, 1, 1, GET));
            for _ in 0..10_000 {
                sent = sent.and_then(|()| writer.write_all(&frame(9, 0, 1, &field)));
            }
        },
        GOAWAY,
    );
    assert!(reason(&continuation).is_some_and(|reason| reason > 0) || ended, "{continuation:?}");
    let (pings, _) = frames(
        &house,
        |writer| {
            for _ in 0..20_000 {
                writer.write_all(&frame(6, 0, 0, b"01234567")).expect("taken, one after the other");
            }
            writer.write_all(&frame(1, 5, 1, GET)).expect("sent");
        },
        b"X-Forwarded-For",
    );
    assert!(pings.windows(8).any(|bytes| bytes == b"GET / HT"), "pings are answered one by one, then the request");
    assert!(house.get("/after").contains("GET /after"), "others are served");
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn heads_that_are_too_large_and_requests_with_two_meanings_are_refused() {
    let server = Server::start(1, 0, |_| panic!("the copy was connected to"));
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    run(async {
        let mut large = get("/");
        large.headers_mut().insert("x", "y".repeat(40_000).parse().expect("a value"));
        assert_eq!(ask(&dial(&house).await, large).await.0, 431);
        for (name, value) in [("host", "b.example"), ("content-length", "5, 5"), ("content-length", "+5")] {
            let mut request = get("/");
            request.headers_mut().insert(name, value.parse().expect("a value"));
            let link = dial(&house).await;
            let (answer, _) = link.ready().await.expect("ready").send_request(request, true).expect("sent");
            match answer.await {
                Ok(answer) => assert_eq!(answer.status(), 400, "{name}: {value}"),
                Err(error) => assert!(error.is_reset() || error.is_go_away(), "{name}: {error}"),
            }
        }
    });
    // Fields of a connection do not exist in HTTP/2.
    for field in [&b"\0\x11transfer-encoding\x07chunked"[..], b"\0\x0aconnection\x05close", b"\0\x01X\x01y"] {
        let (said, _) = frames(
            &house,
            |writer| writer.write_all(&frame(1, 5, 1, &[GET, field].concat())).expect("sent"),
            b"\x03\0\0\0\0\x01",
        );
        assert!(said.windows(6).any(|bytes| bytes == b"\x03\0\0\0\0\x01") || reason(&said).is_some(), "{said:?}");
    }
    assert!(house.ingress.demand().iter().all(|(_, demand)| demand.arrivals == 0));
}

#[test]
fn a_reader_that_does_not_read_is_given_up_and_costs_little() {
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").expect("said");
        let piece = [b'x'; 65_536];
        let mut sent = 0;
        while stream.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        assert!(sent < 64 << 20, "{sent} bytes were taken for somebody who does not read");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    run(async {
        let mut link = dial(&house).await.ready().await.expect("ready");
        let (answer, _) = link.send_request(get("/"), true).expect("sent");
        let body = answer.await.expect("a head").into_body();
        let in_flight = house.ingress.in_flight(replica(1));
        assert_eq!(in_flight, 1);
        drop(body);
    });
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn apps_and_askers_at_fault_are_told_of_stream_by_stream() {
    let server = Server::start(1, 0, |mut stream| {
        let asked = head(&mut stream);
        let says: &[u8] = match asked.split(' ').nth(1) {
            Some("/early") => b"",
            Some("/garbage") => b"\x16\x03\x01\x02garbage\r\n\r\n",
            Some("/chunks") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            Some("/half") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            Some("/slow") => return drop(head(&mut stream)),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(says).expect("said");
    });
    let patience = Patience { answer: Duration::from_millis(300), ..Patience::default() };
    let house = House::patient(server.port, Terms::default(), patience);
    house.copy(1, false);
    run(async {
        let link = dial(&house).await;
        for (path, what) in
            [("/early", "closed the connection before"), ("/garbage", "malformed"), ("/chunks", "chunks")]
        {
            let (status, said) = ask(&link, get(path)).await;
            assert!(status == 502 && said.contains(what), "{path}: {status} {said}");
        }
        let mut ready = link.clone().ready().await.expect("ready");
        let (answer, _) = ready.send_request(get("/half"), true).expect("sent");
        let half = match answer.await {
            Ok(answer) => all(answer.into_body()).await.expect_err("it is not whole"),
            Err(error) => error, // which overtook the head
        };
        assert_eq!(half.reason(), Some(Reason::INTERNAL_ERROR));
        let mut ready = link.clone().ready().await.expect("ready");
        let (answer, mut stream) = ready.send_request(get("/slow"), false).expect("sent");
        stream.send_data(Bytes::from_static(b"beginning"), false).expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 408, "the rest of the body did not come");
        assert_eq!(ask(&link, get("/")).await, (200, "ok".to_owned()), "the connection goes on");
    });
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let short = Duration::from_millis(300);
    let house = House::patient(1, Terms::default(), Patience { idle: short, ..Patience::default() });
    let (_, ended) = frames(&house, |writer| writer.write_all(&frame(1, 1, 1, GET)).expect("sent"), b"no such bytes");
    assert!(ended);
}

#[test]
fn a_copy_that_listens_late_gets_its_request_then() {
    let port = crate::support::free_port();
    let house = House::new(port, hold(10, 20_000));
    house.copy(1, false);
    run(async {
        let link = dial(&house).await;
        let asked = tokio::task::spawn_local(async move { ask(&link, get("/late")).await });
        while house.ingress.demand().iter().all(|(_, demand)| demand.held == 0) {
            tokio::task::yield_now().await;
        }
        let _server = Server::start(1, port, |mut stream| {
            head(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").expect("said");
        });
        assert_eq!(asked.await.expect("no panic"), (200, "late".to_owned()));
    });
}
