//! With whom buckets were compared in which objects were lost.
//!
//! What a damaged bucket lacks is lost or dead, and its node cannot tell which. A peer that has processed all that this node
//! has can: it holds what was lost and nothing that is dead. A peer that is behind may hold either. What this node takes for
//! dead is left with it then, until it has caught up, or until all other members were asked ([`Resort`]): what lies in the
//! clocks of those that are sound, and was not there, is dead; what none of them knows is taken.
//!
//! What it guarantees: a bucket is called done only after every member but this node was compared with it, fenced ones
//! included, in sessions that took all that the member held there and that none before it had known to be dead. So what any
//! of them still has is back, and what the bucket lacks then may count as evidence again.
//! What it refuses: to remember across restarts. The marks are in the store; the comparisons begin anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weald_peers::Cluster;
use weald_storage::{Bucket, Clock, NodeId};

use super::outcome::{Compared, Verdict};
use super::wire::Shard;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Repairs {
    members: BTreeSet<NodeId>,
    buckets: BTreeMap<(Shard, Bucket), Progress>,
}

/// How far a bucket is.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Members of which all was taken.
    with: BTreeSet<NodeId>,
    /// Members with which something was left.
    left: BTreeSet<NodeId>,
    /// What those of the first had processed whose buckets were sound.
    known: Arc<Clock>,
}

/// Buckets of a shard that are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The shard.
    pub shard: Shard,
    /// The buckets, ascending.
    pub buckets: Vec<Bucket>,
}

/// What a session with a peer is told of the buckets that are marked here.
#[derive(Debug, Clone, Default)]
pub struct Resort {
    /// Those that were compared with this peer.
    done: BTreeSet<(Shard, Bucket)>,
    /// Those in which whatever the peer has is taken, but for what is dead by these clocks.
    last: BTreeMap<(Shard, Bucket), Arc<Clock>>,
    /// There is no other member.
    is_only_peer: bool,
}

impl Resort {
    /// For the peer of a cluster of two.
    #[must_use]
    pub fn only_peer() -> Self {
        Self { is_only_peer: true, ..Self::default() }
    }

    /// Whether the peer need not be asked.
    pub(crate) fn is_done(&self, shard: Shard, bucket: Bucket) -> bool {
        self.done.contains(&(shard, bucket))
    }

    /// If the peer is the last that can tell: what others have told.
    pub(crate) fn known(&self, shard: Shard, bucket: Bucket) -> Option<Arc<Clock>> {
        let known = self.last.get(&(shard, bucket)).map(Arc::clone);
        known.or_else(|| self.is_only_peer.then(Arc::default))
    }
}

impl Repairs {
    /// The membership has changed.
    pub fn set_cluster(&mut self, cluster: &Cluster) {
        self.members = cluster.peers().map(|member| member.node).collect();
    }

    /// What a session with `peer` has to know.
    #[must_use]
    pub fn resort(&self, peer: NodeId) -> Resort {
        let mut others = self.members.clone();
        others.remove(&peer);
        let is_only_peer = others.is_empty() && !self.members.is_empty();
        let mut resort = Resort { is_only_peer, ..Resort::default() };
        for (at, Progress { with, left, known }) in &self.buckets {
            if with.contains(&peer) {
                resort.done.insert(*at);
            }
            if others.iter().all(|other| with.contains(other) || left.contains(other)) {
                resort.last.insert(*at, Arc::clone(known));
            }
        }
        resort
    }

    /// A session with `peer` has compared these buckets. Those that are done, by shard.
    pub fn compared(&mut self, peer: NodeId, compared: &[Compared]) -> Vec<Repaired> {
        for Compared { shard, buckets } in compared {
            for (bucket, verdict) in buckets {
                self.buckets.entry((*shard, *bucket)).or_default().note(peer, verdict);
            }
        }
        // Of all: the membership may have changed since.
        let members = &self.members;
        let is_done = |_: &(Shard, Bucket), progress: &mut Progress| {
            !members.is_empty() && members.is_subset(&progress.with)
        };
        let mut done: Vec<Repaired> = Vec::new();
        for ((shard, bucket), _) in self.buckets.extract_if(.., is_done) {
            match done.last_mut().filter(|last| last.shard == shard) {
                Some(last) => last.buckets.push(bucket),
                None => done.push(Repaired { shard, buckets: vec![bucket] }),
            }
        }
        done
    }
}

impl Progress {
    fn note(&mut self, peer: NodeId, verdict: &Verdict) {
        match verdict {
            Verdict::Left if !self.with.contains(&peer) => _ = self.left.insert(peer),
            Verdict::Left => {}
            Verdict::Unsound | Verdict::Sound(_) => {
                self.with.insert(peer);
                self.left.remove(&peer);
            }
        }
        if let Verdict::Sound(clock) = verdict
            && !self.known.descends(clock)
        {
            if clock.descends(&self.known) {
                self.known = Arc::clone(clock);
            } else {
                Arc::make_mut(&mut self.known).merge(clock);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_peers::{Liveness, Member, Status};
    use weald_storage::{Actor, Dot, Space};

    const SHARD: Shard = Shard::new(0, Space::Durable);

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    fn bucket(number: u16) -> Bucket {
        Bucket::new(number).unwrap()
    }

    fn of(verdicts: &[(u16, Verdict)]) -> Compared {
        let buckets = verdicts.iter().map(|(number, v)| (bucket(*number), v.clone()));
        Compared { shard: SHARD, buckets: buckets.collect() }
    }

    fn unsound(numbers: &[u16]) -> Compared {
        of(&numbers.iter().map(|number| (*number, Verdict::Unsound)).collect::<Vec<_>>())
    }

    fn repaired(numbers: &[u16]) -> Repaired {
        Repaired { shard: SHARD, buckets: numbers.iter().map(|n| bucket(*n)).collect() }
    }

    fn clock(counter: u64) -> Arc<Clock> {
        let mut clock = Clock::default();
        clock.insert(Dot { actor: Actor { node: node(9), incarnation: 1 }, counter });
        Arc::new(clock)
    }

    fn repairs(members: &[(u8, Status)]) -> Repairs {
        let mut cluster = Cluster::alone(member(1, Status::Joined));
        for (n, status) in members {
            cluster.members.insert(node(*n), member(*n, *status));
        }
        let mut repairs = Repairs::default();
        repairs.set_cluster(&cluster);
        repairs
    }

    #[test]
    fn bucket_is_done_after_every_member_even_a_fenced_one() {
        let mut repairs = Repairs::default();
        assert_eq!(repairs.compared(node(2), &[unsound(&[7])]), [], "there is no member yet");
        let mut repairs =
            self::repairs(&[(2, Status::Joined), (3, Status::Fenced), (4, Status::Evicted)]);
        assert_eq!(repairs.compared(node(2), &[unsound(&[7, 8])]), []);
        assert_eq!(repairs.compared(node(4), &[unsound(&[8])]), []);
        assert!(repairs.resort(node(2)).is_done(SHARD, bucket(8)));
        assert!(!repairs.resort(node(3)).is_done(SHARD, bucket(8)));
        assert_eq!(repairs.compared(node(3), &[unsound(&[8, 9])]), [repaired(&[8])]);
        // Damaged again: it begins anew.
        assert_eq!(repairs.compared(node(3), &[unsound(&[8])]), []);
        assert_eq!(repairs.compared(node(2), &[unsound(&[8, 9])]), [repaired(&[8, 9])]);
        // The member that is waited for goes.
        assert_eq!(repairs.compared(node(3), &[unsound(&[6])]), []);
        repairs.set_cluster(&Cluster::alone(member(1, Status::Joined)));
        repairs.members.insert(node(3));
        assert_eq!(repairs.compared(node(3), &[]), [repaired(&[6])]);
    }

    #[test]
    fn what_was_left_with_a_member_is_taken_once_all_others_were_asked() {
        let mut repairs = repairs(&[(2, Status::Joined), (3, Status::Fenced), (4, Status::Joined)]);
        let known = |repairs: &Repairs, n| repairs.resort(node(n)).known(SHARD, bucket(7));
        assert_eq!(repairs.compared(node(3), &[of(&[(7, Verdict::Left)])]), []);
        assert_eq!(repairs.compared(node(2), &[of(&[(7, Verdict::Sound(clock(1)))])]), []);
        assert_eq!(known(&repairs, 3), None, "4 may know");
        // 4 is asked as the last that has told nothing, though it does not matter to one that is not behind.
        assert_eq!(known(&repairs, 4), Some(clock(1)));
        assert_eq!(repairs.compared(node(4), &[of(&[(7, Verdict::Sound(clock(2)))])]), []);
        let both = known(&repairs, 3).unwrap();
        assert!(both.descends(&clock(1)) && both.descends(&clock(2)));
        assert!(!repairs.resort(node(3)).is_done(SHARD, bucket(7)));
        assert_eq!(repairs.compared(node(3), &[of(&[(7, Verdict::Unsound)])]), [repaired(&[7])]);
    }

    #[test]
    fn only_peer_is_the_last_that_can_tell_from_the_start() {
        let pair = repairs(&[(2, Status::Joined)]);
        assert_eq!(pair.resort(node(2)).known(SHARD, bucket(7)), Some(Arc::default()));
        let three = repairs(&[(2, Status::Joined), (3, Status::Joined)]);
        assert_eq!(three.resort(node(2)).known(SHARD, bucket(7)), None);
        assert_eq!(Repairs::default().resort(node(2)).known(SHARD, bucket(7)), None);
    }

    fn member(n: u8, status: Status) -> Member {
        Member {
            node: node(n),
            name: format!("n{n}"),
            incarnation: 1,
            version: 1,
            addresses: Vec::new(),
            status,
            liveness: Liveness::Up,
            seen_ms: 0,
        }
    }
}
