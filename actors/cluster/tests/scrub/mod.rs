//! The hashtree actor verifies what it should, within its period.

use crate::support::{Node, wait_until};
use std::sync::atomic::Ordering;
use std::time::Duration;
use weald_cluster::hashtree::Msg;
use weald_cluster::node::HashtreeConfig;
use weald_proto::request::{Batch, ClientRole, Op, Put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_is_verified_within_its_period_and_nothing_is_found_wrong() {
    let config =
        HashtreeConfig { timer: Duration::from_millis(50), ttl: Duration::from_millis(4096) };
    let node = Node::start(config).await;
    let client = node.client(1, ClientRole::Writer);
    let ops = (0..500)
        .map(|i| {
            Op::Put(Put {
                table: "t".into(),
                key: format!("k{i}").into_bytes(),
                value: vec![0; 32],
                context: None,
                ttl_ms: None,
            })
        })
        .collect();
    client.call(&Batch { ops }).await.unwrap();
    wait_until("a whole round on each partition", || {
        node.storage.scrubs.iter().all(|s| s.buckets.load(Ordering::Relaxed) >= 4096)
    })
    .await;
    let objects: u64 = node.storage.scrubs.iter().map(|s| s.objects.load(Ordering::Relaxed)).sum();
    assert!(objects >= 500, "{objects} objects were verified");
    let call = node.storage.hashtrees[0].call(Msg::Scrub, Duration::from_secs(10));
    assert_eq!(call.await.unwrap().unwrap().mismatches, 0);
    assert!(node.storage.scrubs.iter().all(|s| s.mismatches.load(Ordering::Relaxed) == 0));
    node.stop().await;
}
