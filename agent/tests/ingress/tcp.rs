//! Raw TCP.

use std::io::{Read, Write};
use std::net::Shutdown;

use bellows_agent::ingress::IngressConfig;
use bellows_agent_core::traffic::{Protocol, Terms};

use crate::http1::wait;
use crate::support::{House, Server, read, replica, rest};

fn house(server: &Server, terms: Terms) -> House {
    House::with(server.port, terms, Protocol::Tcp, IngressConfig::default())
}

#[test]
fn bytes_flow_both_ways_whole_and_each_side_may_end_first() {
    let server = Server::start(1, 0, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("until the other side's end");
        stream.write_all(&all).expect("said");
    });
    let house = house(&server, Terms::default());
    house.copy(1, false);
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 253) as u8).collect();
    let mut stream = house.connect();
    stream.write_all(&sent).expect("sent");
    stream.shutdown(Shutdown::Write).expect("our end");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("until its end");
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn a_connection_is_held_from_zero_and_counts_until_it_ends() {
    let server = Server::start(1, 0, |mut stream| {
        stream.write_all(b"hello").expect("said");
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|count| count > 0) {}
    });
    let house = house(&server, Terms::default());
    let mut stream = house.connect();
    wait(|| house.ingress.demand().iter().any(|(_, demand)| demand.held >= 1));
    house.copy(1, false);
    assert_eq!(read(&mut stream, 5), b"hello");
    assert!(house.ingress.in_flight(replica(1)) >= 1);
    stream.shutdown(Shutdown::Write).expect("our end");
    assert_eq!(rest(&mut stream), "");
}
