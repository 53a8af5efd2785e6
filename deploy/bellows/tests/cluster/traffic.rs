//! Requests to an app with routes, through the nodes' ingresses.

use std::net::{Ipv4Addr, TcpListener};

use super::support::http;
use super::support::machine;
use super::*;

/// A port of the nodes for this test alone.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn web(listen: u16) -> String {
    format!(
        "name: web\nimage: busybox\ncommand: [/bin/httpd, -f, -p, \"8080\", -h, /www]\nresources: {{cpu: 200m, memory: 64MiB}}\n\
         policy:\n  min: 0\n  max: 3\n  idle_grace: 1s\n  concurrency: {{target: 2}}\n\
         ports:\n  - {{name: web, port: 8080, protocol: http}}\nroutes:\n  - {{listen: {listen}, to: web}}\n"
    )
}

#[test]
fn from_zero_copies_a_request_to_any_node_is_served() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "2"]);
    let listen = free_port();
    bench.dev.cli.apply(&web(listen), &[]);
    assert_eq!(bench.dev.cli.replicas("web").len(), 0);
    let nodes = [1, 2].map(|node| SocketAddr::from((Ipv4Addr::new(127, 0, 0, node), listen)));
    let until = std::time::Instant::now() + PATIENCE;
    while http::get(nodes[0], "/").is_err() {
        assert!(std::time::Instant::now() < until, "nobody listens on {}", nodes[0]);
        std::thread::yield_now(); // ports open a moment after the app is declared
    }
    for node in nodes {
        assert_eq!(http::body(node, "/"), "busybox serves\n", "asked at {node}");
    }
    bench.end();
}
