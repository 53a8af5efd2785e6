//! The server in this process, spoken to over a socket as curl would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn served() -> (SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), Error>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (end, ended) = tokio::sync::oneshot::channel();
    let server = serve(listener, async move { ended.await.expect("the test says when") });
    (address, end, tokio::spawn(server))
}

async fn request(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let head = format!("GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers in text");
    answer
}

#[tokio::test]
async fn every_answer_has_its_status_and_text() {
    let (address, _end, _server) = served().await;
    let cases = [
        ("/", "200 OK", "It can be told"),
        ("/health", "200 OK", "ok"),
        ("/burn?ms=1&cores=2", "200 OK", "burnt 1 ms on 2 core(s)"),
        ("/burn?seconds=0&share=50", "200 OK", "burns 50% of 1 core(s) for 0 s"),
        ("/burn", "400 Bad Request", "say ms=N"),
        ("/burn?ms=1&seconds=1", "400 Bad Request", "not both"),
        ("/burn?ms=1&cores=0", "400 Bad Request", "cores is 1 to 64"),
        ("/burn?seconds=1&share=101", "400 Bad Request", "share 1 to 100 percent"),
        ("/hold?mb=3", "200 OK", "holds 3 MiB"),
        ("/hold?mb=18446744073709551615", "400 Bad Request", "more than any machine has"),
        ("/slow?ms=1", "200 OK", "answered after 1 ms"),
        ("/stream?chunks=3&ms=0", "200 OK", "piece 3 of 3"),
        ("/busy?seconds=0&file=/nowhere/mark", "400 Bad Request", "/nowhere/mark"),
        ("/nothing", "404 Not Found", ""),
    ];
    for (path, status, text) in cases {
        let answer = request(address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(text), "{path}: {answer}");
    }
    assert!(request(address, "/").await.contains("holding 3 MiB"));
}

#[tokio::test]
async fn the_busy_mark_is_held_open() {
    let (address, _end, _server) = served().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mark = folder.path().join("busy");
    request(address, &format!("/busy?seconds=600&file={}", mark.display())).await;
    let open = std::fs::read_dir("/proc/self/fd").expect("Linux lists descriptors");
    let targets = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    assert_eq!(targets.filter(|target| *target == mark).count(), 1);
}

#[tokio::test]
async fn requests_under_way_finish_after_the_signal() {
    let (address, end, server) = served().await;
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(b"GET /stream?chunks=2&ms=50 HTTP/1.1\r\nHost: demo\r\n\r\n").await.expect("the server reads");
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.expect("the answer has begun");
    end.send(()).expect("the server waits for this");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("the rest of the answer");
    assert!(rest.contains("piece 2 of 2"), "{rest}");
    server.await.expect("no panic").expect("served to the end");
}

#[test]
fn ports_are_checked() {
    assert_eq!(port(None).expect("the default"), DEFAULT_PORT);
    assert_eq!(port(Some("81".into())).expect("a port"), 81);
    for bad in ["", "0", "65536", "http"] {
        assert!(matches!(port(Some(bad.into())), Err(Error::Port(text)) if text == bad));
    }
}
