//! Typed calls, deadlines and errors over both transports.

use crate::support::{SECOND, both, credential, over_cluster};
use std::time::Duration;
use weald_client::{
    Client, ClientRole, Credential, Error, LogFilter, Op, Refused, WatchEvent, table,
};
use weald_client_testing::FakeNode;
use weald_proto::request::{Get, Put};

#[tokio::test(flavor = "multi_thread")]
async fn store_operations_work_over_both_transports() {
    let node = FakeNode::start().await;
    for client in both(&node).await {
        let context = client.put("t", "k", "one").ttl(60 * SECOND).await.unwrap();
        let got = client.get("t", "k").await.unwrap();
        assert_eq!((got.value(), &got.context), (Some(&b"one"[..]), &context));

        let swapped = client.put_if("t", "k", "two", Some(&context)).await.unwrap();
        let conflict = client.put_if("t", "k", "three", Some(&context)).await.unwrap_err();
        let Error::Conflict { current, .. } = conflict else { panic!("{conflict}") };
        assert_eq!(current.values, [b"two"]);
        assert_eq!(current.context, swapped.as_bytes());
        client.delete("t", "k").context(&swapped).await.unwrap();
        assert_eq!(client.get("t", "k").await.unwrap().value(), None);

        let ops = (0..10_u8).map(|i| {
            Op::Put(Put {
                table: "range".into(),
                key: vec![i],
                value: vec![i],
                context: None,
                ttl_ms: None,
            })
        });
        let results = client.batch(ops.collect()).await.unwrap();
        assert!(results.len() == 10 && results.iter().all(Result::is_ok));
        let mut scan = client.scan("range").from([2]).to([9]).page_size(3);
        let mut keys = Vec::new();
        while let Some(item) = scan.next().await {
            let item = item.unwrap();
            assert_eq!(item.values, std::slice::from_ref(&item.key));
            keys.extend(item.key);
        }
        assert_eq!(keys, [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(client.declare_table(table("t")).await.unwrap().name, "t");
        let large = vec![5; 4 << 20];
        client.put("t", "large", large.clone()).await.unwrap();
        assert_eq!(client.get("t", "large").await.unwrap().value(), Some(&*large));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_tells_of_changes_after_its_start_and_resumes() {
    let node = FakeNode::start().await;
    for client in both(&node).await {
        let mut watch = client.watch("w").prefix("a").await.unwrap();
        client.put("w", "b", "no").await.unwrap();
        client.put("w", "a1", "yes").await.unwrap();
        let Ok(WatchEvent::Change(change)) = watch.next().await else { panic!() };
        assert_eq!((change.key, change.now.value()), (b"a1".to_vec(), Some(&b"yes"[..])));
        let position = watch.position();
        drop(watch);
        client.delete("w", "a1").await.unwrap();
        let mut watch = client.watch("w").prefix("a").from(&position).await.unwrap();
        let Ok(WatchEvent::Change(change)) = watch.next().await else { panic!() };
        assert_eq!((change.key, change.now.value()), (b"a1".to_vec(), None));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_log_and_status_are_typed() {
    let node = FakeNode::start().await;
    for client in both(&node).await {
        let tree = client.supervision_tree().await.unwrap();
        let ids: Vec<_> = tree.children.iter().map(|child| child.id.as_str()).collect();
        assert_eq!((tree.path.as_str(), ids), ("node", vec!["transport", "control"]));
        let log = client.supervision_log(&LogFilter::default()).await.unwrap();
        assert_eq!(log.len(), 3);
        let mut follow =
            client.follow_log(LogFilter { after_seq: Some(1), ..LogFilter::default() });
        assert_eq!(follow.next().await.unwrap().seq, 2);
        assert_eq!(follow.next().await.unwrap().seq, 3);
        assert_eq!(client.status().await.unwrap()["state"], "ready");
        assert!(matches!(client.kill("node/nothing").await, Err(Error::NotFound(_))));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_at_their_deadline_with_a_typed_error() {
    let node = FakeNode::start().await;
    for client in both(&node).await {
        let deadline = Duration::from_millis(100);
        let put = client.put("never", "k", "v").deadline(deadline).await;
        assert_eq!(put, Err(Error::TimedOut(deadline)));
        let get = Get { table: "never".into(), key: b"k".to_vec() };
        assert_eq!(client.request(get, deadline).await, Err(Error::TimedOut(deadline)));
        assert!(matches!(client.put("full", "k", "v").await, Err(Error::StorageFull(_))));
        assert!(matches!(client.get("panic", "k").await, Err(Error::Internal(_))));
        assert!(matches!(client.clients().await, Err(Error::Unsupported(_))));
        assert!(matches!(client.put("t", "k", vec![0; 9 << 20]).await, Err(Error::Invalid(_))));
        client.put("t", "k", "still works").await.unwrap();
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_connect_or_write_is_told() {
    let node = FakeNode::start().await;
    let address = node.address().to_string();
    let known = credential(&node, "app");
    let wrong = Credential::generate("app").unwrap();
    for credential in [wrong, Credential::generate("nobody").unwrap()] {
        let refused = Client::connect(&address, credential).await.unwrap_err();
        assert_eq!(refused, Error::Refused(Refused::Credentials));
    }
    let builder = Client::builder().deadline(Duration::from_millis(300));
    let nobody_there = builder.clone().address("127.0.0.1:9").credential(known.clone());
    assert!(matches!(nobody_there.connect().await, Err(Error::Unreachable { .. })));
    let second_works = builder.address("127.0.0.1:9").address(&address).credential(known);
    second_works.deadline(5 * SECOND).connect().await.unwrap();

    let reader = Credential::new("reader", &node.add_client("reader", ClientRole::Reader));
    let reader = Client::connect(&address, reader).await.unwrap();
    assert!(matches!(reader.put("t", "k", "v").await, Err(Error::Forbidden(_))));
    assert!(reader.get("t", "k").await.is_ok());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once_and_several_clients_do_not_mix() {
    let node = FakeNode::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8_u64 {
        let client = over_cluster(&node, &format!("client-{number}")).await;
        for call in 0..1_000_u64 {
            let client = client.clone();
            tasks.spawn(async move {
                let key = [number.to_be_bytes(), call.to_be_bytes()].concat();
                client.put("many", key.clone(), key.clone()).await.unwrap();
                assert_eq!(client.get("many", key.clone()).await.unwrap().value(), Some(&*key));
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    node.stop().await;
}
