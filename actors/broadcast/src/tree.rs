//! The tree of one root, as one node sees it.
//!
//! DEVIATES (Plumtree 3.5): a tree has one root here, so its links have a direction. `children` are the peers to which this
//! node pushes; whether a peer pushes to this node is that peer's business, and told with prune and graft. A link that is
//! pruned one way may serve the other way in the trees of other roots.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::NodeId;

use crate::config::{CANDIDATES_MAX, GRAFT_MS_MAX};

#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// Eager push peers. All other neighbours are lazy.
    pub(crate) children: BTreeSet<NodeId>,
    /// Who brought the newest event.
    pub(crate) parent: Option<NodeId>,
    /// Hops of the newest event.
    pub(crate) round: u16,
    /// Duplicates in a row by peer.
    pub(crate) duplicates: BTreeMap<NodeId, u8>,
    /// Who announces events of the root without being served by this node, the latest first.
    pub(crate) candidates: Vec<NodeId>,
    /// How long an announced event may be under way; 0 until something was learnt.
    pub(crate) graft_ms: u64,
    /// When it was used, in inputs.
    pub(crate) used: u64,
}

impl Tree {
    pub(crate) fn note_candidate(&mut self, peer: NodeId) {
        self.candidates.retain(|known| *known != peer);
        self.candidates.insert(0, peer);
        self.candidates.truncate(CANDIDATES_MAX);
    }

    /// A graft was followed by the event from elsewhere: it was only late.
    pub(crate) fn was_late(&mut self, graft_ms: u64) {
        self.graft_ms = self.graft_ms.max(graft_ms).saturating_mul(2).min(GRAFT_MS_MAX);
    }

    /// A graft has brought the event.
    pub(crate) fn was_lost(&mut self) {
        self.graft_ms /= 2;
    }

    /// Forgets a peer; whether it was the parent.
    pub(crate) fn forget(&mut self, peer: NodeId) -> bool {
        self.children.remove(&peer);
        self.duplicates.remove(&peer);
        self.candidates.retain(|known| *known != peer);
        let was_parent = self.parent == Some(peer);
        if was_parent {
            self.parent = None;
        }
        was_parent
    }

    /// Whom to ask for events when the parent is gone: not a peer that is served from here, which would make a ring.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        self.candidates.iter().copied().find(|peer| !self.children.contains(peer))
    }
}
