//! What this node knows of the names of all nodes, and which claim counts. Pure.
//!
//! What it guarantees: with the same claims and the same members every node finds the same holder, in whatever order it
//! heard of them. Of two claims the older counts, then the smaller node id; a claim of a node that does not answer counts
//! only when no other does, and is not to be used then; one of a node that is no member any more, or has begun another
//! incarnation, counts for nothing.
//!
//! What it refuses: actors of this node, which [`super::core::Names`] has; time and I/O.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use weald_peers::{Cluster, Liveness};
use weald_storage::NodeId;

/// What a node says of a name that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The node's incarnation.
    pub incarnation: u32,
    /// Its process, as the incarnation of its memory tables.
    pub life: u32,
    /// The client that registered the name.
    pub owner: String,
    /// Since when, unix milliseconds by the clock of the node.
    pub since_ms: u64,
}

/// A member, as far as names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub incarnation: u32,
    /// Whether it belongs to the cluster.
    pub is_member: bool,
    /// Whether it answers.
    pub is_up: bool,
}

/// What a claim is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Up,
    Down,
    /// Nothing has been heard of its node yet.
    Unknown,
    Gone,
}

/// Another node that holds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub node_name: &'a str,
    /// What it says.
    pub claim: &'a Claim,
    /// Whether it answers. When it does not, the name must not be used there.
    pub is_up: bool,
}

type Claims = Arc<Vec<(NodeId, Claim)>>;

/// The claims of all nodes. A clone shares what is not changed.
#[derive(Debug, Clone)]
pub struct Directory {
    own: NodeId,
    claims: BTreeMap<Arc<str>, Claims>,
    nodes: Arc<BTreeMap<NodeId, Presence>>,
}

/// The members, as far as names go.
#[must_use]
pub fn presences(cluster: &Cluster) -> BTreeMap<NodeId, Presence> {
    let presence = |member: &weald_peers::Member| Presence {
        name: member.name.clone(),
        incarnation: member.incarnation,
        is_member: member.status.is_member(),
        is_up: member.liveness != Liveness::Down,
    };
    cluster.members.values().map(|member| (member.node, presence(member))).collect()
}

impl Directory {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(own: NodeId) -> Self {
        Self { own, claims: BTreeMap::new(), nodes: Arc::default() }
    }

    /// A claim is now this, or gone. Whether that is news.
    pub fn set(&mut self, name: &str, node: NodeId, claim: Option<Claim>) -> bool {
        let Some(known) = self.claims.get_mut(name) else {
            if let Some(claim) = claim {
                self.claims.insert(Arc::from(name), Arc::new(vec![(node, claim)]));
                return true;
            }
            return false;
        };
        let at = known.iter().position(|(holder, _)| *holder == node);
        match (at, claim) {
            (None, None) => return false,
            (Some(at), Some(claim)) if known[at].1 == claim => return false,
            (Some(at), Some(claim)) => Arc::make_mut(known)[at].1 = claim,
            (None, Some(claim)) => {
                let known = Arc::make_mut(known);
                known.push((node, claim));
                // The same on every node, whatever came first.
                known.sort_by_key(|(node, _)| *node);
            }
            (Some(at), None) => {
                Arc::make_mut(known).remove(at);
            }
        }
        if known.is_empty() {
            self.claims.remove(name);
        }
        true
    }

    /// Forgets all claims, to take them in anew.
    pub fn clear(&mut self) {
        self.claims.clear();
    }

    /// The members are these. Whether that is news.
    pub fn set_nodes(&mut self, nodes: BTreeMap<NodeId, Presence>) -> bool {
        let is_news = *self.nodes != nodes;
        if is_news {
            self.nodes = Arc::new(nodes);
        }
        is_news
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether no name is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The node, other than this one, that holds a name.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<Held<'_>> {
        self.claims.get(name).and_then(|claims| self.best(claims))
    }

    /// The claim of another node before which one of this node, of this age, has to give way.
    #[must_use]
    pub fn rival(&self, name: &str, since_ms: u64) -> Option<Held<'_>> {
        let held = self.holder(name)?;
        let is_before = (held.claim.since_ms, held.node) < (since_ms, self.own);
        (held.is_up && is_before).then_some(held)
    }

    /// What other nodes hold, of the names that start with `prefix`, in order.
    pub fn held<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Held<'a>)> {
        self.claims
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .filter_map(|(name, claims)| Some((&**name, self.best(claims)?)))
    }

    /// What is on record for this node under a name.
    #[must_use]
    pub fn own(&self, name: &str) -> Option<&Claim> {
        let claims = self.claims.get(name)?;
        claims.iter().find(|(node, _)| *node == self.own).map(|(_, claim)| claim)
    }

    /// All that is on record for this node.
    pub fn all_own(&self) -> impl Iterator<Item = (&str, &Claim)> {
        self.claims.iter().filter_map(|(name, claims)| {
            let (_, claim) = claims.iter().find(|(node, _)| *node == self.own)?;
            Some((&**name, claim))
        })
    }

    /// Claims that count for nothing and that this node is to remove: the member with the smallest id that answers does, as
    /// long as it is the one.
    #[must_use]
    pub fn to_remove(&self, max: usize) -> Vec<(Arc<str>, NodeId)> {
        let mut able = self.nodes.iter().filter(|(_, node)| node.is_member && node.is_up);
        if able.next().is_none_or(|(first, _)| *first != self.own) {
            return Vec::new();
        }
        let gone = self.claims.iter().flat_map(|(name, claims)| {
            let gone =
                claims.iter().filter(|(node, claim)| self.worth(*node, claim) == Worth::Gone);
            gone.map(move |(node, _)| (Arc::clone(name), *node))
        });
        gone.filter(|(_, node)| *node != self.own).take(max).collect()
    }

    fn best<'a>(&'a self, claims: &'a Claims) -> Option<Held<'a>> {
        let claims = claims.iter().filter(|(node, _)| *node != self.own);
        let counted = claims.filter_map(|(node, claim)| {
            let worth = self.worth(*node, claim);
            (worth <= Worth::Down).then_some((worth, claim.since_ms, *node, claim))
        });
        let (worth, _, node, claim) =
            counted.min_by_key(|(worth, since, node, _)| (*worth, *since, *node))?;
        let node_name = self.nodes.get(&node).map_or("", |presence| &presence.name);
        Some(Held { node, node_name, claim, is_up: worth == Worth::Up })
    }

    fn worth(&self, node: NodeId, claim: &Claim) -> Worth {
        match self.nodes.get(&node) {
            None => Worth::Unknown,
            Some(presence) if !presence.is_member => Worth::Gone,
            Some(presence) if presence.incarnation > claim.incarnation => Worth::Gone,
            Some(presence) if presence.is_up => Worth::Up,
            Some(_) => Worth::Down,
        }
    }
}
