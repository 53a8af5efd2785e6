//! HTTP/1.1 as it should be.

use std::io::{Read, Write};
use std::net::Shutdown;

use bellows_agent_core::traffic::{Terms, Update};

use crate::support::{APP, House, Server, free_port, head, hold, read, replica, rest};

#[test]
fn a_request_reaches_the_app_with_where_it_came_from_and_without_fields_of_its_connection() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let said = house.say(
        b"GET /x?y HTTP/1.1\r\nhost: A.example\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
          Keep-Alive: 5\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
    );
    let (answer, seen) = said.split_once("\r\n\r\n").expect("an answer with a body");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("X-App: yes") && answer.contains("Connection: close"), "{answer}");
    assert_eq!(
        seen,
        "GET /x?y HTTP/1.1\r\nHost: A.example\r\nAccept: */*\r\nX-Forwarded-For: 9.9.9.9, 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: A.example\r\nForwarded: for=127.0.0.1;proto=http;host=\"A.example\"\r\n\r\n"
    );
}

#[test]
fn one_connection_serves_many_requests_also_when_they_come_all_at_once() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    let one = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    stream.write_all(one.repeat(3).as_bytes()).expect("sent");
    for _ in 0..3 {
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("Connection"), "{answer}");
        head(&mut stream);
    }
    assert_eq!(house.ingress.connections(replica(1)), 1, "one connection to the app was enough");
    stream.write_all(b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
    assert!(rest(&mut stream).contains("GET /b HTTP/1.1"));
}

/// News of bytes that were read already is no reason to give a connection up.
#[test]
fn a_connection_is_used_again_also_when_answers_come_in_pieces() {
    let server = Server::start(1, 0, |mut stream| {
        stream.set_nodelay(true).expect("an option of every socket");
        while !head(&mut stream).is_empty() {
            for piece in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", "\r\nab", "cd"] {
                stream.write_all(piece.as_bytes()).expect("said");
            }
        }
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    for _ in 0..300 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        head(&mut stream);
        assert_eq!(read(&mut stream, 4), b"abcd");
    }
    assert_eq!(house.ingress.connections(replica(1)), 1, "one connection to the app was enough");
}

#[test]
fn bodies_pass_both_ways_whole_with_a_length_and_in_chunks() {
    let size = 3 << 20;
    let server = Server::start(1, 0, move |mut stream| {
        let asked = head(&mut stream);
        let body = if asked.contains("Transfer-Encoding: chunked") {
            let mut all = Vec::new();
            while !all.ends_with(b"\r\n0\r\nx-end: 1\r\n\r\n") {
                let mut some = [0; 4096];
                let count = stream.read(&mut some).expect("more of the body");
                all.extend_from_slice(&some[..count]);
            }
            all
        } else {
            read(&mut stream, size)
        };
        let encoding = if asked.contains("chunked") {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {size}")
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{encoding}\r\n\r\n").as_bytes()).expect("answered");
        stream.write_all(&body).expect("answered");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    for chunked in [false, true] {
        let (field, sent) = if chunked {
            let mut sent = format!("{size:x}\r\n").into_bytes();
            sent.extend_from_slice(&body);
            sent.extend_from_slice(b"\r\n0\r\nx-end: 1\r\n\r\n");
            ("Transfer-Encoding: chunked".to_owned(), sent)
        } else {
            (format!("Content-Length: {size}"), body.clone())
        };
        let mut stream = house.connect();
        let mut writer = stream.try_clone().expect("a second handle");
        let expected = sent.clone();
        let send = std::thread::spawn(move || {
            writer.write_all(format!("POST / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n").as_bytes()).expect("sent");
            writer.write_all(&sent).expect("sent");
        });
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(read(&mut stream, expected.len()) == expected, "what came back is what was sent");
        send.join().expect("all was sent");
    }
}

#[test]
fn an_answer_to_head_has_no_body_and_one_to_http_1_0_no_chunks() {
    let server = Server::start(1, 0, |mut stream| {
        let mut asked = head(&mut stream);
        while !asked.contains(" HTTP/1.0\r\n") {
            if asked.is_empty() {
                return; // the other side's end
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").expect("answered");
            asked = head(&mut stream);
        }
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").expect("answered");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    assert!(head(&mut stream).contains("Content-Length: 5"));
    let said = house.say(b"GET / HTTP/1.0\r\n\r\n");
    assert!(said.ends_with("Connection: close\r\n\r\nuntil the end"), "{said}");
}

#[test]
fn what_an_app_says_before_its_answer_is_passed_on() {
    let server = Server::start(1, 0, |mut stream| {
        assert!(head(&mut stream).contains("Expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("said");
        let body = read(&mut stream, 4);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").expect("said");
        stream.write_all(&body).expect("said");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").expect("sent");
    assert_eq!(head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abcd").expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(read(&mut stream, 4), b"abcd");
}

#[test]
fn a_changed_protocol_flows_both_ways_and_counts_until_it_ends() {
    let server = Server::start(1, 0, |mut stream| {
        let asked = head(&mut stream);
        assert!(asked.contains("Connection: Upgrade\r\nUpgrade: websocket"), "{asked}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .expect("said");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("until the other side's end");
        stream.write_all(&all).expect("said");
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        .expect("sent");
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("Upgrade: websocket"), "{answer}");
    assert_eq!(read(&mut stream, 5), b"hello");
    assert_eq!(house.ingress.in_flight(replica(1)), 1);
    house.copy(1, true);
    stream.write_all(b" second").expect("sent");
    stream.shutdown(Shutdown::Write).expect("our end");
    assert_eq!(rest(&mut stream), "first second", "a parked copy serves on what it has");
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn from_zero_a_request_is_held_and_goes_through_when_a_copy_is_there() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    let mut stream = house.connect();
    stream.write_all(b"GET /held HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let demand = runtime.block_on(house.ingress.changed());
    assert_eq!((demand[0].1.held, demand[0].1.arrivals), (1, 1));
    house.copy(1, false);
    assert!(rest(&mut stream).contains("GET /held"));
}

#[test]
fn whoever_leaves_while_held_gives_its_place_up() {
    let house = House::new(free_port(), Terms::default());
    let stream = house.connect();
    (&stream).write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    wait(|| house.ingress.demand().iter().any(|(_, demand)| demand.held == 1));
    // Closing with bytes unread, or with this, resets the connection: its end alone could be that of somebody who still listens.
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("set");
    drop(stream);
    wait(|| house.ingress.demand().iter().all(|(_, demand)| demand.held == 0));
}

#[test]
fn beyond_its_bounds_the_queue_answers_503_with_the_reason_and_when_to_come_back() {
    let house = House::new(free_port(), hold(1, 300));
    let mut first = house.connect();
    first.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    wait(|| house.ingress.demand().iter().any(|(_, demand)| demand.held == 1));
    let said = house.get("/");
    assert!(said.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && said.contains("Retry-After: 1\r\n"), "{said}");
    assert!(said.ends_with("1 requests wait already, as many as this app allows\n"), "{said}");
    let said = rest(&mut first);
    assert!(said.contains("Retry-After: 5\r\n") && said.contains("no copy could take it within"), "{said}");
    assert!(said.ends_with("no copy is there\n"), "{said}");
    let told = async {
        loop {
            let demand = house.ingress.changed().await;
            if let Some((_, demand)) = demand.into_iter().find(|(_, demand)| demand.held == 0) {
                return demand.refused;
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let told = runtime.block_on(async { tokio::time::timeout(crate::support::PATIENCE, told).await });
    let refused = told.expect("whoever asks for copies hears that it waits no more");
    assert!(refused.count == 2 && refused.why.ends_with("no copy is there"), "{refused:?}");
}

#[test]
fn whoever_waits_hears_of_new_terms() {
    let house = House::new(free_port(), Terms::default());
    let mut stream = house.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    wait(|| house.ingress.demand().iter().any(|(_, demand)| demand.held == 1));
    let waiting = "its image is on its way".to_owned();
    house.ingress.routes(APP, Update { version: 2, terms: hold(1, 2_000), waiting, ..Update::default() });
    let said = rest(&mut stream);
    assert!(said.contains("no copy could take it within 2") && said.ends_with("; its image is on its way\n"), "{said}");
}

#[test]
fn at_its_limit_a_copy_gets_the_next_request_when_one_ends() {
    let (begun, seen) = std::sync::mpsc::sync_channel(10);
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(10);
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(1, 0, move |mut stream| {
        while !head(&mut stream).is_empty() {
            begun.send(()).expect("told");
            gone.lock().expect("not poisoned").recv().expect("told to go on");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("said");
        }
    });
    let house = House::new(server.port, Terms { limit: Some(1), ..Terms::default() });
    house.copy(1, false);
    let ask = || {
        let mut stream = house.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
        stream
    };
    let (mut first, mut second) = (ask(), ask());
    seen.recv().expect("one is in the app");
    wait(|| house.ingress.demand().iter().any(|(_, demand)| demand.held == 1));
    assert!(seen.try_recv().is_err(), "the second is not");
    go.send(()).expect("told");
    go.send(()).expect("told");
    assert!(rest(&mut first).starts_with("HTTP/1.1 200"));
    assert!(rest(&mut second).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_parked_copy_has_no_connection_of_ours_left() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    house.get("/");
    house.copy(1, true);
    wait(|| house.ingress.connections(replica(1)) == 0);
    assert_eq!(house.ingress.in_flight(replica(1)), 0);
}

/// Looks until it is so.
pub fn wait(so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while !so() {
        assert!(std::time::Instant::now() < until, "it did not come to pass");
        std::thread::yield_now();
    }
}
