//! TLS from whoever asks: certificates by name, both versions of HTTP, new files without a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bellows_agent::ingress::{Ingress, IngressConfig, TlsConfig};
use bellows_agent_core::traffic::{Protocol, Terms};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::http1::wait;
use crate::http2::{all, app, run};
use crate::support::{House, Plain, Server, read, replica};

/// Writes NAME.crt and NAME.key for a host; gives back the certificate.
fn write_pair(folder: &Path, name: &str, params: CertificateParams) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    write_key(folder, name, &key.serialize_pem());
    put(&folder.join(format!("{name}.crt")), &certificate.pem());
    certificate.der().clone()
}

fn write_key(folder: &Path, name: &str, pem: &str) {
    put(&folder.join(format!("{name}.key")), pem);
}

/// At once, as one puts such files in place.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::rename(&new, path).expect("in place");
}

fn host(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("a name")
}

fn secure(folder: &Path, app_port: u16, protocol: Protocol) -> House {
    let tls = TlsConfig { shared_ports: Vec::new(), folder: folder.to_owned(), default: Some("a".to_owned()) };
    let house = House::secure(
        app_port,
        Terms::default(),
        protocol,
        IngressConfig { tls: Some(tls), ..IngressConfig::default() },
    );
    house.copy(1, false);
    house
}

fn client(trusted: &[CertificateDer<'static>], alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|one| roots.add(one.clone()).expect("a root"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn connect(house: &House, config: &Arc<ClientConfig>, host: &'static str) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(host).expect("a name");
    StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a client"), house.connect())
}

/// Who it is that answers a client that asks for this host.
fn shown(house: &House, config: &Arc<ClientConfig>, host: &'static str) -> Option<CertificateDer<'static>> {
    let mut stream = connect(house, config, host);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    Some(stream.conn.peer_certificates()?.first()?.clone().into_owned())
}

#[test]
fn a_certificate_is_chosen_by_the_host_and_requests_are_told_that_they_were_safe() {
    let folder = TempDir::new().expect("a folder");
    let a = write_pair(folder.path(), "a", host("a.example"));
    let b = write_pair(folder.path(), "b", host("*.b.example"));
    let server = Server::echo(1);
    let house = secure(folder.path(), server.port, Protocol::Http);
    let config = client(&[a.clone(), b.clone()], &[]);
    assert_eq!(shown(&house, &config, "a.example"), Some(a));
    assert_eq!(shown(&house, &config, "x.b.example"), Some(b));
    assert_eq!(shown(&house, &config, "other.example"), None, "the default one is not for it, as its client sees");
    let mut stream = connect(&house, &config, "a.example");
    for path in ["/1", "/2"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes()).expect("sent");
        let mut all = Vec::new();
        while !all.ends_with(b"host=\"a.example\"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("more");
            all.push(byte[0]);
        }
        let said = String::from_utf8(all).expect("text");
        assert!(said.contains(&format!("GET {path} ")) && said.contains("X-Forwarded-Proto: https\r\n"), "{said}");
        assert!(said.contains("Forwarded: for=127.0.0.1;proto=https;"), "{said}");
    }
    drop(stream);
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn http_2_is_agreed_on_and_large_bodies_pass() {
    let folder = TempDir::new().expect("a folder");
    let a = write_pair(folder.path(), "a", host("a.example"));
    let port = app(|(request, mut respond)| async move {
        let (body, _) = all(request.into_body()).await.expect("a body");
        let mut stream = respond.send_response(http::Response::new(()), false).expect("answered");
        stream.send_data(body.into(), true).expect("sent");
    });
    let house = secure(folder.path(), port, Protocol::Http2);
    let config = client(&[a], &["h2", "http/1.1"]);
    run(async {
        let stream = house.connect();
        stream.set_nonblocking(true).expect("set");
        let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
        let name = ServerName::try_from("a.example").expect("a name");
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("safe");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (link, connection) = h2::client::handshake(stream).await.expect("a beginning");
        tokio::task::spawn_local(async move { connection.await.ok() });
        let request = http::Request::post("https://a.example/").body(()).expect("a request");
        let (answer, stream) = link.ready().await.expect("ready").send_request(request, false).expect("sent");
        let body = bytes::Bytes::from(vec![b'x'; 3 << 20]);
        tokio::task::spawn_local(crate::http2::send_all(stream, body.clone()));
        let (back, _) = all(answer.await.expect("an answer").into_body()).await.expect("a body");
        assert!(back == body, "{} bytes", back.len());
    });
    // The same in HTTP/1.1, to see what is left behind in a connection that is slow to take it.
    let mut stream = connect(&house, &client(&[CertificateDer::from(shown_any(&house))], &[]), "a.example");
    let size = 3 << 20;
    let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&vec![b'y'; size]).expect("sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("until its end");
    assert!(all.iter().filter(|byte| **byte == b'y').count() == size, "{} bytes", all.len());
}

fn shown_any(house: &House) -> Vec<u8> {
    let config = Arc::new(blind());
    shown(house, &config, "a.example").expect("a certificate").to_vec()
}

/// Trusts everybody, to see who is there.
fn blind() -> ClientConfig {
    #[derive(Debug)]
    struct Anybody;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    type Signed<'a> = &'a rustls::DigitallySignedStruct;
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: Signed<'_>,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: Signed<'_>,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth()
}

#[test]
fn new_files_are_taken_in_under_open_connections_and_broken_ones_are_not() {
    let folder = TempDir::new().expect("a folder");
    let first = write_pair(folder.path(), "a", host("a.example"));
    let server = Server::echo(1);
    let house = secure(folder.path(), server.port, Protocol::Http);
    let config = Arc::new(blind());
    let mut open = connect(&house, &config, "a.example");
    let mut ask = || {
        open.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").expect("sent");
        let mut some = [0; 64];
        open.read_exact(&mut some[..15]).expect("an answer");
        assert_eq!(&some[..15], b"HTTP/1.1 200 OK");
        while open.conn.process_new_packets().expect("well").plaintext_bytes_to_read() > 0 {
            assert!(open.read(&mut some).expect("more") > 0);
        }
    };
    ask();
    let second = write_pair(folder.path(), "a", host("a.example"));
    wait(|| shown(&house, &config, "a.example").as_ref() == Some(&second));
    assert_ne!(first, second);
    ask();
    // A key that belongs to nobody, and a certificate beside it: the second one stays, and what is right is taken in.
    write_key(folder.path(), "a", &KeyPair::generate().expect("a key").serialize_pem());
    let other = write_pair(folder.path(), "other", host("other.example"));
    wait(|| shown(&house, &config, "other.example").as_ref() == Some(&other));
    assert_eq!(shown(&house, &config, "a.example"), Some(second));
    std::fs::remove_file(folder.path().join("other.crt")).expect("removed");
    wait(|| shown(&house, &config, "other.example").as_ref() != Some(&other));
}

/// What is done to the folder, and what is said of it.
type Case<'a> = (&'a dyn Fn(&Path), &'a str);

#[test]
fn what_is_wrong_with_certificates_is_said_before_the_ingress_begins() {
    let said = |prepare: &dyn Fn(&Path)| {
        let folder = TempDir::new().expect("a folder");
        prepare(folder.path());
        let tls =
            TlsConfig { shared_ports: Vec::new(), folder: folder.path().to_owned(), default: Some("a".to_owned()) };
        let config = IngressConfig { shared_ports: Vec::new(), tls: Some(tls), ..IngressConfig::default() };
        let error = Ingress::start(&config, Arc::new(Plain)).expect_err("it must not begin");
        let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        text.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let good = |folder: &Path| drop(write_pair(folder, "a", host("a.example")));
    let cases: [Case<'_>; 8] = [
        (&|_| {}, "holds no certificate: put NAME.crt"),
        (
            &|folder| drop(write_pair(folder, "b", host("b.example"))),
            "holds no a.crt, which --default-certificate names: it holds b",
        ),
        (
            &|folder| {
                good(folder);
                write_key(folder, "a", &KeyPair::generate().expect("a key").serialize_pem());
            },
            "does not belong to the first certificate",
        ),
        (
            &|folder| {
                let mut params = host("a.example");
                (params.not_before, params.not_after) =
                    (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
                write_pair(folder, "a", params);
            },
            "expired on Jan  1",
        ),
        (
            &|folder| {
                good(folder);
                let open = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(folder.join("a.key"), open).expect("set");
            },
            "can be read by every user of this server (mode 0644): run `chmod 600",
        ),
        (
            &|folder| {
                good(folder);
                std::fs::remove_file(folder.join("a.key")).expect("removed");
            },
            "a.key: No such file",
        ),
        (
            &|folder| {
                good(folder);
                put(&folder.join("a.crt"), "nonsense");
            },
            "a.crt holds no certificate in PEM",
        ),
        (&|folder| drop(write_pair(folder, "a", CertificateParams::default())), "names no host"),
    ];
    for (prepare, words) in cases {
        let said = said(prepare);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn curl_is_served_in_both_versions() {
    if Command::new("curl").arg("--version").output().is_err() {
        return eprintln!("skipped: curl is not installed (package curl)");
    }
    let folder = TempDir::new().expect("a folder");
    write_pair(folder.path(), "a", host("a.example"));
    let server = Server::echo(1);
    let house = secure(folder.path(), server.port, Protocol::Http);
    drop(house.connect());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let to = format!("a.example:{}:127.0.0.1", house.port);
        let url = format!("https://a.example:{}/curl", house.port);
        let trusted = folder.path().join("a.crt");
        let done = Command::new("curl")
            .args([flag, "-sS", "--max-time", "20", "-w", "%{http_version}", "--resolve", &to, "--cacert"])
            .arg(trusted)
            .arg(url)
            .output()
            .expect("curl runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("GET /curl HTTP/1.1") && said.ends_with(version), "{flag}: {said}");
    }
}

/// Whatever its client would like to agree on: the app says what it speaks.
#[test]
fn raw_bytes_come_out_of_it_whole_and_a_cut_is_no_end() {
    let folder = TempDir::new().expect("a folder");
    let a = write_pair(folder.path(), "a", host("a.example"));
    let (tell, told) = std::sync::mpsc::sync_channel(2);
    let server = Server::start(1, 0, move |mut stream| {
        let mut all = Vec::new();
        let ended = stream.read_to_end(&mut all);
        tell.send((all.len(), ended.is_ok())).expect("somebody waits");
        stream.write_all(&all).ok();
    });
    let house = secure(folder.path(), server.port, Protocol::Tcp);
    let config = client(&[a], &["postgresql"]);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stream = connect(&house, &config, "a.example");
    stream.write_all(&sent).expect("sent");
    stream.conn.send_close_notify();
    stream.flush().expect("our end, in words");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("until its end");
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    assert_eq!(told.recv().expect("it has ended"), (sent.len(), true));
    let mut stream = connect(&house, &config, "a.example");
    stream.write_all(b"half a word").expect("sent");
    stream.sock.shutdown(std::net::Shutdown::Both).expect("cut");
    assert!(!told.recv().expect("it has ended").1, "the app sees a break");
    wait(|| house.ingress.in_flight(replica(1)) == 0);
}

#[test]
fn a_handshake_that_does_not_come_is_given_up_and_clear_text_is_refused() {
    let folder = TempDir::new().expect("a folder");
    write_pair(folder.path(), "a", host("a.example"));
    let house = secure(folder.path(), 1, Protocol::Http);
    let mut stream = house.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    assert_eq!(read(&mut stream, 1), [21], "an alert of TLS");
}
