//! What the tests share.

use std::time::Duration;
use tokio::time::Instant;
use weald_client::{Client, ClientRole, Credential};
use weald_client_testing::FakeNode;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Shows the logs of a test that is run with `RUST_LOG`.
pub(crate) fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
    // Another test may have been first.
    logs.try_init().ok();
}

/// A client over the cluster port.
pub(crate) async fn over_cluster(node: &FakeNode, name: &str) -> Client {
    logs();
    let credential = credential(node, name);
    Client::connect(node.address().to_string(), credential).await.unwrap()
}

pub(crate) fn credential(node: &FakeNode, name: &str) -> Credential {
    Credential::new(name, &node.add_client(name, ClientRole::Operator))
}

/// A client over each way in.
pub(crate) async fn both(node: &FakeNode) -> [Client; 2] {
    [over_cluster(node, "app").await, Client::unix(node.socket()).await.unwrap()]
}

/// Polls until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + 10 * SECOND;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
