//! A broadcast tree as one node sees it: along which connections news of one root go, where not all nodes are connected.
//!
//! What it is: the part of Plumtree (Leitão, Pereira, Rodrigues: Epidemic Broadcast Trees) that does not depend on what is
//! broadcast. Each root has a tree of its own, so its links have a direction. The interest of the router and the records of the
//! membership ride on such trees; what announces and what asks is their own. Events of the store have trees that they share
//! with timers by event: see the broadcast.
//!
//! What it guarantees: a neighbour whose news come too late again and again is asked to keep them; one that was asked so takes
//! the place of a lost parent at once.
//!
//! What it refuses: to know what the news are. It may happen that nobody sends: announcements have to lead to a graft then.

use std::collections::{BTreeMap, BTreeSet};

use weald_storage::NodeId;

/// News in a row that were known already, after which their sender is asked to keep them. // as the store's broadcast
const PRUNE_AFTER: u8 = 2;

/// The connections of one tree at this node. Bounded by the neighbours.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Neighbours that want no news of the root from here.
    lazy: BTreeSet<NodeId>,
    /// Neighbours that have asked for news of the root.
    asked: BTreeSet<NodeId>,
    /// Who has brought the newest.
    parent: Option<NodeId>,
    /// How often in a row others have brought what was known.
    late: BTreeMap<NodeId, u8>,
    /// Neighbours that were asked to keep their news.
    spares: BTreeSet<NodeId>,
}

impl Tree {
    /// Whether news of the root go to a neighbour, where each begins with all of them.
    #[must_use]
    pub fn is_eager(&self, peer: NodeId) -> bool {
        !self.lazy.contains(&peer)
    }

    /// Whether a neighbour has asked for news of the root: it gets them where others do not.
    #[must_use]
    pub fn is_asked(&self, peer: NodeId) -> bool {
        self.asked.contains(&peer)
    }

    /// A neighbour has brought something new.
    pub fn brought(&mut self, from: NodeId) {
        self.late.remove(&from);
        self.spares.remove(&from);
        self.parent = Some(from);
    }

    /// A neighbour has brought what was known. Whom to ask to keep its news, if anybody.
    pub fn came_late(&mut self, from: NodeId, root: NodeId) -> Option<NodeId> {
        let parent = *self.parent.get_or_insert(from);
        if parent == from {
            return None;
        }
        let late = self.late.entry(from).or_default();
        *late = late.saturating_add(1);
        if *late < PRUNE_AFTER {
            return None;
        }
        self.late.remove(&from);
        // There is no better parent than the root itself.
        let pruned = if from == root { self.parent.replace(from)? } else { from };
        self.spares.insert(pruned);
        Some(pruned)
    }

    /// A neighbour wants no more news.
    pub fn pruned(&mut self, peer: NodeId) {
        self.asked.remove(&peer);
        self.lazy.insert(peer);
    }

    /// A neighbour wants what it lacks, and the news that follow.
    pub fn grafted(&mut self, peer: NodeId) {
        self.asked.insert(peer);
        self.lazy.remove(&peer);
    }

    /// A neighbour is gone. Whom to ask instead if it was the parent.
    pub fn lost(&mut self, peer: NodeId) -> Option<NodeId> {
        self.asked.remove(&peer);
        self.lazy.remove(&peer);
        self.late.remove(&peer);
        self.spares.remove(&peer);
        if self.parent != Some(peer) {
            return None;
        }
        self.parent = None;
        self.spares.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: NodeId = NodeId([1; 16]);
    const A: NodeId = NodeId([2; 16]);
    const B: NodeId = NodeId([3; 16]);
    const C: NodeId = NodeId([4; 16]);

    #[test]
    fn late_neighbours_are_asked_to_stop_and_take_the_place_of_the_parent() {
        let mut tree = Tree::default();
        tree.brought(A);
        assert_eq!([(); 2].map(|()| tree.came_late(B, ROOT)), [None, Some(B)]);
        assert_eq!([(); 9].map(|()| tree.came_late(A, ROOT)), [None; 9], "it is the only way");
        // A race between two ways is no reason.
        assert_eq!(tree.came_late(C, ROOT), None);
        tree.brought(C);
        assert_eq!([tree.came_late(A, ROOT), tree.came_late(C, ROOT)], [None; 2]);
        assert_eq!(tree.lost(C), Some(B));
        assert_eq!((tree.lost(C), tree.lost(B)), (None, None));
    }

    #[test]
    fn the_root_is_the_best_parent() {
        let mut tree = Tree::default();
        tree.brought(A);
        assert_eq!([(); 2].map(|()| tree.came_late(ROOT, ROOT)), [None, Some(A)]);
        assert_eq!(tree.came_late(ROOT, ROOT), None);
    }

    #[test]
    fn who_wants_no_news_gets_them_again_when_it_asks() {
        let mut tree = Tree::default();
        assert!(tree.is_eager(A));
        tree.pruned(A);
        assert!(!tree.is_eager(A) && tree.is_eager(B));
        assert!(!tree.is_asked(A) && !tree.is_asked(B));
        tree.grafted(A);
        assert!(tree.is_eager(A) && tree.is_asked(A));
        tree.pruned(A);
        assert!(!tree.is_asked(A));
        tree.grafted(B);
        assert_eq!((tree.lost(A), tree.lost(B)), (None, None));
        assert!(!tree.is_asked(B));
        assert!(tree.is_eager(A), "a new connection begins anew");
    }
}
