//! The membership as everybody but its own process sees it: a snapshot that is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use weald_storage::NodeId;

/// Where a member stands. Decided by operators and by the nodes themselves, never by a failure detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It belongs to the cluster.
    Joined,
    /// It was away longer than `max_absence`: it no longer holds back the reaping of tombstones, and has to catch up with a
    /// complete exchange when it is back.
    Fenced,
    /// It is on its way out.
    Leaving,
    /// It has left by itself.
    Left,
    /// An operator has removed it; its connections are refused.
    Evicted,
}

impl Status {
    /// Whether it still belongs to the cluster.
    #[must_use]
    pub const fn is_member(self) -> bool {
        matches!(self, Self::Joined | Self::Fenced | Self::Leaving)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joined => "joined",
            Self::Fenced => "fenced",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Evicted => "evicted",
        })
    }
}

/// Whether a member answers, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// It answers.
    Up,
    /// It has not answered, and may refute that.
    Suspect,
    /// It does not answer.
    Down,
}

impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub incarnation: u32,
    /// Version of its record within the incarnation.
    pub version: u64,
    /// Where it listens, `host:port`.
    pub addresses: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// Whether it answers; this node is always up.
    pub liveness: Liveness,
    /// Unix milliseconds of the last sign of life, by this node's clock.
    pub seen_ms: u64,
}

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// This node.
    pub own: NodeId,
    /// All records, also of those that have left or were evicted; this node's, too.
    pub members: BTreeMap<NodeId, Member>,
    /// Peers to gossip with: every other member in a full mesh, the active view otherwise. Without those that are down.
    pub neighbours: BTreeSet<NodeId>,
    /// Whether `neighbours` is meant to be all members.
    pub is_full_mesh: bool,
}

impl Cluster {
    /// A cluster of one node that has not heard of others.
    #[must_use]
    pub fn alone(own: Member) -> Self {
        Self {
            own: own.node,
            members: BTreeMap::from([(own.node, own)]),
            neighbours: BTreeSet::new(),
            is_full_mesh: true,
        }
    }

    /// Members but for this node.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.node != self.own && m.status.is_member())
    }

    /// Members but for this node that answer.
    pub fn peers_up(&self) -> impl Iterator<Item = &Member> {
        self.peers().filter(|m| m.liveness == Liveness::Up)
    }
}

/// The membership, whenever it changes. Level-triggered: who comes late sees the newest state.
pub type ClusterWatch = watch::Receiver<Arc<Cluster>>;
