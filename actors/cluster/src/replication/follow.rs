//! What follows the membership: the feed of events, discovery, and the way back of a fenced node.
//!
//! What it guarantees: discovery only ever adds addresses to try; an empty or wrong answer, or none, changes nothing. A
//! fenced node says that it is a full member again only after a complete exchange with one.

use super::Replication;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weald_peers::{Cluster, Status};
use weald_supervision::ChildSpec;

/// Time for the exchange of a fenced node.
const CATCH_UP_TIME: Duration = Duration::from_secs(600); // guess: all data over a slow link
/// Pause before it is tried again.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(2);
/// Longest time for one lookup of a name.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// Where other members may be.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// Addresses, `host:port`.
    pub seeds: Vec<String>,
    /// Names that stand for all members, `host:port`.
    pub dns_names: Vec<String>,
    /// How often they are looked at.
    pub poll_interval: Duration,
}

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
                () = this.discover() => Ok(()),
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
            self.feed.note(&before, &after, self.store.wall_ms());
            before = after;
        }
    }

    async fn discover(&self) {
        let Discovery { seeds, dns_names, poll_interval } = &self.discovery;
        if seeds.is_empty() && dns_names.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            let mut addresses = seeds.clone();
            for name in dns_names {
                addresses.extend(look_up(name).await);
            }
            if !addresses.is_empty() {
                self.membership.discovered(addresses);
            }
            tokio::time::sleep(jittered(*poll_interval)).await;
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

async fn look_up(name: &str) -> Vec<String> {
    let lookup = tokio::time::timeout(LOOKUP_TIME, tokio::net::lookup_host(name)).await;
    let found: Vec<SocketAddr> = match lookup {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            tracing::debug!(event = "discovery_failed", name, %error, "a name was not found");
            Vec::new()
        }
        Err(_elapsed) => Vec::new(),
    };
    found.iter().map(ToString::to_string).collect()
}

/// Up to a fifth more, so that members that were started together do not ask together for ever.
fn jittered(period: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness there is no jitter, and nothing else is lost.
    getrandom::fill(&mut random).ok();
    period + period * u32::from(random[0]) / 1280
}
