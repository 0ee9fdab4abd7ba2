//! What members have acknowledged, and what follows: which events everybody has.
//!
//! What it guarantees: an event is called stable only if every member that counts has told, in its present life, that it has
//! processed it and all before it of the same actor. A member whose clock is unknown holds everything back; a fenced one only
//! what lies beyond events that it alone may have. What a member
//! tells replaces what it told before, also when it is less: it may have been restored.
//! What others tell of a member counts only if it is more than what is known of the same life, or of a later one. It may be
//! older than a restore of that member: such a member misses events whose keys are forgotten here, and gets them by a walk.
//! What it refuses: to remember across restarts. It is learned again within seconds, and until then nothing is stable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_peers::{Cluster, Status};
use weald_storage::{Actor, Clock, Dot, NodeId, Others, Stable};

use super::Shard;
use super::relay::clock_bytes;

/// Most bytes of clocks, about, that are kept of members by hearsay. What is beyond it counts as unknown, and holds back what
/// is stable. // guess: a hundred members with a hundred actors in each of sixteen shards take a tenth of it
const RELAYED_BYTES_MAX: usize = 64 << 20;

/// A clock that a member has told.
#[derive(Debug, Clone)]
struct Acknowledged {
    /// Its actor: the life for which the clock holds.
    actor: Actor,
    clock: Arc<Clock>,
    /// Of the clock and the life.
    digest: u64,
    /// What the clock takes, if the member has not told it itself.
    relayed_bytes: usize,
}

impl Acknowledged {
    fn new(actor: Actor, clock: Arc<Clock>, relayed_bytes: usize) -> Self {
        let digest = clock.digest().rotate_left(1) ^ u64::from(actor.incarnation);
        Self { actor, clock, digest, relayed_bytes }
    }
}

/// What members have acknowledged.
#[derive(Debug, Clone)]
pub struct Stability {
    own: NodeId,
    /// Members whose word is needed before anything is forgotten.
    counting: BTreeSet<NodeId>,
    /// Members that come back with all they have, and whose word is not waited for.
    others: Others,
    acknowledged: BTreeMap<(NodeId, Shard), Acknowledged>,
    /// Sum of what is kept by hearsay.
    relayed_bytes: usize,
}

impl Stability {
    /// Of this node, alone so far.
    #[must_use]
    pub const fn new(own: NodeId) -> Self {
        Self {
            own,
            counting: BTreeSet::new(),
            others: Others::Nobody,
            acknowledged: BTreeMap::new(),
            relayed_bytes: 0,
        }
    }

    fn insert(&mut self, peer: NodeId, shard: Shard, known: Acknowledged) {
        self.relayed_bytes += known.relayed_bytes;
        let old = self.acknowledged.insert((peer, shard), known);
        self.relayed_bytes -= old.map_or(0, |old| old.relayed_bytes);
    }

    fn retain(&mut self, keep: impl Fn(NodeId, &Acknowledged) -> bool) {
        self.acknowledged.retain(|(node, _), known| keep(*node, known));
        self.relayed_bytes = self.acknowledged.values().map(|known| known.relayed_bytes).sum();
    }

    /// The membership has changed. A fenced member does not count: it has to come back through a whole exchange. What those
    /// that have left once acknowledged is forgotten.
    pub fn set_cluster(&mut self, cluster: &Cluster) {
        let counts = |status| matches!(status, Status::Joined | Status::Leaving);
        let counting = cluster.members.values().filter(|m| counts(m.status) && m.node != self.own);
        self.counting = counting.map(|member| member.node).collect();
        let is_fenced = cluster.members.values().any(|member| member.status == Status::Fenced);
        self.others = if is_fenced { Others::Fenced } else { Others::Nobody };
        let counting = self.counting.clone();
        self.retain(|node, _| counting.contains(&node));
    }

    /// Members whose word counts.
    #[must_use]
    pub const fn counting(&self) -> &BTreeSet<NodeId> {
        &self.counting
    }

    /// A member has told a clock of its life `actor`. False when its word does not count.
    pub fn acknowledge(
        &mut self,
        peer: NodeId,
        shard: Shard,
        actor: Actor,
        clock: Arc<Clock>,
    ) -> bool {
        let counts = self.counting.contains(&peer) && actor.node == peer;
        // A word of an earlier life that was under way when the new one spoke.
        let outdated = self
            .acknowledged
            .get(&(peer, shard))
            .is_some_and(|known| known.actor.incarnation > actor.incarnation);
        if !counts || outdated {
            return false;
        }
        self.insert(peer, shard, Acknowledged::new(actor, clock, 0));
        true
    }

    /// A neighbour has told what it knows of another member. False when that brings nothing, or there is no room for it.
    pub fn relayed(
        &mut self,
        member: NodeId,
        shard: Shard,
        actor: Actor,
        clock: Arc<Clock>,
    ) -> bool {
        let known = self.acknowledged.get(&(member, shard));
        let is_news = known.is_none_or(|known| {
            actor.incarnation > known.actor.incarnation
                || actor.incarnation == known.actor.incarnation
                    && clock != known.clock
                    && clock.descends(&known.clock)
        });
        if !is_news || actor.node != member || !self.counting.contains(&member) {
            return false;
        }
        let bytes = clock_bytes(&clock);
        let others = self.relayed_bytes - known.map_or(0, |known| known.relayed_bytes);
        if others + bytes > RELAYED_BYTES_MAX {
            return false;
        }
        self.insert(member, shard, Acknowledged::new(actor, clock, bytes));
        true
    }

    /// All that is known of a member, by shard.
    pub fn known_of(&self, member: NodeId) -> impl Iterator<Item = (Shard, Actor, &Arc<Clock>)> {
        self.of(member).map(|(shard, known)| (shard, known.actor, &known.clock))
    }

    /// A digest of all that is known of a member; 0 for nothing.
    #[must_use]
    pub fn digest_of(&self, member: NodeId) -> u64 {
        self.of(member).fold(0, |digest: u64, (shard, known)| {
            let numbered = known.digest ^ u64::from(shard.number());
            digest.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ numbered
        })
    }

    fn of(&self, member: NodeId) -> impl Iterator<Item = (Shard, &Acknowledged)> {
        let first = Shard::of_number(0);
        let all = self.acknowledged.range((member, first)..);
        all.take_while(move |((node, _), _)| *node == member)
            .map(|((_, shard), known)| (*shard, known))
    }

    /// A peer has begun a life under `incarnation`: what earlier lives acknowledged no longer holds. Only for shards whose
    /// actors follow the node's incarnation.
    pub fn forget_before(&mut self, peer: NodeId, incarnation: u32) {
        self.retain(|node, known| node != peer || known.actor.incarnation >= incarnation);
    }

    /// Forgets what a peer has acknowledged; it will tell again.
    pub fn forget(&mut self, peer: NodeId) {
        self.retain(|node, _| node != peer);
    }

    /// The clock that a member has told last.
    #[must_use]
    pub fn clock_of(&self, peer: NodeId, shard: Shard) -> Option<&Arc<Clock>> {
        self.acknowledged.get(&(peer, shard)).map(|known| &known.clock)
    }

    /// Per actor the event up to which everybody has all, `own` being this node's clock in its life `actor`; see
    /// [`weald_storage::stable`]. `None` while a member has told nothing: nothing may be forgotten then.
    #[must_use]
    pub fn stable(&self, shard: Shard, actor: Actor, own: &Clock) -> Option<Stable> {
        let told: Option<Vec<&Acknowledged>> =
            self.counting.iter().map(|peer| self.acknowledged.get(&(*peer, shard))).collect();
        let told = told?;
        let clocks: Vec<&Clock> =
            std::iter::once(own).chain(told.iter().map(|told| &*told.clock)).collect();
        let current = std::iter::once(actor).chain(told.iter().map(|told| told.actor)).collect();
        Some(weald_storage::stable(&clocks, &current, self.others))
    }

    /// How many peers have acknowledged all these events.
    #[must_use]
    pub fn acked(&self, shard: Shard, dots: &[Dot]) -> usize {
        let has_all = |peer: &&NodeId| {
            let clock = self.clock_of(**peer, shard);
            clock.is_some_and(|clock| dots.iter().all(|dot| clock.contains(dot)))
        };
        self.counting.iter().filter(has_all).count()
    }

    /// Members whose clock of a shard is unknown.
    #[must_use]
    pub fn unknown(&self, shard: Shard) -> Vec<NodeId> {
        let unknown = self.counting.iter().filter(|peer| self.clock_of(**peer, shard).is_none());
        unknown.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_peers::{Liveness, Member};
    use weald_storage::{Space, VersionVector};

    const SHARD: Shard = Shard::new(0, Space::Durable);

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn actor(n: u8, incarnation: u32) -> Actor {
        Actor { node: node(n), incarnation }
    }

    fn cluster(members: &[(u8, Status)]) -> Cluster {
        let member = |(n, status): &(u8, Status)| Member {
            node: node(*n),
            name: format!("n{n}"),
            incarnation: 1,
            version: 1,
            addresses: Vec::new(),
            status: *status,
            liveness: Liveness::Up,
            seen_ms: 0,
        };
        let members = members.iter().map(member).map(|m| (m.node, m)).collect();
        Cluster { own: node(1), members, neighbours: BTreeSet::new(), is_full_mesh: true }
    }

    /// A clock with all events of actors up to a counter, and single ones.
    fn clock(bases: &[(u8, u64)], dots: &[(u8, u64)]) -> Arc<Clock> {
        let mut clock = Clock::default();
        for (n, base) in bases {
            (1..=*base).for_each(|counter| {
                clock.insert(Dot { actor: actor(*n, 1), counter });
            });
        }
        for (n, counter) in dots {
            clock.insert(Dot { actor: actor(*n, 1), counter: *counter });
        }
        Arc::new(clock)
    }

    fn vector(entries: &[(u8, u64)]) -> VersionVector {
        entries.iter().map(|(n, counter)| (actor(*n, 1), *counter)).collect()
    }

    #[test]
    fn stable_is_what_all_that_count_have() {
        use Status::{Evicted, Fenced, Joined, Leaving, Left};
        let own = vector(&[(1, 9), (2, 5)]);
        let own_clock = clock(&[(1, 9), (2, 5)], &[]);
        // Members besides this node, what they told, what is stable.
        type Case = (Vec<(u8, Status)>, Vec<(u8, Arc<Clock>)>, Option<VersionVector>);
        let cases: Vec<Case> = vec![
            (vec![], vec![], Some(own.clone())),
            (vec![(2, Joined)], vec![], None),
            (
                vec![(2, Joined)],
                vec![(2, clock(&[(1, 4), (2, 7)], &[]))],
                Some(vector(&[(1, 4), (2, 5)])),
            ),
            (vec![(2, Joined)], vec![(2, clock(&[(1, 4)], &[(1, 6)]))], Some(vector(&[(1, 4)]))),
            (vec![(2, Joined), (3, Leaving)], vec![(2, clock(&[(1, 4)], &[]))], None),
            (
                vec![(2, Joined), (3, Leaving)],
                vec![(2, clock(&[(1, 4)], &[])), (3, clock(&[(1, 2)], &[]))],
                Some(vector(&[(1, 2)])),
            ),
            (vec![(2, Fenced), (3, Left), (4, Evicted)], vec![], Some(own.clone())),
            (vec![(2, Fenced)], vec![(2, clock(&[(1, 1)], &[]))], Some(own)),
        ];
        for (number, (members, told, expected)) in cases.into_iter().enumerate() {
            let mut stability = Stability::new(node(1));
            let mut all = members.clone();
            all.push((1, Joined));
            stability.set_cluster(&cluster(&all));
            for (n, clock) in told {
                stability.acknowledge(node(n), SHARD, actor(n, 1), clock);
            }
            let stable = stability.stable(SHARD, actor(1, 1), &own_clock);
            assert_eq!(stable.map(|stable| stable.upto), expected, "case {number}");
        }
    }

    #[test]
    fn new_life_forgets_what_the_old_one_acknowledged() {
        let mut stability = Stability::new(node(1));
        stability.set_cluster(&cluster(&[(1, Status::Joined), (2, Status::Joined)]));
        let own = vector(&[(1, 9)]);
        let own_clock = clock(&[(1, 9)], &[]);
        let stable = |stability: &Stability| {
            stability.stable(SHARD, actor(1, 1), &own_clock).map(|stable| stable.upto)
        };
        assert!(stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, 9)], &[])));
        assert_eq!(stable(&stability), Some(own));
        assert!(stability.acknowledge(node(2), SHARD, actor(2, 2), clock(&[(1, 3)], &[])));
        assert_eq!(stable(&stability), Some(vector(&[(1, 3)])));
        assert!(!stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, 9)], &[])));
        stability.forget_before(node(2), 3);
        assert_eq!(stable(&stability), None);
        assert_eq!(stability.unknown(SHARD), [node(2)]);
    }

    #[test]
    fn lost_events_of_a_life_that_is_over_hold_nothing_back_once_all_agree() {
        let mut stability = Stability::new(node(1));
        stability.set_cluster(&cluster(&[(1, Status::Joined), (2, Status::Joined)]));
        let own_clock = clock(&[(1, 2)], &[(9, 3)]);
        let stable = |stability: &Stability| {
            stability.stable(SHARD, actor(1, 1), &own_clock).map(|stable| stable.upto)
        };
        stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, 2)], &[]));
        assert_eq!(stable(&stability), Some(vector(&[(1, 2)])));
        stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, 2)], &[(9, 3)]));
        assert_eq!(stable(&stability), Some(vector(&[(1, 2), (9, 3)])));
        // A fenced member may have what they lack. Its eviction ends that.
        let of = |status| cluster(&[(1, Status::Joined), (2, Status::Joined), (3, status)]);
        for (status, expected) in
            [(Status::Fenced, vector(&[(1, 2)])), (Status::Evicted, vector(&[(1, 2), (9, 3)]))]
        {
            stability.set_cluster(&of(status));
            assert_eq!(stable(&stability), Some(expected), "{status:?}");
        }
    }

    #[test]
    fn hearsay_only_adds_and_gives_way_to_the_member_itself() {
        let mut stability = Stability::new(node(1));
        stability.set_cluster(&cluster(&[(1, Status::Joined), (2, Status::Joined)]));
        let (own, old, new) = (clock(&[(1, 9)], &[]), clock(&[(1, 4)], &[]), clock(&[(1, 6)], &[]));
        let stable = |stability: &Stability| {
            stability.stable(SHARD, actor(1, 1), &own).map(|stable| stable.upto)
        };
        let digest = stability.digest_of(node(2));
        assert_eq!(digest, 0);
        assert!(!stability.relayed(node(5), SHARD, actor(5, 1), Arc::clone(&old)), "a stranger");
        assert!(!stability.relayed(node(2), SHARD, actor(3, 1), Arc::clone(&old)), "not its own");
        assert!(stability.relayed(node(2), SHARD, actor(2, 1), Arc::clone(&new)));
        assert!(!stability.relayed(node(2), SHARD, actor(2, 1), Arc::clone(&new)), "known");
        assert!(!stability.relayed(node(2), SHARD, actor(2, 1), Arc::clone(&old)), "older");
        assert_eq!(stable(&stability), Some(vector(&[(1, 6)])));
        assert!(stability.relayed_bytes > 0);
        let digest = stability.digest_of(node(2));
        // What it tells itself replaces that, also when it is less.
        assert!(stability.acknowledge(node(2), SHARD, actor(2, 1), Arc::clone(&old)));
        assert_eq!(stable(&stability), Some(vector(&[(1, 4)])));
        assert!(stability.relayed_bytes == 0 && stability.digest_of(node(2)) != digest);
        // A later life is news with whatever it has.
        assert!(stability.relayed(node(2), SHARD, actor(2, 2), clock(&[(1, 1)], &[])));
        assert!(!stability.relayed(node(2), SHARD, actor(2, 1), new));
        assert_eq!(stable(&stability), Some(vector(&[(1, 1)])));
        stability.forget(node(2));
        assert_eq!((stability.relayed_bytes, stable(&stability)), (0, None));
    }

    #[test]
    fn less_than_before_counts_and_strangers_do_not() {
        let mut stability = Stability::new(node(1));
        stability.set_cluster(&cluster(&[(1, Status::Joined), (2, Status::Joined)]));
        let own_clock = clock(&[(1, 9)], &[]);
        let stable = |stability: &Stability| {
            stability.stable(SHARD, actor(1, 1), &own_clock).map(|stable| stable.upto)
        };
        for base in [7, 4] {
            stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, base)], &[]));
            assert_eq!(stable(&stability), Some(vector(&[(1, base)])));
        }
        assert!(!stability.acknowledge(node(5), SHARD, actor(5, 1), clock(&[(1, 9)], &[])));
        assert!(!stability.acknowledge(node(2), SHARD, actor(3, 1), clock(&[(1, 9)], &[])));
        let dots = [Dot { actor: actor(1, 1), counter: 4 }, Dot { actor: actor(1, 1), counter: 6 }];
        assert_eq!(stability.acked(SHARD, &dots), 0);
        stability.acknowledge(node(2), SHARD, actor(2, 1), clock(&[(1, 4)], &[(1, 6)]));
        assert_eq!(stability.acked(SHARD, &dots), 1);
    }
}
