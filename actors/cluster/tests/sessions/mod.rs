//! Requests of sessions and of the cluster through the gate, with a scripted replication behind it.

use crate::support::{Node, QUIET, nowhere};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use weald_cluster::gate::consistency::{Consistency, Place};
use weald_cluster::service::BoxFuture;
use weald_proto::cluster::{
    AaeStatus as AaeShown, ClusterStatus as ClusterShown, Members as Shown,
};
use weald_proto::request::{
    AaeDiff, AaeRun, AaeStatus, Batch, CatchUp, ClientRole, ClusterEvents, ClusterStatus,
    DeclareTable, Delete, Forget, Get, GetWith, Join, Leave, Members, Op, Put, PutIf, Table,
    TableKind, WriteWith,
};
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::{Actor, Context, Dot, Key, NodeId, Space, TableName, VersionVector};

/// A replication that catches up when it is told to. Tokens are numbers; each observation is one more than the token.
#[derive(Clone, Default)]
struct Script(Arc<State>);

#[derive(Default)]
struct State {
    is_here: AtomicBool,
    here: Notify,
    places: Mutex<Vec<Place>>,
    asked: AtomicU64,
}

impl Consistency for Script {
    fn is_caught_up(&self, token: &[u8]) -> Reply<bool> {
        if token.len() != 1 {
            return Err(WireError::new(ErrorCode::Invalid, "no token"));
        }
        Ok(token == [0] || self.0.is_here.load(Ordering::SeqCst))
    }

    fn caught_up(&self, _token: Vec<u8>, deadline: Instant) -> BoxFuture<'static, Reply<()>> {
        let script = Arc::clone(&self.0);
        Box::pin(async move {
            let late = |_elapsed| WireError::new(ErrorCode::NotCaughtUp, "not in time");
            timeout_at(deadline, script.here.notified()).await.map_err(late)
        })
    }

    fn observe(&self, token: Option<&[u8]>, place: Place, seen: &VersionVector) -> Reply<Vec<u8>> {
        self.0.places.lock().unwrap().push(place);
        assert!(seen.iter().len() <= 1);
        Ok(vec![token.map_or(0, |token| token[0]) + 1])
    }

    fn acked(&self, _: Place, dots: Vec<Dot>, members: u8, _: Instant) -> BoxFuture<'static, u8> {
        assert_eq!(dots.len(), 1);
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(members.min(2)))
    }
}

fn put(table: &str, value: &[u8]) -> Op {
    let (table, key, value) = (table.into(), b"k".to_vec(), value.to_vec());
    Op::Put(Put { table, key, value, context: None, ttl_ms: None })
}

fn write(op: Op, token: Option<Vec<u8>>) -> WriteWith {
    WriteWith { op, token, wait_ms: 30, concern: 0 }
}

fn get(token: Option<Vec<u8>>, wait_ms: u64) -> GetWith {
    GetWith { table: "t".into(), key: b"k".to_vec(), token, wait_ms }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_a_token_wait_for_it_and_do_nothing_when_it_does_not_come() {
    let script = Script::default();
    let node = Node::start_with(QUIET, Some(Arc::new(script.clone())), |_| nowhere()).await;
    let client = node.client(1, ClientRole::Writer);
    let first = client.call(&write(put("t", b"1"), None)).await.unwrap();
    assert_eq!((first.token, first.acked), (vec![1], 0));

    // Not here: neither read nor written.
    let ahead = Some(vec![9]);
    let refused = client.call(&get(ahead.clone(), 20)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotCaughtUp);
    let refused = client.call(&write(put("t", b"2"), ahead.clone())).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotCaughtUp);
    let refused = client.call(&CatchUp { token: vec![9], wait_ms: 1 }).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotCaughtUp);
    let stored = Get { table: "t".into(), key: b"k".to_vec() };
    assert_eq!(client.call(&stored).await.unwrap().values, [b"1".to_vec()]);

    // It comes while the request waits.
    let waiting = tokio::spawn(client.call(&get(ahead.clone(), 20_000)));
    tokio::task::yield_now().await;
    script.0.here.notify_one();
    let seen = waiting.await.unwrap().unwrap();
    assert_eq!((seen.current.values, seen.token), (vec![b"1".to_vec()], vec![10]));

    // Here already: nothing waits, writes keep the order of their calls.
    script.0.is_here.store(true, Ordering::SeqCst);
    let writes: Vec<_> =
        (0..50_u8).map(|i| client.call(&write(put("t", &[i]), ahead.clone()))).collect();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(client.call(&stored).await.unwrap().values, [vec![49]]);
    client.call(&CatchUp { token: vec![9], wait_ms: 0 }).await.unwrap();

    // A malformed token, one that is too long, and a write that is refused for itself.
    for token in [vec![], vec![0; weald_proto::limits::TOKEN_BYTES_MAX + 1]] {
        let refused = client.call(&get(Some(token), 0)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Invalid);
    }
    let refused = client.call(&write(put("weald.clients", b"x"), None)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
    node.stop().await;
}

/// The context of key `k` that names event `counter` of a node nobody has heard of.
fn made_up(counter: u64) -> Vec<u8> {
    let actor = Actor { node: NodeId([9; 16]), incarnation: 2 };
    let (table, key) = (TableName::parse("t").unwrap(), Key::new(b"k").unwrap());
    Context::new(&table, &key, [(actor, counter)].into_iter().collect()).encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_names_what_is_not_here_is_waited_for_and_never_stored() {
    let script = Script::default();
    let node = Node::start_with(QUIET, Some(Arc::new(script.clone())), |_| nowhere()).await;
    let client = node.client(1, ClientRole::Writer);
    let plain = |value: &[u8], context| Put {
        table: "t".into(),
        key: b"k".to_vec(),
        value: value.to_vec(),
        context,
        ttl_ms: None,
    };
    let stored = Get { table: "t".into(), key: b"k".to_vec() };
    let first = client.call(&plain(b"1", None)).await.unwrap();

    // What was read here is here.
    client.call(&plain(b"2", Some(first.context))).await.unwrap();

    // Made up: refused by each way in, alone in a batch, and with nothing changed.
    let before = client.call(&stored).await.unwrap();
    let refused = client.call(&plain(b"3", Some(made_up(1 << 40)))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotCaughtUp);
    assert!(refused.message.contains("context"), "{refused:?}");
    let condition = PutIf {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"3".to_vec(),
        expected: Some(made_up(7)),
        ttl_ms: None,
    };
    assert_eq!(client.call(&condition).await.unwrap_err().code, ErrorCode::NotCaughtUp);
    let delete = Delete { table: "t".into(), key: b"k".to_vec(), context: Some(made_up(7)) };
    assert_eq!(client.call(&delete).await.unwrap_err().code, ErrorCode::NotCaughtUp);
    let with = write(Op::Put(plain(b"3", Some(made_up(7)))), None);
    assert_eq!(client.call(&with).await.unwrap_err().code, ErrorCode::NotCaughtUp);
    let other = Put { key: b"other".to_vec(), ..plain(b"4", None) };
    let ops = vec![Op::Delete(delete), Op::Put(other)];
    let results = client.call(&Batch { ops }).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().code, ErrorCode::NotCaughtUp);
    assert!(results[1].is_ok());
    assert_eq!(client.call(&stored).await.unwrap(), before);

    // It arrives while the write waits.
    let waiting = tokio::spawn(client.call(&plain(b"5", Some(made_up(7)))));
    script.0.here.notify_one();
    waiting.await.unwrap().unwrap();
    let values = client.call(&stored).await.unwrap().values;
    assert!(values.contains(&b"5".to_vec()), "{values:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concerns_say_how_many_have_a_write_that_stays() {
    let script = Script::default();
    let node = Node::start_with(QUIET, Some(Arc::new(script.clone())), |_| nowhere()).await;
    let client = node.client(1, ClientRole::Writer);
    let memory =
        Table { name: "m".into(), kind: TableKind::Memory, resolver: "lww".into(), ttl_ms: None };
    client.call(&DeclareTable { table: memory }).await.unwrap();
    let three = WriteWith { concern: 3, ..write(put("t", b"1"), None) };
    assert_eq!(client.call(&three).await.unwrap().acked, 2);
    let two = WriteWith { concern: 2, ..write(put("m", b"1"), None) };
    assert_eq!(client.call(&two).await.unwrap().acked, 2);
    let spaces: Vec<_> = script.0.places.lock().unwrap().iter().map(|p| p.space).collect();
    assert_eq!(spaces, [Space::Durable, Space::Memory]);
    assert_eq!(client.call(&get(None, 0)).await.unwrap().current.values, [b"1".to_vec()]);

    // A conflict is no write: nobody is asked.
    let condition = PutIf {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"2".to_vec(),
        expected: None,
        ttl_ms: None,
    };
    let conflict = WriteWith { concern: 2, ..write(Op::PutIf(condition), None) };
    assert_eq!(client.call(&conflict).await.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(script.0.asked.load(Ordering::SeqCst), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_its_only_member_and_has_nobody_to_exchange_with() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Operator);
    let members: Shown = serde_json::from_str(&client.call(&Members {}).await.unwrap()).unwrap();
    assert_eq!((members.members.len(), &*members.members[0].name), (1, "test"));
    assert_eq!(members.own, members.members[0].node);
    let status: ClusterShown =
        serde_json::from_str(&client.call(&ClusterStatus {}).await.unwrap()).unwrap();
    assert_eq!((status.members, status.up, status.peers.len()), (1, 1, 0));
    let aae: AaeShown = serde_json::from_str(&client.call(&AaeStatus {}).await.unwrap()).unwrap();
    assert!(!aae.enabled && aae.peers.is_empty());
    let events = ClusterEvents { position: None, limit: 1, wait_ms: 1 };
    assert!(client.call(&events).await.unwrap().events.is_empty());

    let code = |reply: Reply<String>| reply.unwrap_err().code;
    let join = |address: &str| Join { addresses: vec![address.to_owned()], wait_ms: 1 };
    assert_eq!(code(client.call(&join("a:1")).await), ErrorCode::Unsupported);
    assert_eq!(code(client.call(&join("a")).await), ErrorCode::Invalid);
    let nowhere = Join { addresses: vec![], wait_ms: 1 };
    assert_eq!(code(client.call(&nowhere).await), ErrorCode::Invalid);
    assert_eq!(code(client.call(&Leave { wait_ms: 1 }).await), ErrorCode::Unsupported);
    let forget = Forget { member: "x".into(), force: false };
    assert_eq!(code(client.call(&forget).await), ErrorCode::NotFound);
    let run = AaeRun { peer: "x".into(), wait_ms: 1 };
    assert_eq!(code(client.call(&run).await), ErrorCode::NotFound);
    let diff = AaeDiff { peer: "test".into(), wait_ms: 1 };
    assert!(client.call(&diff).await.unwrap_err().message.contains("itself"));

    // Sessions work, concerns are never met, and tokens of other nodes are refused.
    let one = WriteWith { concern: 1, ..write(put("t", b"1"), None) };
    let written = client.call(&one).await.unwrap();
    assert_eq!(written.acked, 0);
    let seen = client.call(&get(Some(written.token.clone()), 0)).await.unwrap();
    assert_eq!((seen.current.values.len(), &seen.token), (1, &written.token));
    let mut foreign = written.token;
    foreign[3] ^= 1;
    let refused = client.call(&get(Some(foreign), 0)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
    let delete = Op::Delete(Delete { table: "t".into(), key: b"k".to_vec(), context: None });
    client.call(&write(delete, Some(seen.token))).await.unwrap();
    assert!(client.call(&get(None, 0)).await.unwrap().current.values.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_on_the_cluster_are_for_operators() {
    let node = Node::start(QUIET).await;
    let reader = node.client(1, ClientRole::Reader);
    let writer = node.client(2, ClientRole::Writer);
    reader.call(&Members {}).await.unwrap();
    reader.call(&AaeStatus {}).await.unwrap();
    let written = reader.call(&write(put("t", b"1"), None)).await.unwrap_err();
    assert_eq!(written.code, ErrorCode::Forbidden);
    let code = |reply: Reply<String>| reply.unwrap_err().code;
    assert_eq!(code(writer.call(&Leave { wait_ms: 1 }).await), ErrorCode::Forbidden);
    let forget = Forget { member: "x".into(), force: true };
    assert_eq!(code(writer.call(&forget).await), ErrorCode::Forbidden);
    let run = AaeRun { peer: "x".into(), wait_ms: 1 };
    assert_eq!(code(writer.call(&run).await), ErrorCode::Forbidden);
    node.stop().await;
}
