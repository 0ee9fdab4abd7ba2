//! The examples do what they say.

use crate::support::SECOND;
use std::time::Duration;
use weald_client::Client;
use weald_client_testing::FakeNode;

#[path = "../../examples/named_actor.rs"]
mod named_actor;
#[path = "../../examples/store.rs"]
mod store;
#[path = "../../examples/supervision.rs"]
mod supervision;
#[path = "../../examples/two_nodes.rs"]
mod two_nodes;
#[path = "../../examples/watch.rs"]
mod watch;

#[tokio::test(flavor = "multi_thread")]
async fn examples_run() {
    let node = FakeNode::start().await;
    let address = node.address().to_string();
    let key = node.key_file("app").display().to_string();
    store::run(address.clone(), key.clone()).await.unwrap();
    named_actor::run(address.clone(), key.clone()).await.unwrap();
    supervision::run(address.clone(), key.clone()).await.unwrap();
    // With itself as the other node; a scenario of the cluster runs it across two.
    two_nodes::run(node.socket().into(), node.socket().into()).await.unwrap();

    let watch = tokio::spawn(watch::run(address, key, "colours".to_owned(), 3));
    let client = Client::unix(node.socket()).await.unwrap();
    while !watch.is_finished() {
        client.put("colours", "grass", "green").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::timeout(SECOND, watch).await.unwrap().unwrap().unwrap();
    node.stop().await;
}
