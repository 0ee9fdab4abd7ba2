//! Changes of records on their way: along the tree of the node at which they came into the cluster.
//!
//! ```text
//! change ── News{root} ──► eager peers ── News{root} ──► …      a member that learns nothing from it says Prune
//!        ── IHave ──► lazy peers ── Graft ──► News{answer}      unless it comes in time
//! ```
//! What this node changes itself has it as its root. What every member works out by itself (that a node is away for too long, or
//! that a new one took its place) is announced only, and so is what a comparison has brought.

use weald_storage::NodeId;

use super::{Membership, Output};
use crate::messages::{ASKED_MAX, Announcement, Body, Entry, HEADS_MAX, Head, Message, PAGE_BYTES};
use crate::plumtree::Hurry;
use crate::view::RECORDS_MAX;

impl Membership {
    /// What a message of a peer has brought goes on.
    pub(super) fn pass_on(&mut self, from: NodeId, body: &Body, out: &mut Vec<Output>) {
        // This node's own record is another matter: it is this node that has changed it.
        let is_own = |node: &NodeId| *node == self.id;
        let (own, fresh) = std::mem::take(&mut self.fresh).into_iter().partition(is_own);
        self.fresh = own;
        let fresh: Vec<NodeId> = fresh;
        if fresh.is_empty() {
            return;
        }
        if let Body::News { root: Some(root), .. } = body {
            if self.view.is_member(*root) {
                self.plumtree.brought(*root, from);
            }
            self.push(*root, Some(from), &fresh, out);
            return;
        }
        // Who tells of itself is the root of that, however it tells.
        let (own, others): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|node| *node == from);
        self.push(from, Some(from), &own, out);
        self.announce_later(Some(from), &others, out);
    }

    /// What this node has changed by itself: its own record, and what an operator told it.
    pub(super) fn push_own(&mut self, out: &mut Vec<Output>) {
        let fresh = std::mem::take(&mut self.fresh);
        self.push(self.id, None, &fresh, out);
    }

    /// What others change in the same way by themselves.
    pub(super) fn announce_own(&mut self, out: &mut Vec<Output>) {
        let fresh = std::mem::take(&mut self.fresh);
        self.announce_later(None, &fresh, out);
    }

    fn push(
        &mut self,
        root: NodeId,
        from: Option<NodeId>,
        nodes: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        if nodes.is_empty() {
            return;
        }
        let receivers = self.plumtree.receivers(root, from, &self.neighbours);
        if !receivers.eager.is_empty() {
            for records in self.pages(nodes) {
                for to in &receivers.eager {
                    let body = Body::News { root: Some(root), is_answer: false };
                    let records = records.clone();
                    self.send(*to, Message { records, rumours: Vec::new(), body }, out);
                }
            }
        }
        for peer in receivers.lazy {
            self.announce_to(peer, Some(root), nodes, out);
        }
    }

    fn announce_later(&mut self, from: Option<NodeId>, nodes: &[NodeId], out: &mut Vec<Output>) {
        let told = self.plumtree.told(&self.neighbours);
        for peer in told.into_iter().filter(|peer| Some(*peer) != from) {
            self.announce_to(peer, None, nodes, out);
        }
    }

    fn announce_to(
        &mut self,
        peer: NodeId,
        root: Option<NodeId>,
        nodes: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        let now_ms = self.clock.now_ms;
        for node in nodes.iter().filter(|node| **node != peer) {
            if !self.plumtree.announce(now_ms, peer, root, *node) {
                return self.start_sync(peer, out);
            }
        }
    }

    /// The records of these, in pages.
    fn pages(&self, nodes: &[NodeId]) -> Vec<Vec<Entry>> {
        let (mut pages, mut page, mut bytes) = (Vec::new(), Vec::new(), 0);
        for record in nodes.iter().filter_map(|node| self.view.record(*node)) {
            let len = record.len_hint();
            if bytes + len > PAGE_BYTES && !page.is_empty() {
                pages.push(std::mem::take(&mut page));
                bytes = 0;
            }
            bytes += len;
            page.push(self.entry(record));
        }
        if !page.is_empty() {
            pages.push(page);
        }
        pages
    }

    /// Whether a record is news here.
    pub(super) fn is_news(&self, head: &Head) -> bool {
        match self.view.record(head.node) {
            // What everybody may have dropped already is not news.
            None => {
                let is_old =
                    !head.status.is_member() && head.gone_for_ms > self.config.max_absence_ms;
                !is_old && self.view.len() < RECORDS_MAX
            }
            Some(own) => {
                let rank = own.head_rank();
                head.rank() > rank || head.rank() == rank && head.texts != own.texts_hash()
            }
        }
    }

    /// Whether it is the record that is here.
    pub(super) fn is_same(&self, head: &Head) -> bool {
        self.view.record(head.node).is_some_and(|own| own.head_rank() == head.rank())
    }

    /// The tree has brought nothing new: one of two ways is too many.
    pub(super) fn on_nothing_new(
        &mut self,
        from: NodeId,
        root: NodeId,
        heads: &[Head],
        out: &mut Vec<Output>,
    ) {
        // Something older says nothing about the ways.
        let is_other = root != self.id && self.view.is_member(root);
        if !is_other || heads.is_empty() || !heads.iter().all(|head| self.is_same(head)) {
            return;
        }
        if let Some(peer) = self.plumtree.came_late(root, from) {
            self.send(peer, Message::bare(Body::Prune { root }), out);
        }
    }

    pub(super) fn on_i_have(
        &mut self,
        from: NodeId,
        items: &[Announcement],
        out: &mut Vec<Output>,
    ) {
        for Announcement { root, head } in items {
            self.hear(from, head, out);
            if self.is_news(head) {
                let hurry = if head.node == from { Hurry::Now } else { Hurry::Wait };
                self.plumtree.want(self.clock.now_ms, (from, *root), head, hurry);
            } else {
                self.plumtree.has(from, head.node);
            }
        }
        self.graft_due(out);
    }

    /// A neighbour gets the changes of a root another way.
    pub(super) fn on_prune(&mut self, from: NodeId, root: NodeId) {
        if self.neighbours.contains(&from) && self.view.is_member(root) {
            self.plumtree.pruned(root, from);
        }
    }

    /// Asks for what was announced and has not come in time.
    pub(super) fn graft_due(&mut self, out: &mut Vec<Output>) {
        for ((peer, root), nodes) in self.plumtree.asks(self.clock.now_ms, &self.connected) {
            for nodes in nodes.chunks(ASKED_MAX) {
                let body = Body::Graft { root, nodes: nodes.to_vec() };
                self.send(peer, Message::bare(body), out);
            }
        }
    }

    pub(super) fn on_graft(
        &mut self,
        from: NodeId,
        root: Option<NodeId>,
        nodes: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        let is_tree = |root: &NodeId| *root != from && self.view.is_member(*root);
        if let Some(root) = root.filter(is_tree)
            && self.neighbours.contains(&from)
        {
            self.plumtree.grafted(root, from);
        }
        self.answer(from, root, nodes, out);
    }

    /// Sends records that were asked for.
    pub(super) fn answer(
        &mut self,
        to: NodeId,
        root: Option<NodeId>,
        nodes: &[NodeId],
        out: &mut Vec<Output>,
    ) {
        for node in nodes {
            self.plumtree.has(to, *node);
        }
        for records in self.pages(nodes) {
            let body = Body::News { root, is_answer: true };
            self.send(to, Message { records, rumours: Vec::new(), body }, out);
        }
        // Who lacks this node's record could not take its comparison.
        if nodes.contains(&self.id) {
            self.sync_again(to, out);
        }
    }

    pub(super) fn tick_plumtree(&mut self, out: &mut Vec<Output>) {
        self.graft_due(out);
        for (peer, announced) in self.plumtree.take_lazy(self.clock.now_ms) {
            let items = announced.into_iter().filter_map(|(node, root)| {
                let head = self.entry(self.view.record(node)?).head();
                Some(Announcement { root, head })
            });
            let items: Vec<Announcement> = items.collect();
            for items in items.chunks(HEADS_MAX) {
                self.send(peer, Message::bare(Body::IHave { items: items.to_vec() }), out);
            }
        }
    }

    /// A neighbour is gone: trees in which it was the parent get another one.
    pub(super) fn lost_neighbour(&mut self, peer: NodeId, out: &mut Vec<Output>) {
        for (root, next) in self.plumtree.lost(self.clock.now_ms, peer) {
            if self.overlay.is_some() && self.neighbours.contains(&next) {
                let body = Body::Graft { root: Some(root), nodes: Vec::new() };
                self.send(next, Message::bare(body), out);
            }
        }
    }
}
