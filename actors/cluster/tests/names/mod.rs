//! Names of other nodes, as their rows tell of them: found, refused, given way to, removed.

mod two;

use crate::support::{Node, QUIET, member, wait_until};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use weald_cluster::service::{BoxFuture, Push, PushError};
use weald_peers::{Liveness, Status};
use weald_proto::request::{
    ClientRole, Get, Lost, Named, Names, Put, Register, SendTo, Unregister, Whereis, reply_frame,
};
use weald_proto::{ErrorCode, Frame, Request};
use weald_storage::{Key, NodeId, TableName, WriteOp};

const OTHER: NodeId = NodeId([200; 16]);

fn table() -> TableName {
    TableName::parse("weald.names").unwrap()
}

fn key(name: &str, node: NodeId) -> Key {
    Key::new(&[name.as_bytes(), &[0], &node.0].concat()).unwrap()
}

/// A row as a node writes it: version, incarnation, life, owner, since.
fn row(incarnation: u8, since_ms: u8) -> Vec<u8> {
    vec![1, incarnation, 1, 5, b'o', b't', b'h', b'e', b'r', since_ms]
}

async fn write(node: &Node, op: WriteOp) {
    node.storage.store.write(op, Instant::now() + Duration::from_secs(20)).await.unwrap();
}

/// What another node tells of a name.
async fn tell(node: &Node, name: &str, incarnation: u8, since_ms: u8) {
    let (table, key) = (table(), key(name, OTHER));
    let value = row(incarnation, since_ms);
    write(node, WriteOp::Put { table, key, value, context: None, ttl: None }).await;
}

fn has_row(node: &Node, name: &str, of: NodeId) -> bool {
    let store = &node.storage.store;
    !store.get(&table(), &key(name, of)).unwrap().values.is_empty()
}

/// Changes the other member.
fn other_is(node: &Node, incarnation: u32, status: Status, liveness: Liveness) {
    node.cluster.send_modify(|cluster| {
        let mut changed = weald_peers::Cluster::clone(cluster);
        let other =
            weald_peers::Member { status, liveness, ..member(OTHER, "other-node", incarnation) };
        changed.members.insert(OTHER, other);
        *cluster = Arc::new(changed);
    });
}

/// Keeps what it is told of lost names.
#[derive(Default)]
struct Losing(Arc<Mutex<Vec<Lost>>>);

impl Push for Losing {
    fn request(&self, frame: Frame, _: Duration) -> BoxFuture<'static, Result<Frame, PushError>> {
        let Ok(Request::Lost(lost)) = Request::decode(frame.kind, &frame.body) else {
            panic!("not a loss: {frame:?}");
        };
        self.0.lock().unwrap().push(lost);
        Box::pin(std::future::ready(Ok(reply_frame::<Lost>(frame.corr, &Ok(())))))
    }
}

fn whereis(node: &Node, name: &str) -> Option<Named> {
    node.registry.whereis(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_another_node_are_found_and_taken_while_it_answers() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let register = |name: &str| client.call(&Register { name: name.into() });
    tell(&node, "pump", 7, 100).await;
    // Its row is here before the member is.
    assert!(client.call(&Names { prefix: String::new() }).await.unwrap().is_empty());
    other_is(&node, 7, Status::Joined, Liveness::Up);
    wait_until("it is found", || whereis(&node, "pump").is_some()).await;
    let found = client.call(&Whereis { name: "pump".into() }).await.unwrap().unwrap();
    let there = Named {
        name: "pump".into(),
        node: "other-node".into(),
        owner: "other".into(),
        since_ms: 100,
    };
    assert_eq!(found, there);
    let taken = register("pump").await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::Taken);
    assert!(taken.message.contains("other-node"), "{taken}");
    register("pumps").await.unwrap();
    let all = client.call(&Names { prefix: "pump".into() }).await.unwrap();
    let all: Vec<_> = all.iter().map(|n| (n.name.as_str(), n.node.as_str())).collect();
    assert_eq!(all, [("pump", "other-node"), ("pumps", "test")]);

    // Down: listed, but neither used nor refused. Whoever takes it is the younger, whatever the clocks say.
    other_is(&node, 7, Status::Joined, Liveness::Down);
    let send = SendTo { name: "pump".into(), payload: vec![], reply: false, timeout_ms: 1000 };
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let error = client.call(&send).await.unwrap_err();
        if error.code == ErrorCode::Unavailable && error.message.contains("does not answer") {
            assert!(error.message.contains("other-node"), "{error}");
            break;
        }
        assert!(Instant::now() < until, "{error}");
    }
    assert_eq!(whereis(&node, "pump").unwrap().node, "other-node");
    assert!(register("pump").await.unwrap().since_ms > 100);
    assert_eq!(whereis(&node, "pump").unwrap().node, "test");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_registration_elsewhere_takes_a_name_away_and_its_client_is_told() {
    let node = Node::start(QUIET).await;
    let own = node.storage.store.store().node_id();
    other_is(&node, 7, Status::Joined, Liveness::Up);
    let losses = Losing::default();
    let told = Arc::clone(&losses.0);
    let client = node.client_with(1, ClientRole::Writer, Arc::new(losses));
    for name in ["pump", "valve"] {
        client.call(&Register { name: name.into() }).await.unwrap();
        assert!(has_row(&node, name, own), "it is told before the answer");
    }
    tell(&node, "pump", 7, 3).await;
    wait_until("the client is told", || !told.lock().unwrap().is_empty()).await;
    let lost =
        Lost { name: "pump".into(), node: "other-node".into(), owner: "other".into(), since_ms: 3 };
    assert_eq!(*told.lock().unwrap(), [lost]);
    wait_until("the row is gone", || !has_row(&node, "pump", own)).await;
    assert_eq!(whereis(&node, "pump").unwrap().node, "other-node");
    let late = client.call(&Unregister { name: "pump".into() }).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::NotFound);
    assert_eq!(whereis(&node, "valve").unwrap().node, "test");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_follow_what_is_held_whatever_happens_to_them() {
    let node = Node::start(QUIET).await;
    let own = node.storage.store.store().node_id();
    let client = node.client(1, ClientRole::Writer);
    client.call(&Register { name: "pump".into() }).await.unwrap();
    // Somebody removes the row, and an old one of a former process comes back.
    write(&node, WriteOp::Delete { table: table(), key: key("pump", own), context: None }).await;
    let (table, stale) = (table(), key("stale", own));
    write(&node, WriteOp::Put { table, key: stale, value: row(1, 1), context: None, ttl: None })
        .await;
    wait_until("rows are mended", || has_row(&node, "pump", own) && !has_row(&node, "stale", own))
        .await;
    assert!(whereis(&node, "stale").is_none());
    // A session that ends while the registry is down.
    node.scope.kill("node/registry").unwrap();
    node.close(1);
    wait_until("its row is removed", || !has_row(&node, "pump", own)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gone_nodes_and_incarnations_held_vanishes_without_them() {
    let node = Node::start(QUIET).await;
    // The other has the greater id, so this one removes.
    for (incarnation, status) in [(8, Status::Joined), (7, Status::Left), (7, Status::Evicted)] {
        other_is(&node, 7, Status::Joined, Liveness::Up);
        tell(&node, "pump", 7, 100).await;
        wait_until("it is found", || whereis(&node, "pump").is_some()).await;
        other_is(&node, incarnation, status, Liveness::Down);
        wait_until("it is gone", || whereis(&node, "pump").is_none()).await;
        wait_until("its row is removed", || !has_row(&node, "pump", OTHER)).await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_read_the_table_of_names_and_do_not_write_it() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Operator);
    client.call(&Register { name: "pump".into() }).await.unwrap();
    let own = node.storage.store.store().node_id();
    let key: Vec<u8> = key("pump", own).into();
    let read = client.call(&Get { table: "weald.names".into(), key: key.clone() }).await.unwrap();
    assert_eq!(read.values.len(), 1);
    let put = Put { table: "weald.names".into(), key, value: vec![1], context: None, ttl_ms: None };
    assert_eq!(client.call(&put).await.unwrap_err().code, ErrorCode::Invalid);
    node.stop().await;
}
