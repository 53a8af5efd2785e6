//! Who may reach out can ask for addresses by name; who may not has nobody to ask. The server is out in the world.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bellows_runtime::handle::Exit;
use bellows_runtime::{Runtime, RuntimeConfig};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;

use crate::network::{Node, WORLD};
use crate::support;

const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// One question, one address: every name has the same one, and no other records.
fn serve(socket: &UdpSocket) {
    const HEADER: usize = 12;
    let mut packet = [0_u8; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let Some(name_end) = packet[HEADER..length].iter().position(|byte| *byte == 0) else { continue };
        let end = HEADER + name_end + 5;
        let is_a = packet[end - 4..end - 2] == [0, 1];
        let mut reply = packet[..end].to_vec();
        reply[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
        if is_a {
            reply.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(ANSWER.octets());
        }
        socket.send_to(&reply, from).expect("answered");
    }
}

/// In the network namespace that stands for the world.
fn server(node: &Node) {
    let world = File::open(format!("/run/netns/{}", node.world)).expect("the world's namespace");
    let (told, bound) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        move_into_link_name_space(world.as_fd(), Some(LinkNameSpaceType::Network)).expect("in the world");
        let socket = UdpSocket::bind(SocketAddr::from((WORLD, 53))).expect("the port for names");
        told.send(()).expect("waited for");
        serve(&socket);
    });
    bound.recv().expect("it serves");
}

/// What a shell in a copy says, and how it ends.
fn ask(node: &Node, runtime: &Runtime, egress: bool) -> (Vec<String>, Exit) {
    let mut spec =
        node.place.spec("asks", &["sh", "-c", "cat /etc/resolv.conf; busybox nslookup app.example.org 2>&1"]);
    spec.root.set_file_name("busybox");
    spec.egress = egress;
    runtime.launch(&spec).expect("launched");
    let exit = runtime.reap(&spec.id).expect("reaped").exit;
    let said = support::lines(runtime, "asks").into_iter().map(|line| line.text).collect();
    runtime.forget(&spec.id).expect("forgotten");
    (said, exit)
}

#[test]
fn names_are_asked_of_the_servers_that_copies_with_egress_are_told() {
    let Some(node) = Node::new() else { return };
    if node.place.busybox().is_none() {
        return;
    }
    server(&node);
    let config = RuntimeConfig { nameservers: vec![IpAddr::V4(WORLD)], ..node.place.config().clone() };
    let runtime = Runtime::start(config).expect("a runtime");
    let (said, exit) = ask(&node, &runtime, true);
    assert_eq!((said[0].as_str(), exit), ("nameserver 198.51.100.2", Exit::Code(0)), "{said:?}");
    assert!(said.iter().any(|line| line.contains(&ANSWER.to_string())), "{said:?}");
    let (said, exit) = ask(&node, &runtime, false);
    assert!(exit != Exit::Code(0) && !said.iter().any(|line| line.starts_with("nameserver")), "{said:?}");
    runtime.shutdown().expect("shut down");
    node.place.assert_clean();
}
