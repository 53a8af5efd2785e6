//! Apps and askers that do not do what they should.

use std::io::{Read, Write};
use std::time::Duration;

use bellows_agent::ingress::{Ingress, IngressConfig, Patience};
use bellows_agent_core::traffic::{Entrance, Route, Terms};

use crate::support::{APP, House, PATIENCE, Plain, Server, free_port, head, hold, replica, rest};

/// What is said of a copy that says this.
fn answer_of(bytes: &'static [u8]) -> String {
    let server = Server::says(1, bytes);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let said = house.get("/");
    assert_eq!(house.ingress.in_flight(replica(1)), 0);
    said
}

#[test]
fn a_copy_that_closes_early_or_answers_garbage_is_told_of() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "it closed the connection before it had answered"),
        (b"HTTP/1.1 200 O", "it closed the connection before it had answered"),
        (b"\x16\x03\x01\x02garbage\r\n\r\n", "the head of its answer is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "two different Content-Lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", "its Content-Length is no number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello", "its chunks are malformed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "it changes the protocol unasked"),
    ];
    for (bytes, what) in cases {
        let said = answer_of(bytes);
        assert!(said.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && said.contains(what), "{what}: {said}");
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_by_its_length_and_while_it_comes() {
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("until it is given up");
        assert!(all.len() < 1_000, "{} bytes came", all.len());
    });
    let mut house = House::new(server.port, Terms::default());
    house.set_max_body(500);
    house.copy(1, false);
    let by_length = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 501\r\n\r\nbeginning";
    let until = std::time::Instant::now() + PATIENCE;
    let said = loop {
        let mut stream = house.connect();
        stream.write_all(by_length).expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a bound in time");
        let mut said = String::new();
        if stream.read_to_string(&mut said).is_ok() {
            break said;
        }
        assert!(std::time::Instant::now() < until, "both threads know of the bound");
    };
    assert!(said.starts_with("HTTP/1.1 413 Content Too Large\r\n") && said.ends_with("takes 500 bytes\n"), "{said}");
    let mut stream = house.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    for _ in 0..20 {
        if stream.write_all(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes()).is_err() {
            break;
        }
    }
    let said = rest(&mut stream);
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
}

#[test]
fn a_port_of_another_process_is_refused_and_never_shared() {
    let config = |port| {
        let address = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        IngressConfig { address, shared_ports: vec![port], threads: 1, ..IngressConfig::default() }
    };
    let house = House::new(free_port(), Terms::default()); // it lets others of its own share its port
    let error = Ingress::start(&config(house.port), std::sync::Arc::new(Plain)).expect_err("the port is taken");
    assert!(
        error.to_string().contains("another process does") && error.to_string().contains("--ingress-port"),
        "{error}"
    );
    drop(house);
    Ingress::start(&config(free_port()), std::sync::Arc::new(Plain)).expect("a free one");
}

#[test]
fn a_head_without_end_is_too_large_from_apps_and_askers() {
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        let line = format!("X-{}: y\r\n", "x".repeat(1000));
        stream.write_all(b"HTTP/1.1 200 OK\r\n").expect("said");
        while stream.write_all(line.as_bytes()).is_ok() {}
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let said = house.get("/");
    assert!(said.starts_with("HTTP/1.1 502") && said.contains("too large"), "{said}");
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert!(house.say(long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert!(house.say(many.as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn an_answer_that_breaks_off_is_cut_and_never_looks_whole() {
    let cases: [(&[u8], &str); 2] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nhello\r\n"),
    ];
    for (bytes, end) in cases {
        let said = answer_of(bytes);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with(end), "{said}");
    }
}

#[test]
fn an_answer_before_the_body_was_sent_counts() {
    let server = Server::says(1, b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nbeginning").expect("sent");
    let said = rest(&mut stream);
    assert!(said.starts_with("HTTP/1.1 413 Too Large\r\n") && said.contains("Connection: close"), "{said}");
    assert!(said.ends_with("\r\n\r\nno"), "{said}");
}

#[test]
fn a_copy_that_hangs_a_slow_head_and_an_idle_connection_are_given_up() {
    let server = Server::start(1, 0, |mut stream| {
        head(&mut stream);
        head(&mut stream); // until the other side gives up
    });
    let short = Duration::from_millis(300);
    let house = House::patient(server.port, Terms::default(), Patience { head: short, idle: short, answer: short });
    house.copy(1, false);
    let said = house.get("/");
    assert!(said.starts_with("HTTP/1.1 504 Gateway Timeout\r\n") && said.contains("did not answer in time"), "{said}");
    assert_eq!(house.ingress.in_flight(replica(1)), 0);
    let mut slow = house.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    assert!(rest(&mut slow).starts_with("HTTP/1.1 408 "));
    assert_eq!(rest(&mut house.connect()), "");
    let mut body = house.connect();
    body.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").expect("sent");
    assert!(rest(&mut body).starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_copy_that_cannot_be_connected_to_gets_nothing_and_another_one_does() {
    let server = Server::echo(2);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false); // nobody is at 127.0.0.1
    house.copy(2, false);
    for _ in 0..10 {
        assert!(house.get("/").starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn a_copy_that_never_listens_ends_in_503_with_the_reason() {
    let house = House::new(free_port(), hold(10, 200));
    house.copy(1, false);
    let said = house.get("/");
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("no copy could take it within"), "{said}");
}

#[test]
fn a_connection_that_the_app_closed_meanwhile_costs_no_request() {
    let (closed, seen) = std::sync::mpsc::sync_channel(1);
    let server = Server::start(1, 0, move |mut stream| {
        if !head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("said");
            drop(stream); // without a word
            closed.send(()).expect("told");
        }
    });
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let mut stream = house.connect();
    for _ in 0..200 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        seen.recv().expect("it has closed"); // whether the ingress has noticed or not
    }
}

#[test]
fn a_host_that_nobody_serves_is_told_so() {
    let house = House::new(free_port(), Terms::default());
    let route = Route { listen: house.port, host: "only.example".to_owned(), port: 1, ..Route::default() };
    let entrance = Entrance { app: APP, name: "web".to_owned(), routes: vec![route], elastic: false };
    house.ingress.entrances(true, vec![entrance], &[]);
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        // Threads learn of it one after the other; until then the app is asked, and would hold the request.
        let mut stream = house.connect();
        stream.write_all(b"GET /x?y HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n").expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a bound in time");
        let mut said = String::new();
        if stream.read_to_string(&mut said).is_ok() && said.starts_with("HTTP/1.1 404 Not Found\r\n") {
            assert!(
                said.ends_with("no app takes requests for host \"other.example\" and path \"/x\" on this port\n"),
                "{said}"
            );
            return;
        }
        assert!(std::time::Instant::now() < until, "{said}");
    }
}
