//! Ids of sessions, each of which one session in the whole cluster has.
//!
//! What it is: every id belongs to one member of the cluster, the one that scores highest with it in a hash of the two
//! (rendezvous hashing), and a node draws from its own at random. So nodes need not ask each other, and a list of members
//! is all they have in common; a split changes nothing, for who is cut off stays a member.
//!
//! What it guarantees: nodes that know of each other as members never give the same id; a node gives none twice at a time,
//! whatever the realm; no id tells anything of another, the randomness of each is the system's.
//!
//! What it refuses: to look for the id on other nodes. Two nodes that have not yet heard of each other, in the moment in which
//! one joins, give ids that may be equal by chance: of n and m sessions with a probability of n * m / 2^53, one in
//! 900 thousand millions for a hundred each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weald_peers::ClusterWatch;
use weald_storage::NodeId;
use weald_wamp::SessionId;
use xxhash_rust::xxh3::xxh3_64;

/// One beyond the greatest id drawn: JavaScript counts exactly below it.
const DRAWN_END: u64 = 1 << 53;

/// The ids of one node.
#[derive(Debug)]
pub struct Ids {
    cluster: ClusterWatch,
    taken: Mutex<BTreeSet<SessionId>>,
}

/// An id that no other session has; it is free again once this is dropped.
#[derive(Debug)]
pub struct Reserved {
    id: SessionId,
    ids: Arc<Ids>,
}

impl Reserved {
    /// The id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.ids.taken().remove(&self.id);
    }
}

impl Ids {
    /// The ids of a node that sees the cluster so.
    #[must_use]
    pub fn new(cluster: ClusterWatch) -> Arc<Self> {
        Arc::new(Self { cluster, taken: Mutex::default() })
    }

    /// Draws an id.
    pub(crate) fn reserve(self: &Arc<Self>, rng: &mut fastrand::Rng) -> Reserved {
        // Whoever knows ids that were drawn must not know the next. Without the system's word the task's own is left.
        let seed = getrandom::u64().unwrap_or_else(|_unavailable| rng.u64(..));
        let cluster = Arc::clone(&self.cluster.borrow());
        let others: Vec<NodeId> = cluster.peers().map(|member| member.node).collect();
        let mut taken = self.taken();
        let id = draw(cluster.own, &others, &taken, &mut fastrand::Rng::with_seed(seed));
        taken.insert(id);
        drop(taken);
        Reserved { id, ids: Arc::clone(self) }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<SessionId>> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id of this node that is not taken. With so many members it takes as many draws, each a few hashes.
fn draw(
    own: NodeId,
    others: &[NodeId],
    taken: &BTreeSet<SessionId>,
    rng: &mut fastrand::Rng,
) -> SessionId {
    loop {
        let Some(id) = SessionId::new(rng.u64(1..DRAWN_END)) else { continue };
        let best = score(own, id);
        // Of equals the greater node has it.
        let is_own = others.iter().all(|other| (score(*other, id), *other) < (best, own));
        if is_own && !taken.contains(&id) {
            return id;
        }
    }
}

/// How much an id belongs to a node. All nodes of a cluster must agree on it: never to be changed.
fn score(node: NodeId, id: SessionId) -> u64 {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&node.0);
    key[16..].copy_from_slice(&id.get().to_be_bytes());
    xxh3_64(&key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weald_peers::{Cluster, Liveness, Member, Status};

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn member(number: u8, status: Status) -> Member {
        Member {
            node: node(number),
            name: format!("n{number}"),
            incarnation: 1,
            version: 1,
            addresses: Vec::new(),
            status,
            // Who does not answer has sessions all the same.
            liveness: Liveness::Down,
            seen_ms: 0,
        }
    }

    fn cluster(own: u8, members: impl IntoIterator<Item = (u8, Status)>) -> ClusterWatch {
        let mut cluster = Cluster::alone(member(own, Status::Joined));
        for (number, status) in members {
            cluster.members.insert(node(number), member(number, status));
        }
        tokio::sync::watch::Sender::new(Arc::new(cluster)).subscribe()
    }

    proptest! {
        #[test]
        fn ids_nodes_with_the_same_members_never_draw_the_same(
            members in 2_u8..20,
            seed in any::<u64>(),
        ) {
            let mut owners = std::collections::BTreeMap::new();
            for own in 0..members {
                let others: Vec<NodeId> = (0..members).filter(|n| *n != own).map(node).collect();
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..20 {
                    // The same source of randomness for all: nothing but the rule keeps them apart.
                    let id = draw(node(own), &others, &BTreeSet::new(), &mut rng);
                    prop_assert!((1..DRAWN_END).contains(&id.get()));
                    let before = owners.insert(id, own);
                    prop_assert!(before.is_none_or(|before| before == own));
                }
            }
        }
    }

    #[test]
    fn ids_are_spread_over_the_nodes() {
        let members: Vec<NodeId> = (0..5).map(node).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = [0; 5];
        for _ in 0..10_000 {
            let id = SessionId::new(rng.u64(1..DRAWN_END)).unwrap();
            let best = (0..5).max_by_key(|n| (score(members[*n], id), members[*n])).unwrap();
            counts[best] += 1;
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn id_is_taken_until_it_is_given_back() {
        let others = [(2, Status::Joined), (3, Status::Fenced), (4, Status::Left)];
        let ids = Ids::new(cluster(1, others));
        let mut rng = fastrand::Rng::with_seed(1);
        let reserved: Vec<Reserved> = (0..100).map(|_| ids.reserve(&mut rng)).collect();
        assert_eq!(ids.taken().len(), 100, "a hundred different ones");
        let members = [2, 3].map(node);
        for reserved in &reserved {
            let best = score(node(1), reserved.id());
            assert!(members.iter().all(|other| score(*other, reserved.id()) < best));
        }
        drop(reserved);
        assert!(ids.taken().is_empty());
    }

    #[test]
    fn taken_id_is_not_drawn_again() {
        let mut taken = BTreeSet::new();
        for _ in 0..50 {
            // From the beginning each time, so that all that is taken comes first.
            let mut rng = fastrand::Rng::with_seed(3);
            assert!(taken.insert(draw(node(1), &[node(2)], &taken, &mut rng)));
        }
    }
}
