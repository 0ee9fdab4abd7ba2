//! Whether this node may take writes, by where it stands in its cluster.
//!
//! What it guarantees: a node that is fenced, has left or was evicted takes none; nor does one whose name or id a member has
//! called another's, from then until it is connected with some member.
//! What it refuses: to guess. A node that nobody has told anything, be it alone or cut off, takes writes.

use std::sync::{Mutex, PoisonError};
use weald_peers::{Cluster, Status};
use weald_proto::hello::Refused;

/// What members have said of this node's name and id.
#[derive(Debug)]
pub(super) struct Standing {
    name: String,
    told: Mutex<Option<Refused>>,
}

impl Standing {
    /// Of a node under this name, of which nobody has said anything.
    pub(super) const fn new(name: String) -> Self {
        Self { name, told: Mutex::new(None) }
    }

    /// A node, by its name, has refused the connection. It does not count for one that others have let in.
    pub(super) fn refused_by(&self, peer: &str, why: &Refused, cluster: &Cluster) {
        let is_ours = match why {
            Refused::NameTaken(name) => *name == self.name,
            Refused::Clone(_) => true,
            _ => return,
        };
        // The twin itself would say the same: who of the two is right is for the others to say.
        if is_ours && peer != self.name && cluster.neighbours.is_empty() {
            *self.lock() = Some(why.clone());
        }
    }

    /// The membership has changed. Whoever is connected with a member was let in: what was said before is resolved.
    pub(super) fn changed(&self, cluster: &Cluster) {
        if !cluster.neighbours.is_empty() {
            *self.lock() = None;
        }
    }

    /// Why no writes are taken; none: they are.
    pub(super) fn refusal(&self, cluster: &Cluster) -> Option<String> {
        let status = cluster.members.get(&cluster.own).map(|own| own.status);
        match status {
            Some(Status::Fenced) => {
                return Some(
                    "this node is fenced: it was away longer than cluster.max_absence, and takes \
                     writes again when it has caught up"
                        .to_owned(),
                );
            }
            Some(gone @ (Status::Left | Status::Evicted)) => {
                return Some(format!(
                    "this node is {gone} and takes no part in the cluster: `weald cluster join \
                     ADDRESS` brings it back"
                ));
            }
            Some(Status::Joined | Status::Leaving) | None => {}
        }
        self.changed(cluster);
        self.lock().as_ref().map(|refused| format!("the cluster refuses this node: {refused}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Refused>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weald_peers::{Liveness, Member};
    use weald_storage::NodeId;

    fn cluster(status: Status, neighbours: &[u8]) -> Cluster {
        let own = Member {
            node: NodeId([1; 16]),
            name: "n1".to_owned(),
            incarnation: 1,
            version: 1,
            addresses: Vec::new(),
            status,
            liveness: Liveness::Up,
            seen_ms: 0,
        };
        let neighbours = neighbours.iter().map(|n| NodeId([*n; 16])).collect();
        Cluster { neighbours, ..Cluster::alone(own) }
    }

    #[test]
    fn status_decides_who_takes_writes() {
        let standing = Standing::new("n1".to_owned());
        for (status, word) in [
            (Status::Joined, None),
            (Status::Leaving, None),
            (Status::Fenced, Some("cluster.max_absence")),
            (Status::Left, Some("cluster join")),
            (Status::Evicted, Some("evicted")),
        ] {
            let refusal = standing.refusal(&cluster(status, &[2]));
            assert_eq!(refusal.is_some(), word.is_some(), "{status}");
            assert!(refusal.unwrap_or_default().contains(word.unwrap_or_default()), "{status}");
        }
    }

    #[test]
    fn taken_name_holds_until_a_member_is_connected() {
        let standing = Standing::new("n1".to_owned());
        let (alone, connected) = (cluster(Status::Joined, &[]), cluster(Status::Joined, &[2]));
        let taken = |name: &str| Refused::NameTaken(name.to_owned());
        // Of others, by the twin, for another reason, or to one that others have let in: no matter.
        standing.refused_by("n2", &taken("n3"), &alone);
        standing.refused_by("n1", &taken("n1"), &alone);
        standing.refused_by("n2", &Refused::Busy, &alone);
        standing.refused_by("n2", &taken("n1"), &connected);
        assert_eq!(standing.refusal(&alone), None);
        for why in [taken("n1"), Refused::Clone("id".to_owned())] {
            standing.refused_by("n2", &why, &alone);
            standing.refused_by("n3", &Refused::Busy, &alone);
            assert!(standing.refusal(&alone).unwrap().contains(&why.to_string()));
            assert_eq!(standing.refusal(&connected), None);
            assert_eq!(standing.refusal(&alone), None, "resolved, and then cut off");
        }
    }
}
