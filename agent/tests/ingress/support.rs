//! An ingress on loopback, and plain servers in place of copies.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bellows_agent::ingress::{Dial, Ingress, IngressConfig, Patience};
use bellows_agent_core::traffic::{Entrance, HereCopy, Hold, Owner, Protocol, Route, Terms, ToldCopy, Update};
use bellows_agent_core::{AppId, Bytes, Fence, Millis, ReplicaId};

pub const APP: AppId = AppId(7);
/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Copies are on loopback.
pub struct Plain;

impl Dial for Plain {
    fn socket(&self, _: ReplicaId, _: u32) -> std::io::Result<OwnedFd> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

pub fn replica(counter: u64) -> ReplicaId {
    ReplicaId { fence: Fence { incarnation: 1, term: 1 }, counter }
}

/// An ingress with one app.
pub struct House {
    pub ingress: Ingress,
    pub port: u16,
    app_port: u16,
    protocol: Protocol,
    tls: bool,
    max_body: Option<Bytes>,
}

impl House {
    /// Its copies are at `app_port` of loopback addresses.
    pub fn new(app_port: u16, terms: Terms) -> Self {
        Self::patient(app_port, terms, Patience::default())
    }

    pub fn patient(app_port: u16, terms: Terms, patience: Patience) -> Self {
        Self::with(app_port, terms, Protocol::Http, IngressConfig { patience, ..IngressConfig::default() })
    }

    pub fn with(app_port: u16, terms: Terms, protocol: Protocol, config: IngressConfig) -> Self {
        Self::open_house(app_port, terms, protocol, config, false)
    }

    /// It takes TLS.
    pub fn secure(app_port: u16, terms: Terms, protocol: Protocol, config: IngressConfig) -> Self {
        Self::open_house(app_port, terms, protocol, config, true)
    }

    fn open_house(app_port: u16, terms: Terms, protocol: Protocol, config: IngressConfig, tls: bool) -> Self {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = IngressConfig { address, threads: 2, shared_ports: Vec::new(), ..config };
        let ingress = Ingress::start(&config, Arc::new(Plain));
        let ingress = ingress.expect("an ingress starts");
        let house = Self { ingress, port: free_port(), app_port, protocol, tls, max_body: None };
        house.ingress.routes(APP, Update { version: 1, whole: true, terms, ..Update::default() });
        house.open();
        house
    }

    fn open(&self) {
        let (listen, port, protocol, tls) = (self.port, self.app_port, self.protocol, self.tls);
        let route = Route { listen, port, protocol, tls, max_body: self.max_body, ..Route::default() };
        let entrance = Entrance { app: APP, name: "web".to_owned(), routes: vec![route], elastic: false };
        self.ingress.entrances(true, vec![entrance], &[]);
        self.connect();
    }

    /// From now on; threads learn of it one after the other.
    pub fn set_max_body(&mut self, most: u64) {
        self.max_body = Some(Bytes(most));
        self.open();
    }

    /// A copy at 127.0.0.`n`.
    pub fn copy(&self, n: u64, parked: bool) {
        let address = format!("127.0.0.{n}");
        self.ingress.here(APP, HereCopy { replica: replica(n), attempt: 1, address, ready: true, parked });
    }

    /// A copy of another node.
    pub fn copy_elsewhere(&self, n: u64, version: u64, terms: Terms, owner: SocketAddr) {
        let copy = ToldCopy { replica: replica(n), owner: Owner::At(owner.to_string()), ready: true, parked: false };
        self.ingress.routes(APP, Update { version, whole: true, terms, copies: vec![copy], ..Update::default() });
    }

    /// Listeners open a moment after routes are told.
    pub fn connect(&self) -> TcpStream {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect_timeout(&to, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a bound in time");
                    return stream;
                }
                Err(error) => assert!(std::time::Instant::now() < until, "nobody listens: {error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Sends these bytes and reads until the connection ends.
    pub fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        rest(&mut stream)
    }

    pub fn get(&self, path: &str) -> String {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").as_bytes())
    }
}

/// All that comes until the end.
pub fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert!(
            error.kind() != std::io::ErrorKind::WouldBlock,
            "no end came; so far {:?}",
            String::from_utf8_lossy(&all)
        );
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Exactly so much.
pub fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("so many bytes come");
    bytes
}

/// Up to the end of a head.
pub fn head(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) | Err(_) => break,
            Ok(_) => all.push(byte[0]),
        }
    }
    String::from_utf8(all).expect("heads are text")
}

/// A server of one address in place of a copy; each connection is given to `serve` on a thread of its own.
pub struct Server {
    pub port: u16,
    _thread: JoinHandle<()>,
}

impl Server {
    pub fn start(n: u8, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, n), port)).expect("a port for a server");
        let port = listener.local_addr().expect("an address").port();
        let serve = Arc::new(serve);
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        };
        Self { port, _thread: std::thread::spawn(accept) }
    }

    /// Answers every request with the head that it got.
    pub fn echo(n: u8) -> Self {
        Self::start(n, 0, |mut stream| {
            loop {
                let got = head(&mut stream);
                if got.is_empty() {
                    return;
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-App: yes\r\n\r\n{got}", got.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    /// Reads one head, says these bytes and closes.
    pub fn says(n: u8, bytes: &'static [u8]) -> Self {
        Self::start(n, 0, move |mut stream| {
            if !head(&mut stream).is_empty() {
                stream.write_all(bytes).expect("said");
            }
        })
    }
}

/// One that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

pub fn hold(requests: u32, ms: u64) -> Terms {
    Terms { hold: Hold { requests, bytes: Bytes(1 << 20), time: Millis(ms) }, ..Terms::default() }
}
