//! Requests that two readers could understand differently: refused, or passed on with one meaning.

use bellows_agent_core::traffic::Terms;

use crate::support::{House, Server};

/// Name, bytes, expected status.
const REFUSED: [(&str, &[u8], u16); 29] = [
    ("CL.TE", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    ("TE.CL", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n", 400),
    ("TE.TE", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    ("TE twice", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    ("TE xchunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("TE list", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("TE with a vertical tab", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("TE quoted", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501),
    ("TE in 1.0", b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    ("one length twice", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("plus length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("minus length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello", 400),
    ("hex length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("endless length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nhello", 400),
    ("empty length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", 400),
    ("obs-fold", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", 400),
    ("bare line feeds", b"GET / HTTP/1.1\nHost: h\n\n", 400),
    ("one bare line feed", b"GET / HTTP/1.1\r\nHost: h\r\nX: y\nContent-Length: 5\r\n\r\n", 400),
    ("a bare carriage return", b"GET / HTTP/1.1\r\nHost: h\r\nX: y\rContent-Length: 5\r\n\r\n", 400),
    ("a zero byte", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("a host with a slash", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("a target without a slash", b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("CONNECT", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 405),
    ("a version of the future", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
];

#[test]
fn what_can_be_read_in_two_ways_is_refused_before_a_copy_sees_it() {
    let server = Server::start(1, 0, |_| panic!("the copy was connected to"));
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    for (name, bytes, status) in REFUSED {
        let said = house.say(bytes);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {said}");
        assert!(said.contains("Connection: close\r\n"), "{name}: {said}");
        assert_eq!(
            said.matches("HTTP/1.1").count(),
            1,
            "{name}: one answer, and what follows is never read as a request: {said}"
        );
    }
    let demand = house.ingress.demand();
    assert!(demand.iter().all(|(_, demand)| demand.arrivals == 0), "{demand:?}");
}

#[test]
fn malformed_chunks_are_refused_and_never_the_beginning_of_a_request() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let bodies: [&[u8]; 6] = [
        b"5\nhello\r\n0\r\n\r\n",
        b"0x5\r\n",
        b"5 \r\nhello",
        b"5;a\nb\r\nhello",
        b"-1\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
        let said = house.say(&bytes);
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        assert!(!said.contains("smuggled"), "{said}");
    }
}

#[test]
fn what_is_allowed_is_passed_on_with_one_meaning() {
    let server = Server::echo(1);
    let house = House::new(server.port, Terms::default());
    house.copy(1, false);
    let said = house.say(b"GET http://b.example/p?q HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert!(said.contains("GET /p?q HTTP/1.1\r\nHost: b.example\r\n") && !said.contains("Host: a.example"), "{said}");
    let said = house.say(b"\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close, host, content-length\r\n\r\n");
    assert!(said.contains("Host: h\r\n"), "a field that gives the request its meaning stays: {said}");
    let said = house.say(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    assert!(!said.contains("h2c") && !said.contains("Settings"), "{said}");
}
