//! What operators ask of the cluster, answered from membership, transport and exchange.

use super::Replication;
use crate::gate::cluster::{Answer, ClusterOps, Force};
use crate::gate::events::shown;
use crate::transport::PeerStats;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use weald_exchange::RunError;
use weald_exchange::core::DiffSide;
use weald_membership::{OpError, RequestError};
use weald_peers::{Cluster, Liveness};
use weald_proto::cluster::{
    AaeDiff, AaePeer, AaeReport, AaeStatus, ClusterStatus, KeyDiff, Member, Members, PeerStatus,
};
use weald_proto::request::ClusterChanges;
use weald_proto::{ErrorCode, Reply, WireError};
use weald_storage::NodeId;

/// Time for an eviction to be noted here. It spreads by itself.
const FORGET_TIME: Duration = Duration::from_secs(10);

fn text<T: serde::Serialize>(value: &T) -> Reply<String> {
    serde_json::to_string(value).map_err(|e| WireError::new(ErrorCode::Internal, e.to_string()))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn refused(error: &RequestError) -> WireError {
    let code = match error {
        RequestError::Refused(OpError::Unknown { .. }) => ErrorCode::NotFound,
        RequestError::Refused(_) => ErrorCode::Invalid,
        _ => ErrorCode::Unavailable,
    };
    WireError::new(code, error.to_string())
}

fn failed(error: &RunError) -> WireError {
    let code = match error {
        RunError::Late => ErrorCode::TimedOut,
        _ => ErrorCode::Unavailable,
    };
    WireError::new(code, format!("no exchange: {error}"))
}

impl Replication {
    fn members_now(&self) -> Members {
        let cluster = self.membership.cluster();
        // The snapshot is replaced when something changes; who is up answers all the time.
        let now_ms = self.store.wall_ms();
        let seen = |member: &weald_peers::Member| {
            let seen_ms = match member.liveness {
                Liveness::Up => now_ms,
                Liveness::Suspect | Liveness::Down => member.seen_ms,
            };
            Member { seen_ms, ..shown(member) }
        };
        Members {
            cluster: self.cluster_name.clone(),
            own: cluster.own.to_string(),
            members: cluster.members.values().map(seen).collect(),
            ..Members::default()
        }
    }

    fn status_now(&self) -> ClusterStatus {
        let cluster = self.membership.cluster();
        let stats = self.transport.stats();
        let own = cluster.members.get(&cluster.own);
        let members = 1 + cluster.peers().count() as u64;
        let up = 1 + cluster.peers_up().count() as u64;
        let mut problems = Vec::new();
        problems.extend(self.standing.refusal(&cluster));
        for peer in cluster.peers().filter(|peer| peer.liveness != Liveness::Up) {
            problems.push(format!("{} is {}", peer.name, peer.liveness));
        }
        for peer in stats.iter().filter(|peer| peer.wanted && !peer.connected) {
            if let Some(why) = &peer.last_failure {
                problems
                    .push(format!("no connection with {}: {why}", name_of(&cluster, peer.node)));
            }
        }
        let broadcast = self.broadcast.stats();
        let mut extra = serde_json::Map::new();
        extra.insert(
            "broadcast".to_owned(),
            json!({
                "published": broadcast.published,
                "merged": broadcast.merged,
                "merge_failures": broadcast.merge_failures,
                "malformed": broadcast.malformed,
                "refused": broadcast.refused,
                "trees": format!("{:?}", broadcast.trees),
            }),
        );
        ClusterStatus {
            cluster: self.cluster_name.clone(),
            name: own.map_or_else(String::new, |own| own.name.clone()),
            node: cluster.own.to_string(),
            strategy: self.strategy.clone(),
            members,
            up,
            problems,
            peers: stats.iter().map(|peer| peer_status(&cluster, peer)).collect(),
            extra,
        }
    }

    /// The member called so, by name or id.
    fn find(&self, who: &str) -> Reply<(NodeId, String)> {
        let cluster = self.membership.cluster();
        let named = |member: &&weald_peers::Member| {
            member.status.is_member() && (member.name == who || member.node.to_string() == who)
        };
        match cluster.members.values().find(named) {
            Some(member) if member.node == cluster.own => {
                Err(WireError::new(ErrorCode::Invalid, format!("{who:?} is this node itself")))
            }
            Some(member) => Ok((member.node, member.name.clone())),
            None => Err(WireError::new(
                ErrorCode::NotFound,
                format!("there is no member {who:?}; `weald cluster members` lists them"),
            )),
        }
    }
}

fn name_of(cluster: &Cluster, node: NodeId) -> String {
    let member = cluster.members.get(&node);
    member.map_or_else(|| node.to_string(), |member| member.name.clone())
}

fn peer_status(cluster: &Cluster, peer: &PeerStats) -> PeerStatus {
    let sum = |figure: fn(&crate::transport::ChannelStats) -> u64| -> u64 {
        peer.channels.iter().map(figure).sum()
    };
    #[expect(clippy::cast_precision_loss, reason = "a round trip of a century is not measured")]
    let rtt_ms = peer.rtt_us.map(|us| us as f64 / 1000.0);
    PeerStatus {
        name: peer.name.clone().unwrap_or_else(|| name_of(cluster, peer.node)),
        node: peer.node.to_string(),
        connected: peer.connected,
        bytes_in: sum(|c| c.bytes_in),
        bytes_out: sum(|c| c.bytes_out),
        overflow: sum(|c| c.overflow),
        reconnects: peer.connects.saturating_sub(1),
        rtt_ms,
        ..PeerStatus::default()
    }
}

impl ClusterOps for Replication {
    fn refusal(&self) -> Option<String> {
        self.standing.refusal(&self.membership.cluster())
    }

    fn members(&self) -> Answer<String> {
        let members = text(&self.members_now());
        Box::pin(std::future::ready(members))
    }

    fn join(&self, addresses: Vec<String>, deadline: Instant) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let joined = this.membership.join(addresses, left(deadline)).await;
            joined.map_err(|e| refused(&e))?;
            text(&this.members_now())
        })
    }

    fn leave(&self, deadline: Instant) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let left = this.membership.leave(left(deadline)).await;
            left.map_err(|e| refused(&e))?;
            text(&this.members_now())
        })
    }

    fn forget(&self, member: String, force: Force) -> Answer<String> {
        let this = self.clone();
        let force = match force {
            Force::No => weald_membership::Force::No,
            Force::Yes => weald_membership::Force::Yes,
        };
        Box::pin(async move {
            let gone = this.membership.forget(member, force, FORGET_TIME).await;
            gone.map_err(|e| refused(&e))?;
            text(&this.members_now())
        })
    }

    fn status(&self) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let mut status = this.status_now();
            if let Some(aae) = this.exchange.status().await {
                for peer in &mut status.peers {
                    let report =
                        peer.node.parse().ok().and_then(|node: NodeId| aae.peers.get(&node));
                    peer.convergence_age_ms = report.and_then(|report| report.convergence_age_ms);
                }
            }
            text(&status)
        })
    }

    fn events(
        &self,
        position: Option<Vec<u8>>,
        limit: usize,
        deadline: Instant,
    ) -> Answer<ClusterChanges> {
        self.feed.follow(position, limit, deadline)
    }

    fn aae_status(&self) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let Some(status) = this.exchange.status().await else {
                let text = "the exchange scheduler does not answer";
                return Err(WireError::new(ErrorCode::Unavailable, text));
            };
            let cluster = this.membership.cluster();
            let peers = status.peers.iter().map(|(node, report)| AaePeer {
                name: name_of(&cluster, *node),
                node: node.to_string(),
                running: report.running > 0,
                last_success_ms_ago: report.success_age_ms,
                convergence_age_ms: report.convergence_age_ms,
                exchanges: report.sessions,
                failures: u64::from(report.failures),
                objects: report.counters.objects_in + report.counters.objects_out,
                bytes: report.counters.bytes_in + report.counters.bytes_out,
                last_error: report.last_error.clone(),
                ..AaePeer::default()
            });
            let mut extra = serde_json::Map::new();
            for (name, figure) in [
                ("running", status.running as u64),
                ("waiting", status.waiting as u64),
                ("overflow", status.overflow),
                ("swept", status.swept),
                ("stripped", status.stripped),
                ("reaped", status.reaped),
            ] {
                extra.insert(name.to_owned(), json!(figure));
            }
            let unknown: Vec<String> =
                status.unknown.iter().map(|node| name_of(&cluster, *node)).collect();
            extra.insert("clocks_unknown".to_owned(), json!(unknown));
            text(&AaeStatus { enabled: status.enabled, peers: peers.collect(), extra })
        })
    }

    fn aae_run(&self, peer: String, deadline: Instant) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let (node, name) = this.find(&peer)?;
            let began = Instant::now();
            let report = this.exchange.run(node, deadline).await.map_err(|e| failed(&e))?;
            let mut extra = serde_json::Map::new();
            extra.insert("converged".to_owned(), json!(report.converged));
            text(&AaeReport {
                peer: name,
                elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                objects_in: report.counters.objects_in,
                objects_out: report.counters.objects_out,
                bytes_in: report.counters.bytes_in,
                bytes_out: report.counters.bytes_out,
                walked: report.counters.walks,
                extra,
            })
        })
    }

    fn aae_diff(&self, peer: String, deadline: Instant) -> Answer<String> {
        let this = self.clone();
        Box::pin(async move {
            let (node, name) = this.find(&peer)?;
            let diff = this.exchange.diff(node, deadline).await.map_err(|e| failed(&e))?;
            let first = diff.first.iter().map(|key| KeyDiff {
                table: key.table.to_string(),
                key: key.key.escape_ascii().to_string(),
                held: match key.side {
                    DiffSide::Here => "here",
                    DiffSide::There => "there",
                    DiffSide::Both => "both",
                }
                .to_owned(),
            });
            text(&AaeDiff {
                peer: name,
                equal: diff.shards == 0,
                parts: diff.shards,
                missing_here: diff.events_lacking_here,
                missing_there: diff.events_lacking_there,
                keys_only_here: diff.keys_lacking_there,
                keys_only_there: diff.keys_lacking_here,
                keys_different: diff.keys_differing,
                first: first.collect(),
                ..AaeDiff::default()
            })
        })
    }
}
