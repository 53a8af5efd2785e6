//! Who may do what: tokens, certificates, roles.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bellows_controller::Controller;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{self as node};
use bellows_proto::operator::operator_client::OperatorClient;
use bellows_proto::operator::{self as operator};
use sha2::Digest as _;
use support::{House, config, soon};
use tonic::Code;
use tonic::transport::Identity;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

#[tokio::test]
async fn a_token_has_the_promised_shape() {
    let house = House::new().await;
    let token = house.token().await;
    let parts: Vec<_> = token.split('.').collect();
    let [kind, secret, fingerprint] = parts[..] else { panic!("three parts: {token}") };
    assert_eq!((kind, secret.len()), ("bellows1", 32));
    let pem = house.credential().authority_pem;
    let der = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("a certificate").1.contents;
    assert_eq!(fingerprint, hex::encode(sha2::Sha256::digest(der)));
    house.controller.shutdown().await;
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_refused() {
    let house = House::new().await;
    for wrong in ["", "00112233445566778899aabbccddeeff", &house.token().await] {
        let refusal = house.try_join("node-a", wrong).await.map(|joined| joined.node).expect_err("refused");
        assert_eq!(refusal.code(), Code::Unauthenticated, "{wrong}");
    }
    let short = house.controller.create_token(Duration::from_secs(1)).await.expect("a token");
    let secret = short.split('.').nth(1).expect("a secret");
    // The clock is the controller's own: asked until it has moved on. Each ask is refused or joins the same machine again.
    let refusal = soon("the token's end", async {
        loop {
            if let Err(refusal) = house.try_join("node-a", secret).await {
                break refusal;
            }
        }
    });
    assert_eq!(refusal.await.code(), Code::Unauthenticated);
    assert!(house.controller.create_token(Duration::from_millis(10)).await.is_err());
    house.controller.shutdown().await;
}

#[tokio::test]
async fn a_join_is_checked_before_it_is_committed() {
    let house = House::new().await;
    let token = house.token().await;
    let secret = token.split('.').nth(1).expect("a secret").to_owned();
    let sound = node::JoinRequest {
        token: secret,
        name: "node-a".to_owned(),
        machine: "m".to_owned(),
        protocol: bellows_proto::PROTOCOL,
        ..Default::default()
    };
    let mut client = NodesClient::new(house.channel(None).await);
    let mut refused = async |request| client.join(request).await.expect_err("refused");
    let nonsense = refused(node::JoinRequest { certificate_request_der: vec![1, 2, 3], ..sound.clone() }).await;
    assert_eq!(nonsense.code(), Code::InvalidArgument);
    assert!(nonsense.message().starts_with("certificate_request_der"), "{}", nonsense.message());
    let name = refused(node::JoinRequest { name: "Node A".to_owned(), ..sound.clone() }).await;
    assert!(name.message().starts_with("name: "), "{}", name.message());
    let newer = refused(node::JoinRequest { protocol: 99, ..sound.clone() }).await;
    assert!(newer.message().starts_with("protocol: "), "{}", newer.message());
    let mut operator = house.operator().await;
    assert!(operator.list_nodes(operator::ListNodesRequest {}).await.expect("listed").into_inner().nodes.is_empty());
    house.controller.shutdown().await;
}

#[tokio::test]
async fn nobody_without_the_right_certificate_gets_in() {
    let house = House::new().await;
    let mut stranger = OperatorClient::new(house.channel(None).await);
    let refusal = stranger.list_apps(operator::ListAppsRequest {}).await.expect_err("no certificate");
    assert_eq!(refusal.code(), Code::Unauthenticated);
    let mut stranger = NodesClient::new(house.channel(None).await);
    let refusal = stranger.session(tokio_stream::iter(Vec::new())).await.expect_err("no certificate");
    assert_eq!(refusal.code(), Code::Unauthenticated);
    let mut stranger = HealthClient::new(house.channel(None).await);
    let refusal = stranger.check(HealthCheckRequest::default()).await.expect_err("no certificate");
    assert_eq!(refusal.code(), Code::Unauthenticated);

    let joined = house.join("node-a").await;
    let mut node = OperatorClient::new(house.channel(Some(joined.identity.clone())).await);
    let refusal = node.create_token(operator::CreateTokenRequest::default()).await.expect_err("a node");
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let credential = house.credential();
    let operator = Identity::from_pem(&credential.certificate_pem, &credential.key_pem);
    let mut operator = NodesClient::new(house.channel(Some(operator)).await);
    let refusal = operator.fetch_blob(node::FetchBlobRequest::default()).await.expect_err("an operator");
    assert_eq!(refusal.code(), Code::PermissionDenied);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_worth_nothing() {
    let (house, other) = (House::new().await, House::new().await);
    let credential = other.credential();
    let identity = Identity::from_pem(&credential.certificate_pem, &credential.key_pem);
    let ours = house.credential();
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&ours.authority_pem))
        .domain_name("bellows-controller")
        .identity(identity);
    let endpoint = tonic::transport::Endpoint::from_shared(ours.controller).expect("an address");
    let channel = endpoint.tls_config(tls).expect("sound TLS").connect_lazy();
    let refusal = OperatorClient::new(channel).list_apps(operator::ListAppsRequest {}).await;
    let refusal = refusal.expect_err("a stranger's certificate");
    // TLS refuses it: depending on who speaks first, the client sees a closed connection or an alert.
    assert!(matches!(refusal.code(), Code::Unavailable | Code::Unknown), "{refusal:?}");
    house.controller.shutdown().await;
    other.controller.shutdown().await;
}

#[tokio::test]
async fn a_removed_node_gets_nothing_for_its_certificate() {
    let house = House::new().await;
    let joined = house.join("node-a").await;
    let mut operator = house.operator().await;
    operator
        .remove_node(operator::RemoveNodeRequest { node: "node-a".to_owned(), ..Default::default() })
        .await
        .expect("removed");
    let answer = support::first_answer(&house, &joined, vec![support::open_as(&joined.machine, Default::default())]);
    let Some(node::to_agent::Body::Refusal(refusal)) = answer.await else { panic!("no refusal") };
    let said = |word: &str| refusal.text.contains(word);
    assert!(!refusal.retry && said("was removed") && said("--token"), "{}", refusal.text);
    let mut client = NodesClient::new(house.channel(Some(joined.identity.clone())).await);
    let digest = support::digest_of(b"");
    let refusal = client.fetch_blob(node::FetchBlobRequest { digest }).await.expect_err("removed");
    assert_eq!(refusal.code(), Code::PermissionDenied);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn secrets_are_readable_by_their_owner_only() {
    let house = House::new().await;
    for name in ["authority.pem", "credential.json"] {
        let mode = std::fs::metadata(house.state().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(house.state()).expect("there").permissions().mode() & 0o777, 0o700);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn reflection_lists_the_services_and_health_serves() {
    let house = House::new().await;
    let credential = house.credential();
    let identity = || Some(Identity::from_pem(&credential.certificate_pem, &credential.key_pem));
    let mut reflection = ServerReflectionClient::new(house.channel(identity()).await);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter(vec![request])).await.expect("a stream").into_inner();
    let answer: ServerReflectionResponse = answers.message().await.expect("no error").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("no list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["bellows.operator.v1.Operator", "bellows.node.v1.Nodes", "bellows.member.v1.Members"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let mut health = HealthClient::new(house.channel(identity()).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner();
    let serving = soon("serving", async {
        // Set by a task of its own: the first answer may be older.
        while let Some(answer) = watch.message().await.expect("no error") {
            if answer.status() == tonic_health::pb::health_check_response::ServingStatus::Serving {
                return true;
            }
        }
        false
    });
    assert!(serving.await);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn starts_that_cannot_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = Controller::start(config(folder.path())).await.expect("the first starts");
    let Err(in_use) = Controller::start(config(folder.path())).await else { panic!("two controllers, one folder") };
    assert!(matches!(in_use, bellows_controller::StartError::FolderInUse { .. }), "{in_use}");
    let other = tempfile::tempdir().expect("a temporary folder");
    let busy = bellows_controller::ControllerConfig { listen: first.address(), ..config(other.path()) };
    let Err(busy) = Controller::start(busy).await else { panic!("two controllers, one port") };
    assert!(busy.to_string().contains("--listen"), "{busy}");
    let busy = bellows_controller::ControllerConfig { dashboard: first.dashboard_address(), ..config(other.path()) };
    let Err(busy) = Controller::start(busy).await else { panic!("two pages, one port") };
    assert!(busy.to_string().contains("--dashboard"), "{busy}");
    first.shutdown().await;
    std::fs::write(folder.path().join("state/version"), "99\n").expect("writable");
    let Err(newer) = Controller::start(config(folder.path())).await else { panic!("a newer folder") };
    assert!(newer.to_string().contains("newer version"), "{newer}");
    std::fs::write(folder.path().join("state/version"), "1\n").expect("writable");
    std::fs::remove_file(folder.path().join("state/raft/mark")).expect("there");
    let Err(damaged) = Controller::start(config(folder.path())).await else { panic!("a log without its mark") };
    assert!(matches!(damaged, bellows_controller::StartError::Log(_)), "{damaged}");
}
