//! Two ingresses: one takes requests, the other owns the copy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use bellows_agent::ingress::{IngressConfig, LinkConfig, LinkIdentity};
use bellows_agent_core::traffic::{Protocol, Terms};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::http1::wait;
use crate::support::{House, Server, free_port, head, hold, read, replica, rest};

/// An authority that makes nodes.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// As the controller makes them: for clients, with a name and no address.
    fn identity(&self, name: &str) -> LinkIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        LinkIdentity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            authority_pem: self.pem.clone(),
        }
    }
}

/// The one that is asked, the one that owns copy 1, and where the owner is.
pub fn pair(app_port: u16, terms: Terms, protocol: Protocol, names: [LinkIdentity; 2]) -> (House, House, SocketAddr) {
    let houses = names.map(|identity| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let link = Some(LinkConfig { address, identity });
        let config = IngressConfig { link, ..IngressConfig::default() };
        (House::with(app_port, terms.clone(), protocol, config), address)
    });
    let [(asked, _), (owner, address)] = houses;
    owner.copy(1, false);
    (asked, owner, address)
}

pub fn nodes() -> [LinkIdentity; 2] {
    let authority = Authority::new();
    [authority.identity("node:1"), authority.identity("node:2")]
}

#[test]
fn a_request_goes_to_the_owner_of_the_copy_and_is_counted_there_once() {
    let (begun, seen) = std::sync::mpsc::sync_channel(10);
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(10);
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(1, 0, move |mut stream| {
        let got = head(&mut stream);
        begun.send(()).expect("told");
        gone.lock().expect("not poisoned").recv().expect("told to go on");
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{got}", got.len()).as_bytes())
            .expect("said");
    });
    let (asked, owner, address) = pair(server.port, Terms::default(), Protocol::Http, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    let mut stream = asked.connect();
    stream.write_all(b"GET /far HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
    seen.recv().expect("it is in the app");
    assert_eq!(owner.ingress.in_flight(replica(1)), 1);
    go.send(()).expect("told");
    let said = rest(&mut stream);
    assert!(
        said.starts_with("HTTP/1.1 200")
            && said.contains("GET /far")
            && said.contains("X-Forwarded-For: 127.0.0.1\r\n"),
        "{said}"
    );
    wait(|| owner.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn large_bodies_and_changed_protocols_cross_a_link_whole() {
    let size = 5 << 20;
    let server = Server::start(1, 0, move |mut stream| {
        let asked = head(&mut stream);
        if asked.contains("Upgrade: echo") {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                .expect("said");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("until the other side's end");
            return stream.write_all(&all).expect("said");
        }
        let body = read(&mut stream, size);
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).expect("said");
        stream.write_all(&body).expect("said");
    });
    let (asked, _owner, address) = pair(server.port, Terms::default(), Protocol::Http, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let mut stream = asked.connect();
    stream.write_all(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n").as_bytes()).expect("sent");
    stream.write_all(&body).expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    assert!(read(&mut stream, size) == body);
    let mut stream = asked.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst").expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 101"));
    stream.write_all(b" second").expect("sent");
    stream.shutdown(Shutdown::Write).expect("our end");
    assert_eq!(rest(&mut stream), "first second");
}

#[test]
fn full_and_parked_are_answered_before_the_app_sees_a_byte_and_the_request_is_held() {
    let server = Server::start(1, 0, |_| panic!("the copy was connected to"));
    let terms = Terms { limit: Some(1), ..hold(10, 400) };
    let (asked, owner, address) = pair(server.port, terms.clone(), Protocol::Http, nodes());
    owner.copy(1, true);
    asked.copy_elsewhere(1, 2, terms, address);
    let said = asked.get("/");
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("no copy could take it within"), "{said}");
    assert_eq!(owner.ingress.in_flight(replica(1)), 0);
}

#[test]
fn a_held_request_goes_through_when_the_owner_takes_it() {
    let server = Server::echo(1);
    let (asked, owner, address) = pair(server.port, Terms::default(), Protocol::Http, nodes());
    owner.copy(1, true);
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    let mut stream = asked.connect();
    stream.write_all(b"GET /later HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("sent");
    wait(|| asked.ingress.demand().iter().any(|(_, demand)| demand.held == 1));
    owner.copy(1, false);
    assert!(rest(&mut stream).contains("GET /later"));
}

#[test]
fn an_owner_that_is_full_says_when_there_is_room_and_everybody_gets_through() {
    let server = Server::start(1, 0, |mut stream| {
        while !head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("said");
        }
    });
    let terms = Terms { limit: Some(1), ..hold(1_000, 20_000) };
    let (asked, owner, address) = pair(server.port, terms.clone(), Protocol::Http, nodes());
    let version = std::cell::Cell::new(2);
    asked.copy_elsewhere(1, version.get(), terms.clone(), address);
    owner.ingress.routes(
        crate::support::APP,
        bellows_agent_core::traffic::Update { version: 9, whole: true, terms, ..Default::default() },
    );
    owner.copy(1, false);
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for house in [&asked, &asked, &owner] {
            for _ in 0..20 {
                scope.spawn(|| {
                    let said = house.get("/");
                    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
                });
            }
        }
    });
    assert!(
        began.elapsed() < std::time::Duration::from_secs(10),
        "{:?}: none waited for its turn by the clock",
        began.elapsed()
    );
    wait(|| owner.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn the_owner_keeps_its_connection_to_the_app_and_one_that_was_closed_costs_no_request() {
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (count, closes) = (connections.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let close = closes.clone();
    let (closed, seen) = std::sync::mpsc::sync_channel(1);
    let server = Server::start(1, 0, move |mut stream| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        while !head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("said");
            if close.load(std::sync::atomic::Ordering::SeqCst) {
                drop(stream); // without a word
                return closed.send(()).expect("told");
            }
        }
    });
    let (asked, owner, address) = pair(server.port, Terms::default(), Protocol::Http, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    let mut stream = asked.connect();
    let mut ask = || {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(read(&mut stream, 2), b"ok");
    };
    for _ in 0..50 {
        ask();
        wait(|| owner.ingress.in_flight(replica(1)) == 0);
    }
    let made = connections.load(std::sync::atomic::Ordering::SeqCst);
    assert!(made < 10, "{made} connections for 50 requests"); // one for each thread, and again after a second of silence
    closes.store(true, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..100 {
        ask();
        seen.recv().expect("it has closed"); // whether the owner has noticed or not
    }
}

#[test]
fn a_removed_nodes_links_end_and_its_certificate_is_refused_at_either_end() {
    let server = Server::echo(1);
    let terms = hold(10, 300);
    for removed_by_owner in [true, false] {
        let (asked, owner, address) = pair(server.port, terms.clone(), Protocol::Http, nodes());
        asked.copy_elsewhere(1, 2, terms.clone(), address);
        assert!(asked.get("/").starts_with("HTTP/1.1 200 "));
        match removed_by_owner {
            true => owner.ingress.removed_nodes(&[9, 1]),
            false => asked.ingress.removed_nodes(&[2]),
        }
        wait(|| asked.get("/").starts_with("HTTP/1.1 503 "));
        assert!(asked.get("/").starts_with("HTTP/1.1 503 "));
    }
}

#[test]
fn raw_connections_cross_a_link() {
    let server = Server::start(1, 0, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("until the other side's end");
        stream.write_all(&all).expect("said");
    });
    let (asked, _owner, address) = pair(server.port, Terms::default(), Protocol::Tcp, nodes());
    asked.copy_elsewhere(1, 2, Terms::default(), address);
    let mut stream = asked.connect();
    stream.write_all(b"over there").expect("sent");
    stream.shutdown(Shutdown::Write).expect("our end");
    assert_eq!(rest(&mut stream), "over there");
}

#[test]
fn whoever_is_no_node_of_this_cluster_is_refused_at_either_end() {
    let server = Server::start(1, 0, |_| panic!("the copy was connected to"));
    let (ours, theirs) = (Authority::new(), Authority::new());
    let wrong = [
        [ours.identity("operator:admin"), ours.identity("node:2")],
        [ours.identity("node:1"), ours.identity("operator:admin")],
        [theirs.identity("node:1"), ours.identity("node:2")],
    ];
    for names in wrong {
        let terms = hold(10, 300);
        let (asked, owner, address) = pair(server.port, terms.clone(), Protocol::Http, names);
        asked.copy_elsewhere(1, 2, terms, address);
        assert!(asked.get("/").starts_with("HTTP/1.1 503 "));
        assert_eq!(owner.ingress.in_flight(replica(1)), 0);
    }
}
