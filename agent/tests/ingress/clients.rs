//! Clients of other people's making: curl, wrk, hey, h2load, tonic, tungstenite.

use std::convert::Infallible;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use bellows_agent::ingress::IngressConfig;
use bellows_agent_core::traffic::{Protocol, Terms};
use http::uri::PathAndQuery;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use tungstenite::Message;

use crate::http1::wait;
use crate::http2::{app, run};
use crate::links::{nodes, pair};
use crate::support::{House, Server, replica};

/// What a program prints, if it is installed.
fn printed(program: &str, package: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(done) => Some(String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)),
        Err(_) => {
            eprintln!("skipped: {program} is not installed (package {package})");
            None
        }
    }
}

fn house() -> (House, String) {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let url = format!("http://127.0.0.1:{}/x", house.port);
    (house, url)
}

#[test]
fn curl_speaks_both_versions_in_clear() {
    let (_house, url) = house();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let Some(said) = printed("curl", "curl", &[flag, "-sS", "--max-time", "20", "-w", "%{http_version}", &url])
        else {
            return;
        };
        assert!(said.contains("GET /x HTTP/1.1") && said.ends_with(version), "{flag}: {said}");
    }
}

#[test]
fn wrk_hey_and_h2load_lose_nothing() {
    let (house, url) = house();
    if let Some(said) = printed("wrk", "wrk", &["-t1", "-c20", "-d1s", &url]) {
        assert!(
            said.contains("Requests/sec") && !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "{said}"
        );
    }
    if let Some(said) = printed("hey", "hey", &["-n", "2000", "-c", "20", &url]) {
        assert!(said.contains("[200]\t2000 responses") && !said.contains("Error distribution"), "{said}");
    }
    if let Some(said) = printed("h2load", "nghttp2-client", &["-n2000", "-c4", "-m50", &url]) {
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{said}");
    }
    let quick = app(|(_, mut respond)| async move { drop(respond.send_response(http::Response::new(()), true)) });
    let other = House::with(quick, Terms::default(), Protocol::Http2, IngressConfig::default());
    other.copy(1, false);
    let url = format!("http://127.0.0.1:{}/x", other.port);
    if let Some(said) = printed("h2load", "nghttp2-client", &["-n5000", "-c4", "-m100", &url]) {
        assert!(said.contains("5000 succeeded, 0 failed, 0 errored"), "{said}");
    }
    wait(|| house.ingress.in_flight(replica(1)) == 0 && other.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn a_websocket_is_opened_pinged_and_closed() {
    let server = Server::start(1, 0, |stream| {
        let mut socket = tungstenite::accept(stream).expect("a handshake");
        while let Ok(message) = socket.read() {
            if message.is_text() || message.is_binary() {
                socket.send(message).expect("sent");
            }
        }
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let url = format!("ws://a.example:{}/socket", house.port);
    let (mut socket, answer) = tungstenite::client(url, house.connect()).expect("a handshake");
    assert_eq!(answer.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    socket.send(Message::Ping(b"are you there"[..].into())).expect("sent");
    assert_eq!(socket.read().expect("a pong"), Message::Pong(b"are you there"[..].into()));
    assert_eq!(house.ingress.in_flight(replica(1)), 1, "as long as it is open");
    socket.close(None).expect("closed");
    assert!(socket.read().expect("its answer").is_close());
    while socket.read().is_ok() {}
    drop(socket);
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

/// A gRPC app: what it is sent comes back.
#[derive(Clone)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

type Answered = Result<http::Response<Body>, Infallible>;
type Strings = Pin<Box<dyn tokio_stream::Stream<Item = Result<String, Status>> + Send>>;

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(match request.uri().path() {
                "/test.Echo/Unary" => grpc.unary(service_fn(unary), request).await,
                "/test.Echo/Down" => grpc.server_streaming(service_fn(down), request).await,
                "/test.Echo/Up" => grpc.client_streaming(service_fn(up), request).await,
                _ => grpc.streaming(service_fn(both), request).await,
            })
        })
    }
}

async fn unary(request: Request<String>) -> Result<Response<String>, Status> {
    match request.get_ref().as_str() {
        "fail" => Err(Status::failed_precondition("not like this")),
        "hang" => std::future::pending().await,
        _ => {
            let mut answer = Response::new(request.get_ref().clone());
            answer.metadata_mut().insert("x-early", "1".parse().expect("a value"));
            Ok(answer)
        }
    }
}

async fn down(request: Request<String>) -> Result<Response<Strings>, Status> {
    let word = request.into_inner();
    let all = (0..5).map(move |n| Ok(format!("{word}{n}")));
    let end = tokio_stream::once(Err(Status::data_loss("the rest is lost")));
    Ok(Response::new(Box::pin(tokio_stream::iter(all).chain(end))))
}

async fn up(request: Request<tonic::Streaming<String>>) -> Result<Response<String>, Status> {
    let mut words = request.into_inner();
    let mut all = String::new();
    while let Some(word) = words.message().await? {
        all.push_str(&word);
    }
    Ok(Response::new(all))
}

async fn both(request: Request<tonic::Streaming<String>>) -> Result<Response<Strings>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}

fn grpc_app() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(Echo).serve_with_incoming(incoming).await
        })
    });
    port
}

type Client = tonic::client::Grpc<tonic::transport::Channel>;

async fn client(house: &House) -> Client {
    drop(house.connect());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{}", house.port)).expect("a URL");
    let mut client = Client::new(endpoint.connect().await.expect("connected"));
    client.ready().await.expect("ready");
    client
}

fn method(name: &str) -> PathAndQuery {
    format!("/test.Echo/{name}").parse().expect("a path")
}

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

async fn unary_calls(house: &House) {
    let mut grpc = client(house).await;
    let answer = grpc.unary(Request::new("hello".to_owned()), method("Unary"), codec()).await.expect("an answer");
    let early = answer.metadata().get("x-early").expect("metadata");
    assert_eq!((answer.get_ref().as_str(), early.as_bytes()), ("hello", &b"1"[..]));
    let large = "x".repeat(3 << 20);
    grpc.ready().await.expect("ready");
    let answer = grpc.unary(Request::new(large.clone()), method("Unary"), codec()).await.expect("an answer");
    assert!(answer.into_inner() == large);
    grpc.ready().await.expect("ready");
    let failed = grpc.unary(Request::new("fail".to_owned()), method("Unary"), codec()).await.expect_err("it fails");
    assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not like this"));
    grpc.ready().await.expect("ready");
    let mut hang = Request::new("hang".to_owned());
    hang.set_timeout(Duration::from_millis(200));
    let late = grpc.unary(hang, method("Unary"), codec()).await.expect_err("it hangs");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
}

async fn streams(house: &House) {
    let mut grpc = client(house).await;
    let down = grpc.server_streaming(Request::new("w".to_owned()), method("Down"), codec()).await.expect("a stream");
    let said: Vec<Result<String, Status>> = down.into_inner().collect().await;
    let words: Vec<&str> = said.iter().flatten().map(String::as_str).collect();
    assert_eq!(words, ["w0", "w1", "w2", "w3", "w4"]);
    let last = said.last().expect("an end").as_ref().expect_err("a status");
    assert_eq!((last.code(), last.message()), (Code::DataLoss, "the rest is lost"));
    grpc.ready().await.expect("ready");
    let words = tokio_stream::iter(["a", "b", "c"].map(str::to_owned));
    let all = grpc.client_streaming(Request::new(words), method("Up"), codec()).await.expect("an answer");
    assert_eq!(all.into_inner(), "abc");
    grpc.ready().await.expect("ready");
    let (say, words) = tokio::sync::mpsc::channel(1);
    let words = tokio_stream::wrappers::ReceiverStream::new(words);
    let mut back = grpc.streaming(Request::new(words), method("Both"), codec()).await.expect("a stream").into_inner();
    for word in ["one", "two", "three"] {
        say.send(word.to_owned()).await.expect("said");
        assert_eq!(back.message().await.expect("well").as_deref(), Some(word), "each at once");
    }
    drop(say);
    assert_eq!(back.message().await.expect("well"), None);
}

#[test]
fn grpc_passes_in_all_its_forms_here_and_over_a_link() {
    let port = grpc_app();
    let (asked, owner, address) = pair(port, Terms::default(), Protocol::Http2, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    for house in [&owner, &asked] {
        run(async {
            unary_calls(house).await;
            streams(house).await;
        });
        wait(|| owner.ingress.in_flight(replica(1)) == 0);
    }
}

#[test]
fn a_grpc_client_is_told_when_no_copy_takes_its_call() {
    let house = House::with(1, crate::support::hold(1, 200), Protocol::Http2, IngressConfig::default());
    let status = run(async {
        let mut grpc = client(&house).await;
        grpc.unary(Request::new("hello".to_owned()), method("Unary"), codec()).await.expect_err("nobody is there")
    });
    assert!(status.code() == Code::Unavailable && status.message().contains("no copy could take it"), "{status}");
}
