//! Requests through the gate: values and contexts, conflicts, the change feed, names, roles, limits.

use crate::support::{Node, QUIET, open, wait_until};
use std::sync::Arc;
use std::time::Duration;
use weald_cluster::service::{BoxFuture, Push, PushError};
use weald_proto::request::{
    AddClient, Batch, ClientRole, Clients, DeclareTable, Delete, Deliver, Get, Kill, Log, Names,
    Op, Put, PutIf, Register, RemoveClient, Scan, SendTo, Table, TableKind, Tables, Tree,
    Unregister, Watch, Whereis, WriteWith, reply_frame,
};
use weald_proto::{ErrorCode, Frame, Request};
use weald_supervision::Status;

fn put(key: &[u8], value: &[u8]) -> Put {
    Put { table: "t".into(), key: key.to_vec(), value: value.to_vec(), context: None, ttl_ms: None }
}

fn get(key: &[u8]) -> Get {
    Get { table: "t".into(), key: key.to_vec() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_conflicts_and_batches() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let absent = client.call(&get(b"k")).await.unwrap();
    assert!(absent.values.is_empty());

    let create = PutIf {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"1".to_vec(),
        expected: None,
        ttl_ms: None,
    };
    let first = client.call(&create).await.unwrap();
    let conflict = client.call(&create).await.unwrap_err();
    assert_eq!(conflict.code, ErrorCode::Conflict);
    let current = conflict.current.unwrap();
    assert_eq!(current.values, vec![b"1".to_vec()]);
    assert_eq!(current.context, first.context);
    let second = PutIf { value: b"2".to_vec(), expected: Some(current.context), ..create };
    client.call(&second).await.unwrap();

    // Results of a batch stand alone and in order.
    let ops = vec![
        Op::Put(put(b"a", b"A")),
        Op::PutIf(PutIf { expected: None, ..second.clone() }),
        Op::Put(put(b"", b"empty key")),
        Op::Delete(Delete { table: "t".into(), key: b"k".to_vec(), context: None }),
        Op::Put(Put { table: "weald.clients".into(), ..put(b"x", b"y") }),
    ];
    let results = client.call(&Batch { ops }).await.unwrap();
    let codes: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.code)).collect();
    let expected =
        [None, Some(ErrorCode::Conflict), Some(ErrorCode::Invalid), None, Some(ErrorCode::Invalid)];
    assert_eq!(codes, expected);
    assert!(client.call(&get(b"k")).await.unwrap().values.is_empty());
    assert_eq!(client.call(&get(b"a")).await.unwrap().values, vec![b"A".to_vec()]);

    // A context of one key is refused for another.
    let context = client.call(&get(b"a")).await.unwrap().context;
    let stray = client.call(&Put { context: Some(context), ..put(b"b", b"B") }).await.unwrap_err();
    assert_eq!(stray.code, ErrorCode::Invalid);
    assert!(stray.message.contains("another key"), "{stray}");

    // What was acknowledged is there after a restart.
    let dir = node.stop().await;
    let store = open(dir.path());
    let table = weald_storage::TableName::parse("t").unwrap();
    let key = weald_storage::Key::new(b"a").unwrap();
    assert_eq!(store.get(&table, &key, 0).unwrap().values, vec![b"A".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn siblings_are_kept_or_resolved_as_the_table_says() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let table = Table {
        name: "sib".into(),
        kind: TableKind::Memory,
        resolver: "siblings".into(),
        ttl_ms: None,
    };
    client.call(&DeclareTable { table: table.clone() }).await.unwrap();
    assert!(client.call(&Tables {}).await.unwrap().contains(&table));
    let other = Table { kind: TableKind::Durable, ..table.clone() };
    assert_eq!(
        client.call(&DeclareTable { table: other }).await.unwrap_err().code,
        ErrorCode::Invalid
    );
    for name in ["sib", "t"] {
        let base = Put { table: name.into(), ..put(b"k", b"0") };
        let stale = Some(client.call(&base).await.unwrap().context);
        for value in [b"1", b"2"] {
            let put = Put { value: value.to_vec(), context: stale.clone(), ..base.clone() };
            client.call(&put).await.unwrap();
        }
        let got = client.call(&Get { table: name.into(), key: b"k".to_vec() }).await.unwrap();
        let mut values = got.values;
        values.sort();
        let expected: &[&[u8]] = if name == "sib" { &[b"1", b"2"] } else { &[b"2"] };
        assert_eq!(values, expected);
    }
    // The read above has repaired the siblings of the `lww` table: one value is left.
    let store = node.storage.store.clone();
    let table = weald_storage::TableName::parse("t").unwrap();
    let key = weald_storage::Key::new(b"k").unwrap();
    wait_until("repaired", || {
        !store.store().get(&table, &key, store.wall_ms()).unwrap().needs_repair
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_change_feed_resumes_and_wakes_and_pages() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let watch = Watch {
        table: Some("t".into()),
        prefix: b"p".to_vec(),
        position: None,
        limit: 10,
        wait_ms: 0,
    };
    let start = client.call(&watch).await.unwrap();
    assert!(start.events.is_empty() && !start.lagged);

    // A waiting poll wakes for a matching key, not for another.
    let waiting = tokio::spawn(client.call(&Watch {
        position: Some(start.position.clone()),
        wait_ms: 20_000,
        ..watch.clone()
    }));
    client.call(&put(b"other", b"x")).await.unwrap();
    client.call(&put(b"p1", b"1")).await.unwrap();
    let woken = waiting.await.unwrap().unwrap();
    assert_eq!(woken.events.len(), 1);
    assert_eq!(woken.events[0].key, b"p1");
    assert_eq!(woken.events[0].now.values, vec![b"1".to_vec()]);

    // From the old position everything comes again, in pages, nothing twice.
    for i in 0..40 {
        client.call(&put(format!("p{i:03}").as_bytes(), b"v")).await.unwrap();
    }
    client.call(&Delete { table: "t".into(), key: b"p1".to_vec(), context: None }).await.unwrap();
    let mut position = start.position;
    let mut keys = Vec::new();
    loop {
        let page = client.call(&Watch { position: Some(position), ..watch.clone() }).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        assert!(page.events.len() <= 10);
        keys.extend(page.events.into_iter().map(|e| (e.key, e.now.values.len())));
        position = page.position;
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 41);
    assert_eq!(keys.iter().filter(|(_, live)| *live == 0).count(), 1, "the deleted one");

    let bad = client.call(&Watch { position: Some(vec![9]), ..watch }).await.unwrap_err();
    assert_eq!(bad.code, ErrorCode::Invalid);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_page_in_key_order_over_all_partitions() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let ops = (0..300).map(|i| Op::Put(put(format!("k{i:04}").as_bytes(), b"v"))).collect();
    assert!(client.call(&Batch { ops }).await.unwrap().iter().all(Result::is_ok));
    let mut scan = Scan {
        table: "t".into(),
        prefix: b"k0".to_vec(),
        from: Some(b"k0010".to_vec()),
        to: Some(b"k0290".to_vec()),
        token: None,
        limit: 37,
        keys_only: true,
    };
    let mut keys = Vec::new();
    loop {
        let page = client.call(&scan).await.unwrap();
        keys.extend(page.items.into_iter().map(|i| String::from_utf8(i.key).unwrap()));
        match page.next {
            Some(token) => scan.token = Some(token),
            None => break,
        }
    }
    let expected: Vec<String> = (10..290).map(|i| format!("k{i:04}")).collect();
    assert_eq!(keys, expected);
    let bad = client.call(&Scan { token: Some(vec![1, 2]), ..scan }).await.unwrap_err();
    assert_eq!(bad.code, ErrorCode::Invalid);
    node.stop().await;
}

/// Answers deliveries with the payload reversed.
struct Reverser;

impl Push for Reverser {
    fn request(&self, frame: Frame, _: Duration) -> BoxFuture<'static, Result<Frame, PushError>> {
        let Ok(Request::Deliver(r)) = Request::decode(frame.kind, &frame.body) else {
            panic!("not a delivery: {frame:?}");
        };
        let answer = r.payload.into_iter().rev().collect();
        Box::pin(std::future::ready(Ok(reply_frame::<Deliver>(frame.corr, &Ok(answer)))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_actors_are_found_reached_and_freed() {
    let node = Node::start(QUIET).await;
    let owner = node.client_with(1, ClientRole::Writer, Arc::new(Reverser));
    let other = node.client(2, ClientRole::Writer);
    let register = Register { name: "pump".into() };
    assert_eq!(owner.call(&register).await.unwrap().owner, "client-1");
    assert_eq!(other.call(&register).await.unwrap_err().code, ErrorCode::Taken);
    let send =
        SendTo { name: "pump".into(), payload: b"abc".to_vec(), reply: true, timeout_ms: 1000 };
    assert_eq!(other.call(&send).await.unwrap(), b"cba");

    // Names outlive the registry actor, but not a session that ended while it was down.
    node.scope.kill("node/registry").unwrap();
    node.close(2);
    wait_until("registry is back", || node.registry.address().is_up()).await;
    assert!(other.call(&Whereis { name: "pump".into() }).await.unwrap().is_some());
    node.close(1);
    assert!(other.call(&Whereis { name: "pump".into() }).await.unwrap().is_none());
    assert_eq!(other.call(&send).await.unwrap_err().code, ErrorCode::NotFound);
    let other = node.client(3, ClientRole::Writer);
    other.call(&register).await.unwrap();
    assert_eq!(other.call(&Names { prefix: "pu".into() }).await.unwrap().len(), 1);
    other.call(&Unregister { name: "pump".into() }).await.unwrap();
    assert!(other.call(&Names { prefix: String::new() }).await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_kills_of_the_registry_leave_its_name_free() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let registry = || node.scope.get("node/registry").unwrap();
    for round in 1..=1000 {
        node.scope.kill("node/registry").unwrap();
        wait_until("registry is back", || {
            registry().restarts == round && registry().status == Status::Running
        })
        .await;
        if round % 100 == 0 {
            client.call(&Register { name: format!("name-{round}") }).await.unwrap();
        }
    }
    assert_eq!(client.call(&Names { prefix: "name-".into() }).await.unwrap().len(), 10);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_kept() {
    let node = Node::start(QUIET).await;
    let reader = node.client(1, ClientRole::Reader);
    let writer = node.client(2, ClientRole::Writer);
    let operator = node.client(3, ClientRole::Operator);
    assert_eq!(reader.call(&put(b"k", b"v")).await.unwrap_err().code, ErrorCode::Forbidden);
    let kill = Kill { path: "node/storage/partition-0/store".into() };
    assert_eq!(writer.call(&kill).await.unwrap_err().code, ErrorCode::Forbidden);
    operator.call(&kill).await.unwrap();
    let nothing = Kill { path: "node/nothing".into() };
    assert_eq!(operator.call(&nothing).await.unwrap_err().code, ErrorCode::NotFound);

    let add = AddClient { name: "pump-7".into(), role: ClientRole::Writer };
    assert_eq!(writer.call(&add).await.unwrap_err().code, ErrorCode::Forbidden);
    let credential = operator.call(&add).await.unwrap();
    assert_eq!(credential.secret.len(), 32);
    let clients = operator.call(&Clients {}).await.unwrap();
    assert_eq!(clients.len(), 1);
    assert_eq!((clients[0].name.as_str(), clients[0].role), ("pump-7", ClientRole::Writer));
    let bad = AddClient { name: "a b".into(), role: ClientRole::Reader };
    assert_eq!(operator.call(&bad).await.unwrap_err().code, ErrorCode::Invalid);
    operator.call(&RemoveClient { name: "pump-7".into() }).await.unwrap();
    let again = operator.call(&RemoveClient { name: "pump-7".into() }).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_and_the_log_are_read_and_followed() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Operator);
    let tree = client.call(&Tree { path: String::new() }).await.unwrap();
    let tree: weald_proto::supervision::TreeNode = serde_json::from_str(&tree).unwrap();
    assert_eq!(tree.path, "node");
    assert_eq!(tree.children[0].children.len(), 8);
    let missing = client.call(&Tree { path: "node/none".into() }).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);

    let mut ask = Log {
        path: Some("node/registry".into()),
        events: vec!["child_exited".into()],
        since_ms: None,
        after_seq: None,
        limit: 100,
        wait_ms: 0,
    };
    let before = client.call(&ask).await.unwrap();
    assert!(before.records.is_empty());
    ask.after_seq = Some(before.last_seq);
    ask.wait_ms = 20_000;
    let waiting = tokio::spawn(client.call(&ask));
    client.call(&Kill { path: "node/registry".into() }).await.unwrap();
    let page = waiting.await.unwrap().unwrap();
    let record: weald_proto::supervision::LogRecord =
        serde_json::from_str(&page.records[0]).unwrap();
    assert_eq!((record.event.as_str(), record.path.as_str()), ("child_exited", "node/registry"));
    // Paging forward leaves nothing out.
    let mut all =
        Log { path: None, events: Vec::new(), after_seq: Some(0), limit: 7, ..ask.clone() };
    let mut seqs = Vec::new();
    loop {
        let page = client.call(&Log { wait_ms: 0, ..all.clone() }).await.unwrap();
        if page.records.is_empty() {
            break;
        }
        assert!(page.records.len() <= 7);
        for text in &page.records {
            let record: weald_proto::supervision::LogRecord = serde_json::from_str(text).unwrap();
            seqs.push(record.seq);
        }
        all.after_seq = Some(page.last_seq);
    }
    let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
    assert!(seqs.len() > 20 && seqs == expected, "{seqs:?}");
    ask.events = vec!["no_such_event".into()];
    assert_eq!(client.call(&ask).await.unwrap_err().code, ErrorCode::Invalid);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_may_not_serve_refuses_writes_says_why_and_reads_on() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Operator);
    client.call(&put(b"k", b"1")).await.unwrap();
    let why = "the cluster refuses this node: because";
    *node.refusal.lock().unwrap() = Some(why.to_owned());
    let delete = Delete { table: "t".into(), key: b"k".to_vec(), context: None };
    let put_if = PutIf {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"2".to_vec(),
        expected: None,
        ttl_ms: None,
    };
    let with = WriteWith { op: Op::Put(put(b"k", b"2")), token: None, wait_ms: 0, concern: 0 };
    let errors = [
        client.call(&put(b"k", b"2")).await.unwrap_err(),
        client.call(&put_if).await.unwrap_err(),
        client.call(&delete).await.unwrap_err(),
        client.call(&with).await.unwrap_err(),
        client.call(&Batch { ops: vec![Op::Put(put(b"k", b"2"))] }).await.unwrap_err(),
        client.call(&Register { name: "n".into() }).await.unwrap_err(),
        client.call(&RemoveClient { name: "n".into() }).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotServing, why));
    }
    assert_eq!(client.call(&get(b"k")).await.unwrap().values, vec![b"1".to_vec()]);
    *node.refusal.lock().unwrap() = None;
    client.call(&put(b"k", b"2")).await.unwrap();
    node.stop().await;
}
