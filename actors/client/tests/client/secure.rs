//! TLS, and where plain text is refused.

use crate::support::{SECOND, credential, logs};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use weald_client::{Client, Error};
use weald_client_testing::FakeNode;
use weald_cluster::transport::{Config, TlsFiles};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/client/tls").join(name)
}

fn tls() -> Config {
    let files = TlsFiles { cert: file("node.pem"), key: file("node.key"), ca: None };
    Config { tls: Some(files), ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_the_right_authority_gets_in_over_tls() {
    let node = FakeNode::with(tls()).await;
    let app = credential(&node, "app");
    let port = node.address().port();
    let builder = || Client::builder().credential(app.clone()).deadline(5 * SECOND);
    for host in ["localhost", "127.0.0.1"] {
        let client = builder().address(format!("{host}:{port}")).tls(file("ca.pem"));
        let client = client.connect().await.unwrap();
        let large = vec![1; 2 << 20];
        client.put("t", "k", large.clone()).await.unwrap();
        assert_eq!(client.get("t", "k").await.unwrap().value(), Some(&*large));
    }
    let short =
        || builder().address(format!("127.0.0.1:{port}")).deadline(Duration::from_millis(500));
    let untrusted = short().tls(file("node.pem")).connect().await.unwrap_err();
    assert!(
        matches!(&untrusted, Error::Unreachable { reason, .. } if reason.contains("TLS")),
        "{untrusted}"
    );
    assert!(matches!(short().connect().await, Err(Error::Unreachable { .. })), "plain text");
    assert!(matches!(short().tls(file("none")).connect().await, Err(Error::Invalid(_))));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_served_is_said_at_the_start() {
    logs();
    let anywhere = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
    let plain = Config { listen: anywhere.clone(), ..Config::default() };
    let why = FakeNode::try_with(plain.clone()).await.unwrap_err();
    assert!(why.contains("reachable from other machines"), "{why}");
    FakeNode::try_with(Config { allow_plaintext: true, ..plain }).await.unwrap().stop().await;
    FakeNode::try_with(Config { listen: anywhere, ..tls() }).await.unwrap().stop().await;

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let held = tokio::net::TcpListener::bind(taken.unwrap()).await.unwrap();
    let listen = vec![held.local_addr().unwrap()];
    let why = FakeNode::try_with(Config { listen, ..Config::default() }).await.unwrap_err();
    assert!(why.contains(&format!("address {} is in use", held.local_addr().unwrap())), "{why}");
    let missing = TlsFiles { cert: file("none.pem"), key: file("node.key"), ca: None };
    let why =
        FakeNode::try_with(Config { tls: Some(missing), ..Config::default() }).await.unwrap_err();
    assert!(why.contains("none.pem"), "{why}");
}
