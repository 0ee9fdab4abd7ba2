//! Actors die under load: no acknowledged write is lost, and only the siblings behind the dead one restart.

use crate::support::{Node, QUIET, wait_until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use weald_proto::ErrorCode;
use weald_proto::request::{ClientRole, Get, Put};
use weald_supervision::TreeNode;

fn restarts(tree: &TreeNode, out: &mut BTreeMap<String, u64>) {
    out.insert(tree.path.clone(), tree.restarts);
    for child in &tree.children {
        restarts(child, out);
    }
}

fn restarts_of(node: &Node) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    restarts(&node.scope.tree(), &mut out);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_survive_kills_of_every_process() {
    let node = Node::start(QUIET).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acked_total = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for w in 0..8_u64 {
        let client = node.client(w, ClientRole::Writer);
        let (stop, acked_total) = (Arc::clone(&stop), Arc::clone(&acked_total));
        writers.push(tokio::spawn(async move {
            let mut acked = Vec::new();
            for i in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{w}-{i}").into_bytes();
                let put = Put {
                    table: "t".into(),
                    key: key.clone(),
                    value: i.to_be_bytes().to_vec(),
                    context: None,
                    ttl_ms: None,
                };
                match client.call(&put).await {
                    Ok(_) => {
                        acked.push((key, i));
                        acked_total.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(e) => assert_eq!(e.code, ErrorCode::Unavailable, "{e}"),
                }
            }
            acked
        }));
    }
    let mut kills = 0;
    let rounds = 15;
    for round in 0..rounds {
        for path in
            ["partition-0/store", "partition-1/hashtree", "partition-2", "partition-3/store"]
        {
            let before = acked_total.load(Ordering::Relaxed);
            node.scope.kill(&format!("node/storage/{path}")).unwrap();
            kills += 1;
            wait_until("writes go on", || acked_total.load(Ordering::Relaxed) > before + 8).await;
            wait_until("all is up again", || (0..8).all(|p| node.storage.store.address(p).is_up()))
                .await;
        }
        if round == rounds / 2 {
            node.scope.kill("node/storage").unwrap();
            kills += 1;
            wait_until("all is up again", || (0..8).all(|p| node.storage.store.address(p).is_up()))
                .await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    let reader = node.client(99, ClientRole::Reader);
    for writer in writers {
        for (key, i) in writer.await.unwrap() {
            let got = reader.call(&Get { table: "t".into(), key }).await.unwrap();
            assert_eq!(got.values, vec![i.to_be_bytes().to_vec()]);
            count += 1;
        }
    }
    assert!(count > 100, "only {count} writes");
    assert_eq!(kills, 4 * rounds + 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_siblings_behind_restart() {
    let node = Node::start(QUIET).await;
    let before = restarts_of(&node);

    node.scope.kill("node/storage/partition-4/hashtree").unwrap();
    let address = node.storage.hashtrees[4].clone();
    wait_until("hashtree restarted", || restarts_of(&node) != before && address.is_up()).await;
    let mut expected = before.clone();
    *expected.get_mut("node/storage/partition-4/hashtree").unwrap() += 1;
    assert_eq!(restarts_of(&node), expected, "the store before it went on");

    node.scope.kill("node/storage/partition-4/store").unwrap();
    *expected.get_mut("node/storage/partition-4/store").unwrap() += 1;
    *expected.get_mut("node/storage/partition-4/hashtree").unwrap() += 1;
    wait_until("both restarted", || restarts_of(&node) == expected).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_while_every_store_actor_is_dead() {
    let node = Node::start(QUIET).await;
    let client = node.client(1, ClientRole::Writer);
    let put = Put {
        table: "t".into(),
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        context: None,
        ttl_ms: None,
    };
    client.call(&put).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reads = {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let got = client.call(&Get { table: "t".into(), key: b"k".to_vec() }).await;
                assert_eq!(got.unwrap().values, vec![b"v".to_vec()]);
                count += 1;
                tokio::task::yield_now().await;
            }
            count
        })
    };
    for _ in 0..50 {
        // The kill may meet an actor that is just restarting.
        drop(node.scope.kill("node/storage"));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reads.await.unwrap() > 0);
    node.stop().await;
}
