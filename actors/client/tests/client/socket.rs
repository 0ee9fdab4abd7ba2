//! The control socket: its file, and frames that are none.

use crate::support::{SECOND, eventually, logs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use weald_client::{Client, Error};
use weald_client_testing::{FakeNode, FakeService};
use weald_cluster::control;
use weald_cluster::session::Sessions;
use weald_proto::request::{Get, Status, request_frame};
use weald_supervision::{Root, Scope, StartError, Strategy, SupervisorSpec};

async fn start(path: &Path) -> Result<Root, StartError> {
    logs();
    let scope = Scope::new("test-node", None);
    let service = Arc::new(FakeService::new(scope.clone()));
    let child = control::child_spec(control::Config::new(path), service, Sessions::new());
    Root::start(&scope, "node", SupervisorSpec::new(Strategy::OneForOne).child(child)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owners_and_stale_files_give_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weald.sock");
    let root = start(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = start(&path).await.unwrap_err().to_string();
    assert!(second.contains("another node runs on this data directory"), "{second}");
    Client::unix(&path).await.unwrap().status().await.unwrap();
    root.shutdown(SECOND).await;
    assert!(!path.try_exists().unwrap(), "an orderly stop takes it away");

    // What a crash leaves behind: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let root = start(&path).await.unwrap();
    Client::unix(&path).await.unwrap().status().await.unwrap();
    root.shutdown(SECOND).await;

    std::fs::write(&path, "mine").unwrap();
    let in_the_way = start(&path).await.unwrap_err().to_string();
    assert!(in_the_way.contains("is in the way"), "{in_the_way}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let long = start(&dir.path().join("x".repeat(120))).await.unwrap_err().to_string();
    assert!(long.contains("at most 107") && long.contains("shorter data directory"), "{long}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_socket_actor_loses_connections_but_not_the_file() {
    let node = FakeNode::start().await;
    let client = Client::unix(node.socket()).await.unwrap();
    for _ in 0..3 {
        // A write on a connection that is just being lost has an unknown outcome; the next one is well.
        if client.put("t", "k", "v").await.is_err() {
            client.put("t", "k", "v").await.unwrap();
        }
        // Its successor may still be on its way up: the client answers from a connection that outlived the last kill.
        eventually("the socket actor is up", || node.scope.kill("node/control").is_ok()).await;
        client.get("t", "k").await.unwrap();
    }
    eventually("one session is left", || node.sessions.count() == 1).await;
    node.stop().await;
    assert!(matches!(client.get("t", "k").await, Err(Error::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_end_the_connection_only() {
    let node = FakeNode::start().await;
    let client = Client::unix(node.socket()).await.unwrap();
    let mut good = Vec::new();
    request_frame(7, &Status {}).encode(&mut good).unwrap();
    let get = Get { table: "t".into(), key: vec![1] };
    let mut oversize = Vec::new();
    request_frame(1, &get).encode(&mut oversize).unwrap();
    oversize[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    for bad in [vec![0xFF; 64], oversize] {
        let mut stream = UnixStream::connect(node.socket()).await.unwrap();
        stream.write_all(&[&good[..], &bad].concat()).await.unwrap();
        let mut answer = Vec::new();
        timeout(2 * SECOND, stream.read_to_end(&mut answer)).await.unwrap().ok();
        client.get("t", "k").await.unwrap();
    }
    // A frame cut short, then silence: nothing is kept when the peer goes.
    let mut stream = UnixStream::connect(node.socket()).await.unwrap();
    stream.write_all(&good[..10]).await.unwrap();
    drop(stream);
    eventually("only the client is left", || node.sessions.count() == 1).await;
    node.stop().await;
}
