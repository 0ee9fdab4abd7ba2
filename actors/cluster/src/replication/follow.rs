//! What follows the membership: the feed of events, and the way back of a fenced node.
//!
//! What it guarantees: a fenced node says that it is a full member again only after a complete exchange with one.

use super::Replication;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weald_peers::{Cluster, Status};
use weald_supervision::ChildSpec;

/// Time for the exchange of a fenced node.
const CATCH_UP_TIME: Duration = Duration::from_secs(600); // guess: all data over a slow link
/// Pause before it is tried again.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(2);
/// The child `follow`.
pub(super) fn child_spec(replication: &Replication) -> ChildSpec {
    let replication = replication.clone();
    ChildSpec::task("follow", move |cx| {
        let this = replication.clone();
        async move {
            // Biased: the end first.
            tokio::select! {
                biased;
                () = cx.cancelled() => Ok(()),
                () = this.note_changes() => Err("the membership has ended".into()),
                () = this.catch_up() => Ok(()),
            }
        }
    })
}

impl Replication {
    async fn note_changes(&self) {
        let mut watch = self.membership.watch();
        let mut before: Arc<Cluster> = Arc::clone(&watch.borrow_and_update());
        while watch.changed().await.is_ok() {
            let after = Arc::clone(&watch.borrow_and_update());
            self.standing.changed(&after);
            self.feed.note(&before, &after, self.store.wall_ms());
            before = after;
        }
    }

    async fn catch_up(&self) {
        let mut watch = self.membership.watch();
        loop {
            let fenced = {
                let cluster = watch.borrow_and_update();
                let own = cluster.members.get(&cluster.own);
                let is_fenced = own.is_some_and(|own| own.status == Status::Fenced);
                is_fenced.then(|| cluster.peers_up().map(|peer| peer.node).collect::<Vec<_>>())
            };
            let Some(peers) = fenced else {
                if watch.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            };
            for peer in peers {
                let report = self.exchange.run(peer, Instant::now() + CATCH_UP_TIME).await;
                if report.is_ok_and(|report| report.converged) {
                    tracing::info!(event = "fenced_caught_up", %peer, "caught up after a long absence");
                    self.membership.rejoin_done();
                    break;
                }
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
    }
}
