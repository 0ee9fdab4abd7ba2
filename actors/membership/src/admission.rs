//! Who may connect. Asked in each handshake of a node, on a snapshot, without a lock.

use thiserror::Error;
use weald_peers::{Cluster, Liveness, PeerInfo, Status};
use weald_storage::NodeId;

/// Why a node is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It was evicted, in this incarnation or a later one than it has now.
    #[error("the node was evicted from the cluster")]
    Evicted,
    /// A live member has its name.
    #[error("the name {name} belongs to the live member {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: NodeId,
    },
    /// It has this node's id: the same disk, or a copy.
    #[error("the peer has this node's own id")]
    Itself,
    /// This node does not take part in the cluster.
    #[error("this node is {0}: it is no member")]
    NoMember(Status),
}

/// Whether a peer may connect.
///
/// # Errors
/// [`Refusal`].
pub fn admit(cluster: &Cluster, peer: &PeerInfo) -> Result<(), Refusal> {
    if peer.node == cluster.own {
        return Err(Refusal::Itself);
    }
    if let Some(own) = cluster.members.get(&cluster.own).filter(|own| !own.status.is_member()) {
        return Err(Refusal::NoMember(own.status));
    }
    // An evicted node that joins again has taken a higher incarnation; its record then says whether it was let to.
    if let Some(known) = cluster.members.get(&peer.node)
        && known.status == Status::Evicted
        && peer.incarnation <= known.incarnation
    {
        return Err(Refusal::Evicted);
    }
    let holder = cluster.members.values().find(|member| {
        member.name == peer.name
            && member.node != peer.node
            && member.status.is_member()
            && member.liveness != Liveness::Down
    });
    match holder {
        Some(holder) => Err(Refusal::NameTaken { name: peer.name.clone(), holder: holder.node }),
        None => Ok(()),
    }
}
