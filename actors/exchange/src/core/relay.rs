//! What is asked of neighbours about members that this node is not connected with.
//!
//! In an overlay nobody is connected with everybody, and yet what is stable depends on everybody's clock. So each node asks,
//! every now and then, one neighbour after the other what it knows of the others, with a digest of what it knows itself; who
//! knows something else tells it. What a member has acknowledged so reaches all in about as many rounds as there are hops.
//!
//! What it guarantees: nothing is sent in a full mesh that is whole; a question names at most [`QUESTION_MAX`] members, an
//! answer takes about [`ANSWER_BYTES`], and the next question goes on where the last one, or its answer, ended; a neighbour is
//! answered at most once in a round.
//! What it refuses: to judge. [`Stability::relayed`] says what counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use weald_storage::{Actor, Clock, NodeId};

use super::{Shard, Stability};

/// Most members in a question. // guess: 6 KiB
pub const QUESTION_MAX: usize = 256;
/// About how many bytes of clocks an answer takes. // guess
pub const ANSWER_BYTES: usize = 192 * 1024;

/// What is known of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The member.
    pub member: NodeId,
    /// The shard.
    pub shard: Shard,
    /// Who the member is in it: its life.
    pub actor: Actor,
    /// What it has processed.
    pub clock: Arc<Clock>,
}

/// About how many bytes a clock takes.
#[must_use]
pub fn clock_bytes(clock: &Clock) -> usize {
    32 + clock.iter().map(|(_, seen)| 32 + 20 * seen.runs().len()).sum::<usize>()
}

/// What is asked of whom, and when.
#[derive(Debug, Clone)]
pub struct Relay {
    round_ms: u64,
    next_ms: u64,
    /// The neighbour that was asked last.
    asked: Option<NodeId>,
    /// The member after which the next question begins.
    cursor: Option<NodeId>,
    /// When neighbours were answered last.
    answered: BTreeMap<NodeId, u64>,
}

impl Relay {
    /// Nobody was asked yet. There is a question at most every `round_ms`.
    #[must_use]
    pub const fn new(round_ms: u64) -> Self {
        Self { round_ms, next_ms: 0, asked: None, cursor: None, answered: BTreeMap::new() }
    }

    /// Whom to ask now about which members, each with a digest of what is known of it. `None` when it is not time, when there
    /// is nobody to ask, or when all that count are connected.
    pub fn question(
        &mut self,
        stability: &Stability,
        connected: &BTreeSet<NodeId>,
        now_ms: u64,
    ) -> Option<(NodeId, Vec<(NodeId, u64)>)> {
        if now_ms < self.next_ms {
            return None;
        }
        let far: BTreeSet<NodeId> = stability.counting().difference(connected).copied().collect();
        // Others may be connected without being members.
        let near: BTreeSet<NodeId> =
            stability.counting().intersection(connected).copied().collect();
        let peer = near.iter().copied().find(|node| Some(*node) > self.asked);
        let peer = peer.or_else(|| near.first().copied())?;
        if far.is_empty() {
            return None;
        }
        let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let until = self.cursor.map_or(Bound::Excluded(NodeId([0; 16])), Bound::Included);
        let from_there = far.range((after, Bound::Unbounded));
        let members: Vec<(NodeId, u64)> = from_there
            .chain(far.range((Bound::Unbounded, until)))
            .take(QUESTION_MAX)
            .map(|member| (*member, stability.digest_of(*member)))
            .collect();
        self.cursor = members.last().map(|(member, _)| *member);
        self.asked = Some(peer);
        self.next_ms = now_ms.saturating_add(self.round_ms);
        Some((peer, members))
    }

    /// An answer has told of this member: the next question begins after the last one of them.
    pub const fn told(&mut self, member: NodeId) {
        self.cursor = Some(member);
    }

    /// Whether a neighbour is to be answered now; it is taken for answered then.
    pub fn may_answer(&mut self, peer: NodeId, now_ms: u64) -> bool {
        // Half of a round: those who ask have clocks and networks of their own.
        let is_early = |at: &u64| now_ms < at.saturating_add(self.round_ms / 2);
        if self.answered.get(&peer).is_some_and(is_early) {
            return false;
        }
        self.answered.insert(peer, now_ms);
        true
    }

    /// A neighbour is not connected any more.
    pub fn gone(&mut self, peer: NodeId) {
        self.answered.remove(&peer);
    }

    /// What is known of the members asked about and differs from what `asker` knows, in the order of the question.
    #[must_use]
    pub fn answer(
        &self,
        stability: &Stability,
        asker: NodeId,
        members: &[(NodeId, u64)],
    ) -> Vec<Known> {
        let mut answer = Vec::new();
        let mut bytes = 0;
        for (member, digest) in members.iter().take(QUESTION_MAX) {
            if *member == asker || stability.digest_of(*member) == *digest {
                continue;
            }
            for (shard, actor, clock) in stability.known_of(*member) {
                bytes += clock_bytes(clock);
                answer.push(Known { member: *member, shard, actor, clock: Arc::clone(clock) });
            }
            if bytes > ANSWER_BYTES {
                break;
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_peers::{Cluster, Liveness, Member, Status};
    use weald_storage::{Dot, Space, VersionVector};

    const SHARD: Shard = Shard::new(0, Space::Durable);

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn actor(n: u8) -> Actor {
        Actor { node: node(n), incarnation: 1 }
    }

    /// Everything of actor 1 up to a counter.
    fn clock(to: u64) -> Arc<Clock> {
        let mut clock = Clock::default();
        (1..=to).for_each(|counter| _ = clock.insert(Dot { actor: actor(1), counter }));
        Arc::new(clock)
    }

    fn stability(own: u8, members: u8) -> Stability {
        let member = |n: u8| Member {
            node: node(n),
            name: format!("n{n}"),
            incarnation: 1,
            version: 1,
            addresses: Vec::new(),
            status: Status::Joined,
            liveness: Liveness::Up,
            seen_ms: 0,
        };
        let members = (1..=members).map(member).map(|m| (m.node, m)).collect();
        let neighbours = BTreeSet::new();
        let cluster = Cluster { own: node(own), members, neighbours, is_full_mesh: false };
        let mut stability = Stability::new(node(own));
        stability.set_cluster(&cluster);
        stability
    }

    /// Nodes in a line, each connected with those next to it only.
    struct Line(Vec<(Stability, Relay, BTreeSet<NodeId>)>);

    impl Line {
        fn new(len: u8) -> Self {
            let near = |n: u8| [n - 1, n + 1].into_iter().filter(|k| (1..=len).contains(k));
            Self(
                (1..=len)
                    .map(|n| (stability(n, len), Relay::new(1_000), near(n).map(node).collect()))
                    .collect(),
            )
        }

        fn at(&mut self, of: NodeId) -> &mut (Stability, Relay, BTreeSet<NodeId>) {
            &mut self.0[usize::from(of.0[0]) - 1]
        }

        /// Everybody tells its neighbours how far it has come.
        fn tell(&mut self, to: u64) {
            for n in 1..=u8::try_from(self.0.len()).unwrap() {
                for peer in self.at(node(n)).2.clone() {
                    let (stability, ..) = self.at(peer);
                    assert!(stability.acknowledge(node(n), SHARD, actor(n), clock(to)));
                }
            }
        }

        /// Everybody asks once; how many clocks were told.
        fn round(&mut self, now_ms: u64) -> usize {
            let mut told = 0;
            for n in 1..=u8::try_from(self.0.len()).unwrap() {
                let (stability, relay, near) = self.at(node(n));
                let Some((peer, members)) = relay.question(stability, near, now_ms) else {
                    continue;
                };
                assert!(relay.question(stability, near, now_ms).is_none(), "one in a round");
                let (stability, relay, _) = self.at(peer);
                assert!(relay.may_answer(node(n), now_ms) && !relay.may_answer(node(n), now_ms));
                for known in relay.answer(stability, node(n), &members) {
                    let (stability, relay, near) = self.at(node(n));
                    assert!(!near.contains(&known.member));
                    told += 1;
                    stability.relayed(known.member, known.shard, known.actor, known.clock);
                    relay.told(known.member);
                }
            }
            told
        }

        fn all_stable(&self, to: u64) -> bool {
            let expected: VersionVector = [(actor(1), to)].into_iter().collect();
            (1..).zip(&self.0).all(|(n, (stability, ..))| {
                let stable = stability.stable(SHARD, actor(n), &clock(to));
                stable.is_some_and(|stable| stable.upto == expected)
            })
        }
    }

    #[test]
    fn clocks_reach_the_ends_of_a_line_and_then_nothing_is_told() {
        for len in [2, 3, 6] {
            let mut line = Line::new(len);
            for (round, to) in [5, 9, 12].into_iter().enumerate() {
                line.tell(to);
                assert_eq!(line.all_stable(to), len == 2, "{len} in a line");
                let begin = 100_000 * (1 + u64::try_from(round).unwrap());
                // Each asks its two neighbours in turn.
                let hops = 2 * u64::from(len);
                (0..hops).for_each(|n| _ = line.round(begin + 1_000 * n));
                assert!(line.all_stable(to), "{len} in a line, {to}");
                let quiet = (0..4).map(|n| line.round(begin + 1_000 * (hops + n)));
                assert_eq!(quiet.sum::<usize>(), 0, "{len} in a line, equal");
            }
        }
    }

    #[test]
    fn questions_and_answers_are_bounded_and_come_to_all_in_turn() {
        let large = {
            let mut clock = Clock::default();
            (1..=4_000).for_each(|n| _ = clock.insert(Dot { actor: actor(1), counter: 2 * n }));
            Arc::new(clock)
        };
        let (mut here, mut there) = (stability(1, 250), stability(2, 250));
        for n in 3..=250 {
            assert!(there.acknowledge(node(n), SHARD, actor(n), Arc::clone(&large)));
        }
        let mut relay = Relay::new(1_000);
        let near = BTreeSet::from([node(2)]);
        let mut rounds = 0;
        while !here.unknown(SHARD).iter().all(|unknown| *unknown == node(2)) {
            let (_, members) = relay.question(&here, &near, rounds * 1_000).unwrap();
            assert!(members.len() <= QUESTION_MAX);
            let answer = Relay::new(1_000).answer(&there, node(1), &members);
            let bytes: usize = answer.iter().map(|known| clock_bytes(&known.clock)).sum();
            assert!(bytes <= ANSWER_BYTES + clock_bytes(&large) && !answer.is_empty());
            for known in answer {
                here.relayed(known.member, known.shard, known.actor, known.clock);
                relay.told(known.member);
            }
            rounds += 1;
            assert!(rounds < 250, "each round brings some");
        }
        let least = 248 * clock_bytes(&large) / (ANSWER_BYTES + clock_bytes(&large));
        assert!(least > 10 && rounds >= u64::try_from(least).unwrap(), "{rounds} rounds");
    }
}
