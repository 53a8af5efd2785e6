//! An ingress that ends: nothing new, and what is under way ends as it ends, within a bound.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bellows_agent_core::traffic::Terms;
use bytes::Bytes;
use http::{Request, Response};

use crate::http1::wait;
use crate::http2::{all, app, dial, run};
use crate::support::{House, PATIENCE, Server, head, read, rest};

fn refused(house: &House) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, house.port)), PATIENCE).is_err()
}

#[test]
fn a_request_under_way_is_answered_and_told_that_it_is_the_last_one() {
    let (begun, seen) = mpsc::sync_channel(1);
    let (go, gone) = mpsc::sync_channel::<()>(1);
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(1, 0, move |mut stream| {
        head(&mut stream);
        begun.send(()).expect("told");
        gone.lock().expect("not poisoned").recv().expect("told to go on");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("said");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    seen.recv().expect("it is in the app");
    std::thread::scope(|scope| {
        let end = scope.spawn(|| house.ingress.finish(PATIENCE));
        wait(|| refused(&house));
        go.send(()).expect("told");
        let said = rest(&mut stream);
        assert!(said.starts_with("HTTP/1.1 200") && said.contains("Connection: close\r\n"), "{said}");
        assert!(said.ends_with("ok"), "{said}");
        end.join().expect("it ends");
    });
}

#[test]
fn streams_end_behind_a_goaway_and_upgrades_go_on_until_their_end() {
    let port = app(|(request, mut respond)| async move {
        let (body, _) = all(request.into_body()).await.expect("a body");
        let mut stream = respond.send_response(Response::new(()), false).expect("answered");
        stream.send_data(body.into(), true).expect("sent");
    });
    let house = crate::http2::house2(port, Terms::default());
    std::thread::scope(|scope| {
        run(async {
            let mut link = dial(&house).await.ready().await.expect("ready");
            let request = Request::post("http://a.example/").body(()).expect("a request");
            let (answer, mut stream) = link.send_request(request, false).expect("sent");
            while house.ingress.in_flight(crate::support::replica(1)) == 0 {
                tokio::task::yield_now().await;
            }
            let end = scope.spawn(|| house.ingress.finish(PATIENCE));
            while link.clone().ready().await.is_ok() {
                tokio::task::yield_now().await; // until the GOAWAY is there
            }
            stream.send_data(Bytes::from_static(b"hello"), true).expect("sent");
            assert_eq!(all(answer.await.expect("an answer").into_body()).await.expect("a body").0, b"hello");
            drop((link, stream));
            tokio::task::spawn_blocking(|| ()).await.expect("no panic");
            while !end.is_finished() {
                tokio::task::yield_now().await;
            }
        });
    });
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .expect("said");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("until the other side's end");
        stream.write_all(&all).expect("said");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 101"));
    std::thread::scope(|scope| {
        let end = scope.spawn(|| house.ingress.finish(PATIENCE));
        wait(|| refused(&house));
        stream.write_all(b"still here").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("our end");
        assert_eq!(read(&mut stream, 10), b"still here");
        end.join().expect("it ends");
    });
}

#[test]
fn what_takes_too_long_is_cut_at_the_bound() {
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        head(&mut stream); // until the other side's end
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    wait(|| house.ingress.in_flight(crate::support::replica(1)) == 1);
    let began = Instant::now();
    house.ingress.finish(Duration::from_millis(400));
    assert!((300..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(rest(&mut stream), "");
}
