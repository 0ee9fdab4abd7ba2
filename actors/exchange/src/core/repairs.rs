//! With whom buckets were compared in which objects were lost.
//!
//! What it guarantees: a bucket is called done only after every member but this node was compared with it, fenced ones
//! included, in sessions that took all that the member held there. So what any of them still has is back, and what the bucket
//! lacks then may count as evidence again.
//! What it refuses: to remember across restarts. The marks are in the store; the comparisons begin anew.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Cluster;
use weald_storage::{Bucket, NodeId};

use super::outcome::Compared;
use super::wire::Shard;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Repairs {
    members: BTreeSet<NodeId>,
    compared: BTreeMap<(Shard, Bucket), BTreeSet<NodeId>>,
}

impl Repairs {
    /// The membership has changed.
    pub fn set_cluster(&mut self, cluster: &Cluster) {
        self.members = cluster.peers().map(|member| member.node).collect();
    }

    /// A session with `peer` has compared these buckets. Those that are done, by shard.
    pub fn compared(&mut self, peer: NodeId, compared: &[Compared]) -> Vec<Compared> {
        let mut done = Vec::new();
        for Compared { shard, buckets } in compared {
            let mut whole = Vec::new();
            for bucket in buckets {
                let with = self.compared.entry((*shard, *bucket)).or_default();
                with.insert(peer);
                if !self.members.is_empty() && self.members.is_subset(with) {
                    self.compared.remove(&(*shard, *bucket));
                    whole.push(*bucket);
                }
            }
            if !whole.is_empty() {
                done.push(Compared { shard: *shard, buckets: whole });
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_peers::{Liveness, Member, Status};
    use weald_storage::Space;

    fn node(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    #[test]
    fn bucket_is_done_after_every_member_even_a_fenced_one() {
        let mut repairs = Repairs::default();
        let shard = Shard::new(0, Space::Durable);
        let of = |numbers: &[u16]| -> Compared {
            let buckets = numbers.iter().filter_map(|number| Bucket::new(*number)).collect();
            Compared { shard, buckets }
        };
        assert_eq!(repairs.compared(node(2), &[of(&[7])]), [], "there is no member yet");
        let mut cluster = Cluster::alone(member(1, Status::Joined));
        for (n, status) in [(2, Status::Joined), (3, Status::Fenced), (4, Status::Evicted)] {
            cluster.members.insert(node(n), member(n, status));
        }
        repairs.set_cluster(&cluster);
        assert_eq!(repairs.compared(node(2), &[of(&[7, 8])]), []);
        assert_eq!(repairs.compared(node(4), &[of(&[8])]), []);
        assert_eq!(repairs.compared(node(3), &[of(&[8, 9])]), [of(&[8])]);
        // Damaged again: it begins anew.
        assert_eq!(repairs.compared(node(3), &[of(&[8])]), []);
        assert_eq!(repairs.compared(node(2), &[of(&[8, 9])]), [of(&[8, 9])]);
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
