//! Lost connections: what heals, what is told.

use crate::support::{SECOND, both, credential, eventually, over_cluster};
use std::time::Duration;
use weald_client::{Client, Error, WatchEvent};
use weald_client_testing::FakeNode;
use weald_cluster::transport;

/// Path of the one client's connection actor.
fn session_path(node: &FakeNode) -> String {
    let tree = node.scope.tree();
    let transport = tree.children.iter().find(|child| child.id == "transport").unwrap();
    let clients = transport.children.iter().find(|child| child.id == "clients").unwrap();
    clients.children.first().unwrap().path.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_heal_over_a_killed_session_and_writes_in_flight_are_unknown() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    client.put("t", "k", "v").await.unwrap();
    let mut watch = client.watch("t").await.unwrap();
    for round in 0..5_u8 {
        let write = client.put("never", "k", "v").deadline(20 * SECOND);
        let write = tokio::spawn(async move { write.await });
        let waiting = tokio::spawn({
            let calls = node.service.calls.load(std::sync::atomic::Ordering::Relaxed);
            let client = client.clone();
            async move { (client.get("t", "k").await, calls) }
        });
        waiting.await.unwrap().0.unwrap();
        node.scope.kill(&session_path(&node)).unwrap();
        assert_eq!(write.await.unwrap(), Err(Error::TimedOut(20 * SECOND)), "round {round}");
        assert_eq!(client.get("t", "k").await.unwrap().value().map(<[u8]>::len), Some(1));
        client.put("t", "k", [round]).await.unwrap();
        let Ok(WatchEvent::Change(change)) = watch.next().await else { panic!() };
        assert_eq!(change.now.value(), Some(&[round][..]));
    }
    eventually("old sessions are gone", || node.sessions.count() == 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_listener_comes_back_on_its_port_and_sessions_go_on() {
    let node = FakeNode::start().await;
    let client = over_cluster(&node, "app").await;
    // A session that is still being started goes with the listener, and its client comes back. Once another was let in and
    // served after it, it is well past that.
    client.put("t", "k", "v").await.unwrap();
    let barrier = over_cluster(&node, "barrier").await;
    barrier.get("t", "k").await.unwrap();
    drop(barrier);
    let (address, session) = (node.address(), session_path(&node));
    for _ in 0..3 {
        node.scope.kill("node/transport/listener").unwrap();
        client.put("t", "k", "v").await.unwrap();
        let other = credential(&node, "other");
        let other = Client::connect(address.to_string(), other).await.unwrap();
        other.get("t", "k").await.unwrap();
    }
    assert_eq!((node.address(), session_path(&node)), (address, session), "no session was lost");
    // The whole transport is another matter: everybody comes back.
    node.scope.kill("node/transport").unwrap();
    client.get("t", "k").await.unwrap();
    node.scope.kill("node/control").unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_unreachable_and_a_new_one_is_found() {
    let node = FakeNode::start().await;
    let address = node.address();
    let key = node.key_file("app");
    let credential = weald_client::Credential::read(&key).unwrap();
    let builder = Client::builder().address(address.to_string()).credential(credential.clone());
    let client = builder.deadline(Duration::from_millis(300)).connect().await.unwrap();
    client.put("t", "k", "v").await.unwrap();
    node.stop().await;
    eventually("the loss is seen", || !client.is_connected()).await;
    let write = client.put("t", "k", "v").await.unwrap_err();
    assert!(matches!(write, Error::Unreachable { .. }), "{write}: nothing was sent");
    assert!(matches!(client.get("t", "k").await, Err(Error::Unreachable { .. })));

    let config = transport::Config { listen: vec![address], ..transport::Config::default() };
    let node = FakeNode::with(config).await;
    node.credentials_from(&credential.public_key(), "app");
    eventually("the client is back", || client.is_connected()).await;
    client.put("t", "k", "v").await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_taken_away_cuts_its_sessions_only() {
    let node = FakeNode::start().await;
    let kept = over_cluster(&node, "kept").await;
    let cut = over_cluster(&node, "cut").await;
    cut.get("t", "k").await.unwrap();
    node.credentials.remove("cut");
    eventually("the session is cut", || node.sessions.connections("cut") == 0).await;
    let refused = cut.get("t", "k").await.unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{refused}");
    kept.get("t", "k").await.unwrap();
    assert_eq!(node.sessions.connections("kept"), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_client_ends_its_session() {
    let node = FakeNode::start().await;
    let clients = both(&node).await;
    for client in &clients {
        client.get("t", "k").await.unwrap();
    }
    assert_eq!(node.sessions.count(), 2);
    drop(clients);
    eventually("sessions are gone", || node.sessions.count() == 0).await;
    assert_eq!(node.service.closed.load(std::sync::atomic::Ordering::Relaxed), 2);
    node.stop().await;
}
