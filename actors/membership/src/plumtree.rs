//! Which way records go: Plumtree with a tree per root, over the view.
//!
//! What it is: the trees of all roots, the announcements that wait for the lazy tick, and the records that were announced and
//! have not come, with the timers after which they are asked for. The root is the node at which a change came into the cluster.
//! The view is the message cache: it knows what has arrived, and answers a graft with what it holds by then.
//!
//! What it guarantees: in an overlay a change goes on to the eager peers of its root's tree, and is announced to the others. In
//! a full mesh its root tells everybody, and nobody passes it on but to who has asked for that; it is announced to the next few
//! by id, which finds those whom the root does not reach. Whatever was announced by several is asked of one at a time.
//!
//! What it refuses: more than is bounded here. What falls out is left to the comparison of whole views.
//!
//! DEVIATES (Plumtree 3.8): no path is replaced by a shorter one; changes of one root are too rare to measure hops by.

use std::collections::{BTreeMap, BTreeSet};

use weald_peers::Tree;
use weald_storage::NodeId;

use crate::messages::Head;

/// An announced record may be under way for so long before it is asked for. // guess: a crowd that connects tells it by itself
const GRAFT_MS: u64 = 300;
/// A graft is waited for so long before the next announcer is asked. // guess
const ANSWER_MS: u64 = 1_000;
/// A record is asked for so often; the next comparison finds it then. // guess
const ASKS_MAX: u8 = 6;
/// Announcers that are remembered of one record. // guess
const ANNOUNCERS_MAX: usize = 4;
/// Peers to which records are announced in a full mesh, the next ones by id. // guess
const TOLD_MAX: usize = 3;
/// Announcements that wait for one peer; beyond that its view is compared instead. // guess
const LAZY_MAX: usize = 2_048;
/// Roots whose trees are kept. // guess: as the records of a view
const ROOTS_MAX: usize = crate::view::RECORDS_MAX;

/// Whom to tell: eager peers, and those who are only told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Receivers {
    pub(crate) eager: Vec<NodeId>,
    pub(crate) lazy: Vec<NodeId>,
}

/// Whom a record is asked of first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// It may be under way: not before the timer.
    Wait,
    /// The announcer, and now.
    Now,
}

/// A record that was announced and has not come.
#[derive(Debug, Clone)]
struct Want {
    head: Head,
    /// Who has announced it, and on which tree.
    announcers: Vec<(NodeId, Option<NodeId>)>,
    asked: Option<NodeId>,
    asks_count: u8,
    due_ms: u64,
}

/// What is to be asked for: by peer and tree.
pub(crate) type Asks = BTreeMap<(NodeId, Option<NodeId>), Vec<NodeId>>;
/// What waits to be announced to a peer: nodes, with the tree on which their record came.
pub(crate) type Announced = BTreeMap<NodeId, Option<NodeId>>;

/// The trees of one node.
#[derive(Debug, Clone)]
pub(crate) struct Plumtree {
    own: NodeId,
    is_full_mesh: bool,
    trees: BTreeMap<NodeId, Tree>,
    lazy: BTreeMap<NodeId, Announced>,
    wants: BTreeMap<NodeId, Want>,
    lazy_at_ms: u64,
    lazy_tick_ms: u64,
}

impl Plumtree {
    pub(crate) fn new(own: NodeId, is_full_mesh: bool, lazy_tick_ms: u64) -> Self {
        Self {
            own,
            is_full_mesh,
            trees: BTreeMap::new(),
            lazy: BTreeMap::new(),
            wants: BTreeMap::new(),
            lazy_at_ms: 0,
            lazy_tick_ms,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.trees.clear();
        self.lazy.clear();
        self.wants.clear();
    }

    fn tree(&mut self, root: NodeId) -> Option<&mut Tree> {
        if self.trees.len() >= ROOTS_MAX && !self.trees.contains_key(&root) {
            return None;
        }
        Some(self.trees.entry(root).or_default())
    }

    /// To whom a change of `root` goes, that came from `from`.
    pub(crate) fn receivers(
        &self,
        root: NodeId,
        from: Option<NodeId>,
        neighbours: &BTreeSet<NodeId>,
    ) -> Receivers {
        let tree = self.trees.get(&root);
        let is_eager = |peer: &NodeId| match tree {
            Some(tree) if self.is_full_mesh && root != self.own => tree.is_asked(*peer),
            Some(tree) => tree.is_eager(*peer),
            None => !self.is_full_mesh || root == self.own,
        };
        let others = |peer: &NodeId| Some(*peer) != from && *peer != root;
        let (eager, rest): (Vec<NodeId>, Vec<NodeId>) =
            neighbours.iter().copied().filter(others).partition(is_eager);
        let told = self.told(neighbours);
        Receivers { eager, lazy: rest.into_iter().filter(|peer| told.contains(peer)).collect() }
    }

    /// To whom records are announced at all.
    pub(crate) fn told(&self, neighbours: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let next = neighbours.range(self.own..).chain(neighbours.range(..self.own));
        let count = if self.is_full_mesh { TOLD_MAX } else { usize::MAX };
        next.copied().take(count).collect()
    }

    /// A peer will be told with the next tick. False when too much waits for it.
    pub(crate) fn announce(
        &mut self,
        now_ms: u64,
        peer: NodeId,
        root: Option<NodeId>,
        node: NodeId,
    ) -> bool {
        if self.lazy.is_empty() {
            self.lazy_at_ms = now_ms.saturating_add(self.lazy_tick_ms);
        }
        let waiting = self.lazy.entry(peer).or_default();
        if waiting.len() >= LAZY_MAX && !waiting.contains_key(&node) {
            self.lazy.remove(&peer);
            return false;
        }
        waiting.insert(node, root);
        true
    }

    /// A peer has shown to have the newest record of a node.
    pub(crate) fn has(&mut self, peer: NodeId, node: NodeId) {
        if let Some(waiting) = self.lazy.get_mut(&peer) {
            waiting.remove(&node);
            if waiting.is_empty() {
                self.lazy.remove(&peer);
            }
        }
    }

    /// Takes the announcements when they are due.
    pub(crate) fn take_lazy(&mut self, now_ms: u64) -> BTreeMap<NodeId, Announced> {
        if self.lazy_at_ms > now_ms { BTreeMap::new() } else { std::mem::take(&mut self.lazy) }
    }

    /// A peer has a record that is news.
    pub(crate) fn want(
        &mut self,
        now_ms: u64,
        (from, root): (NodeId, Option<NodeId>),
        head: &Head,
        hurry: Hurry,
    ) {
        let is_full = self.wants.len() >= crate::view::RECORDS_MAX;
        if is_full && !self.wants.contains_key(&head.node) {
            return;
        }
        let want = self.wants.entry(head.node).or_insert_with(|| Want {
            head: *head,
            announcers: Vec::new(),
            asked: None,
            asks_count: 0,
            due_ms: now_ms.saturating_add(GRAFT_MS),
        });
        if head.rank() > want.head.rank() {
            // Who has announced something older does not help.
            (want.head, want.asked, want.asks_count) = (*head, None, 0);
            want.announcers.clear();
        } else if head.rank() < want.head.rank() {
            return;
        }
        want.announcers.retain(|(peer, _)| *peer != from);
        match hurry {
            Hurry::Now => {
                want.announcers.insert(0, (from, root));
                want.announcers.truncate(ANNOUNCERS_MAX);
                if want.asked.is_none() {
                    want.due_ms = now_ms;
                }
            }
            Hurry::Wait if want.announcers.len() < ANNOUNCERS_MAX => {
                want.announcers.push((from, root));
            }
            Hurry::Wait => {}
        }
    }

    /// Whether somebody is being asked for the record of a node.
    pub(crate) fn is_asked(&self, node: NodeId) -> bool {
        self.wants.get(&node).is_some_and(|want| want.asked.is_some())
    }

    /// A record is here that is no older than `head` says.
    pub(crate) fn arrived(&mut self, head: &Head) {
        if self.wants.get(&head.node).is_some_and(|want| want.head.rank() <= head.rank()) {
            self.wants.remove(&head.node);
        }
    }

    /// What is to be asked for now. Each record is asked of one peer at a time.
    pub(crate) fn asks(&mut self, now_ms: u64, connected: &BTreeSet<NodeId>) -> Asks {
        let mut asks = Asks::new();
        self.wants.retain(|node, want| {
            if want.due_ms > now_ms {
                return true;
            }
            want.announcers.retain(|(peer, _)| connected.contains(peer));
            if want.announcers.is_empty() || want.asks_count >= ASKS_MAX {
                return false;
            }
            let (peer, root) = want.announcers.remove(0);
            want.announcers.push((peer, root));
            want.asked = Some(peer);
            want.asks_count += 1;
            want.due_ms = now_ms.saturating_add(ANSWER_MS);
            asks.entry((peer, root)).or_default().push(*node);
            true
        });
        asks
    }

    /// A peer has brought something new on a tree.
    pub(crate) fn brought(&mut self, root: NodeId, from: NodeId) {
        if let Some(tree) = self.tree(root) {
            tree.brought(from);
        }
    }

    /// A peer has brought nothing new on a tree. Whom to ask to keep its news, if anybody.
    pub(crate) fn came_late(&mut self, root: NodeId, from: NodeId) -> Option<NodeId> {
        self.tree(root)?.came_late(from, root)
    }

    pub(crate) fn grafted(&mut self, root: NodeId, peer: NodeId) {
        if let Some(tree) = self.tree(root) {
            tree.grafted(peer);
        }
    }

    pub(crate) fn pruned(&mut self, root: NodeId, peer: NodeId) {
        if let Some(tree) = self.tree(root) {
            tree.pruned(peer);
        }
    }

    /// A node is no member any more.
    pub(crate) fn forget(&mut self, root: NodeId) {
        self.trees.remove(&root);
    }

    /// A neighbour is gone. Whom to ask for news of which root instead; the others are told now what waits for them, as they
    /// may have lost the same parent.
    pub(crate) fn lost(&mut self, now_ms: u64, peer: NodeId) -> Vec<(NodeId, NodeId)> {
        self.lazy.remove(&peer);
        self.lazy_at_ms = self.lazy_at_ms.min(now_ms);
        for want in self.wants.values_mut().filter(|want| want.asked == Some(peer)) {
            want.due_ms = want.due_ms.min(now_ms);
        }
        let next = |(root, tree): (&NodeId, &mut Tree)| Some((*root, tree.lost(peer)?));
        self.trees.iter_mut().filter_map(next).collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let lazy = (!self.lazy.is_empty()).then_some(self.lazy_at_ms);
        self.wants.values().map(|want| want.due_ms).chain(lazy).min()
    }
}
