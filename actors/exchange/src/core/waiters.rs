//! Requests that wait until clocks cover them.
//!
//! What it guarantees: each ends exactly once, by its deadline at the latest; at most [`WAITERS_MAX`] wait, others are told
//! at once that they are too many.
//! What it refuses: to fetch anything; it says what should be fetched, once for each waiter.

use std::collections::BTreeMap;

use weald_storage::{Dot, NodeId, VersionVector};

use super::{Shard, Stability};
use crate::token::SessionToken;

/// Most requests that wait. // guess
pub const WAITERS_MAX: usize = 65_536;
/// How long broadcast is given before an exchange is asked for. // guess: a few times the latency of a broadcast
pub const PULL_AFTER_MS: u64 = 20;

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This node has all that the token names.
    CaughtUp,
    /// It has not, and the deadline has come.
    NotCaughtUp,
    /// So many peers have the events, which is enough.
    Acked(usize),
    /// Only so many have them, and the deadline has come.
    NotAcked(usize),
}

#[derive(Debug)]
struct TokenWait {
    token: SessionToken,
    deadline_ms: u64,
    /// When to ask for an exchange; `None` once it was asked for.
    pull_ms: Option<u64>,
}

#[derive(Debug)]
struct AckWait {
    shard: Shard,
    dots: Vec<Dot>,
    needed: usize,
    deadline_ms: u64,
}

/// Requests that wait.
#[derive(Debug, Default)]
pub struct Waiters {
    tokens: BTreeMap<u64, TokenWait>,
    acks: BTreeMap<u64, AckWait>,
}

impl Waiters {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len() + self.acks.len()
    }

    /// Whether anybody waits for this node's clocks.
    #[must_use]
    pub fn waits_for_clocks(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody waits for the acknowledgement of an event of a shard.
    #[must_use]
    pub fn waits_for_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// A request waits for a token; false when there are too many.
    #[must_use]
    pub fn add_token(
        &mut self,
        id: u64,
        token: SessionToken,
        now_ms: u64,
        deadline_ms: u64,
    ) -> bool {
        if self.len() >= WAITERS_MAX {
            return false;
        }
        let pull_ms = Some(now_ms.saturating_add(PULL_AFTER_MS));
        self.tokens.insert(id, TokenWait { token, deadline_ms, pull_ms });
        true
    }

    /// A write waits for `needed` peers; false when there are too many.
    #[must_use]
    pub fn add_acks(
        &mut self,
        id: u64,
        shard: Shard,
        dots: Vec<Dot>,
        needed: usize,
        deadline_ms: u64,
    ) -> bool {
        if self.len() >= WAITERS_MAX {
            return false;
        }
        self.acks.insert(id, AckWait { shard, dots, needed, deadline_ms });
        true
    }

    /// Nobody is interested any more.
    pub fn remove(&mut self, id: u64) {
        self.tokens.remove(&id);
        self.acks.remove(&id);
    }

    /// This node's clocks have moved: who has what it waited for.
    pub fn clocks_changed(&mut self, bases: impl Fn(Shard) -> VersionVector) -> Vec<(u64, Ended)> {
        if self.tokens.is_empty() {
            return Vec::new();
        }
        let mut known: BTreeMap<Shard, VersionVector> = BTreeMap::new();
        let mut covers = |token: &SessionToken| {
            token.iter().all(|(shard, vector)| {
                known.entry(shard).or_insert_with(|| bases(shard)).descends(vector)
            })
        };
        let done: Vec<u64> =
            self.tokens.iter().filter(|(_, wait)| covers(&wait.token)).map(|(id, _)| *id).collect();
        for id in &done {
            self.tokens.remove(id);
        }
        done.into_iter().map(|id| (id, Ended::CaughtUp)).collect()
    }

    /// Peers have acknowledged more: who has enough.
    pub fn acked(&mut self, stability: &Stability) -> Vec<(u64, Ended)> {
        let enough = |wait: &AckWait| {
            let acked = stability.acked(wait.shard, &wait.dots);
            (acked >= wait.needed).then_some(acked)
        };
        let done: Vec<(u64, usize)> = self
            .acks
            .iter()
            .filter_map(|(id, wait)| enough(wait).map(|acked| (*id, acked)))
            .collect();
        for (id, _) in &done {
            self.acks.remove(id);
        }
        done.into_iter().map(|(id, acked)| (id, Ended::Acked(acked))).collect()
    }

    /// Time has passed: who has waited long enough, and whose events should be fetched from whom, by node of their actors.
    pub fn tick(&mut self, now_ms: u64, stability: &Stability) -> (Vec<(u64, Ended)>, Vec<NodeId>) {
        let mut ended = Vec::new();
        let mut pulls = Vec::new();
        self.tokens.retain(|id, wait| {
            if wait.deadline_ms <= now_ms {
                ended.push((*id, Ended::NotCaughtUp));
                return false;
            }
            if wait.pull_ms.is_some_and(|at| at <= now_ms) {
                wait.pull_ms = None;
                let actors = wait.token.iter().flat_map(|(_, vector)| vector.iter());
                pulls.extend(actors.map(|(actor, _)| actor.node));
            }
            true
        });
        self.acks.retain(|id, wait| {
            let late = wait.deadline_ms <= now_ms;
            if late {
                ended.push((*id, Ended::NotAcked(stability.acked(wait.shard, &wait.dots))));
            }
            !late
        });
        pulls.sort_unstable();
        pulls.dedup();
        (ended, pulls)
    }

    /// When to call [`Waiters::tick`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let tokens = self.tokens.values();
        let tokens = tokens.map(|w| w.pull_ms.map_or(w.deadline_ms, |at| at.min(w.deadline_ms)));
        tokens.chain(self.acks.values().map(|w| w.deadline_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_storage::{Actor, Space};

    fn token(counter: u64) -> SessionToken {
        let mut token = SessionToken::new();
        token.raise(0, Space::Durable, dot(counter));
        token
    }

    fn dot(counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId([2; 16]), incarnation: 1 }, counter }
    }

    fn bases(counter: u64) -> impl Fn(Shard) -> VersionVector {
        move |_| VersionVector::from_iter([(dot(1).actor, counter)])
    }

    #[test]
    fn token_waits_for_its_clock_pulls_once_and_ends_at_its_deadline() {
        let stability = Stability::new(NodeId([1; 16]));
        let mut waiters = Waiters::new();
        assert!(
            waiters.add_token(1, token(3), 100, 500) && waiters.add_token(2, token(5), 100, 200)
        );
        assert_eq!(waiters.next_deadline(), Some(120));
        assert_eq!(waiters.tick(119, &stability), (vec![], vec![]));
        assert_eq!(waiters.tick(120, &stability), (vec![], vec![NodeId([2; 16])]));
        assert_eq!(waiters.tick(121, &stability), (vec![], vec![]));
        assert_eq!(waiters.clocks_changed(bases(2)), []);
        assert_eq!(waiters.clocks_changed(bases(4)), [(1, Ended::CaughtUp)]);
        assert_eq!(waiters.next_deadline(), Some(200));
        assert_eq!(waiters.tick(200, &stability), (vec![(2, Ended::NotCaughtUp)], vec![]));
        assert!(waiters.is_empty());
    }

    #[test]
    fn acks_end_with_how_many_there_were() {
        let stability = Stability::new(NodeId([1; 16]));
        let shard = Shard::new(0, Space::Durable);
        let mut waiters = Waiters::new();
        assert!(waiters.add_acks(1, shard, vec![dot(1)], 1, 50));
        assert_eq!(waiters.acked(&stability), []);
        assert_eq!(waiters.tick(50, &stability), (vec![(1, Ended::NotAcked(0))], vec![]));
        assert!(waiters.add_acks(2, shard, vec![dot(1)], 0, 50));
        assert_eq!(waiters.acked(&stability), [(2, Ended::Acked(0))]);
    }
}
